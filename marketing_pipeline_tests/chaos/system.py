"""The whole system under load, with faults, while any of its processes is killed at any time."""

import os
import random
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import cycle, islice
from pathlib import Path

import psycopg

from marketing_pipeline_tests.chaos import judge, kills
from marketing_pipeline_tests.chaos.bench import wait_for
from marketing_pipeline_tests.chaos.installation import (
    CODE_SERVER,
    COLD,
    WORKER,
    Installation,
    installed,
)
from marketing_pipeline_tests.chaos.sender import Sender
from marketing_pipeline_tests.chaos.tally import Progress, Tally

STROKES = 20  # an installation; then the next one begins with empty books
BETWEEN = (5.0, 14.0)  # seconds: before, in and after the next delivery run's start
PATIENCE = 180.0  # seconds in which everything must have settled after the last stroke
TOGETHER = "system: several at once"

_SPANS = "limits: [{calls: 200, per: 1s}], call_timeout: 1s, settle_delay: 1s" + kills.BREAKER
FILE = f"""version: 1
sender: {{email: hello@example.com, name: Example}}
delivery: {{linger: 60s, lease_margin: 500ms}}
templates:
  welcome: {{subject: Welcome, html: templates/welcome.html}}
  news: {{subject: What is new, html: templates/news.html}}
audiences:
  newcomers: {{sources: [demo], newest: 10}}
campaigns:
  news: {{audience: newcomers, template: news}}
providers:
  crm: {{adapter: hubspot, token: {{env: TOKEN}}, {_SPANS}}}
  mail: {{adapter: resend, api_key: {{env: TOKEN}}, {_SPANS}}}
  bulk:
    {{adapter: mailgun, api_key: {{env: TOKEN}}, domain: mg.example.com, region: us, horizon: 10m,
     {_SPANS.replace("settle_delay: 1s", "settle_delay: 2s")}}}
  site: {{adapter: webhook, url: "https://www.example.com/hook", {_SPANS}}}
routes:
  LEAD_CAPTURE:
    - {{step: contact, provider: crm, properties: {{firstname: first_name}}}}
    - {{step: welcome, provider: mail, template: welcome, priority: urgent}}
  CAMPAIGN_TRIGGER: [{{step: mail, provider: bulk, priority: bulk}}]
  CONTENT_PUBLISH: [{{step: post, provider: site}}]
"""


def run(budget: int, seed: int, progress: Progress) -> Tally:
    """As many strokes as the budget says."""
    tally = Tally()
    for number, at in enumerate(range(0, budget, STROKES)):
        chance = random.Random(f"{seed}:{number}")  # noqa: S311 - a second run strikes alike
        strokes = chosen(chance, min(STROKES, budget - at))
        for kind in sorted({_kind(one) for one in strokes}):
            progress.expect(kind, sum(_kind(one) == kind for one in strokes))
        with installed(FILE) as one:
            _strike(one, strokes, chance, tally, progress)
    return tally


def chosen(chance: random.Random, size: int) -> list[tuple[str, ...]]:
    """Every part in turn, in an order of chance; each third stroke hits two others as well."""
    parts = list(STROKE)
    chance.shuffle(parts)
    return [
        (part, *chance.sample([one for one in parts if one != part], 2))
        if number % 3 == 2
        else (part,)
        for number, part in enumerate(islice(cycle(parts), size))
    ]


def _strike(
    one: Installation,
    strokes: Sequence[tuple[str, ...]],
    chance: random.Random,
    tally: Tally,
    progress: Progress,
) -> None:
    one.sandbox.put("/_sandbox/faults", json=list(kills.FAULTS)).raise_for_status()
    sender = Sender(one)
    sender.begin()
    try:
        assert wait_for(lambda: bool(one.processes(WORKER)), COLD, 0.2), one.tail()
        for parts in strokes:
            time.sleep(chance.uniform(*BETWEEN))
            for part in parts:
                STROKE[part](one, chance)
            tally.trials[_kind(parts)] += 1
            progress.done(_kind(parts))
    finally:
        sender.stop()
    _judge(one, sender, tally)


def _judge(one: Installation, sender: Sender, tally: Tally) -> None:
    settled = wait_for(lambda: _over(one), PATIENCE, 0.5)
    with one.connect() as conn:
        verdict = judge.judge(conn, one.acts(), sender.effects)
        strays = astray(conn, sender.acknowledged)
    tally.effects += verdict.effects
    tally.duplicates += len(verdict.twice)
    tally.losses += len(verdict.lost) + len(verdict.unaccounted) + len(strays)
    tally.unknown["system"] += len(verdict.unknown)
    found = [*strays[:5], *sender.refused[:5], "" if verdict.clean else verdict.words()[:2000]]
    if verdict.unknown:
        found.append(f"{len(verdict.unknown)} left UNKNOWN, though every provider can be asked")
    if not settled:
        found.append(f"not settled after {PATIENCE:.0f} s: {one.tail()}")
    if any(found):
        tally.troubles.append("system: " + "; ".join(said for said in found if said))


def astray(conn: psycopg.Connection, acknowledged: Mapping[str, str]) -> list[str]:
    """Events that were acknowledged and are not in the log, or the other way about.

    acknowledged: the event's id, as ingest told it, by idempotency key.
    """
    rows = conn.execute("select idempotency_key, id::text from marketing_events").fetchall()
    logged: dict[str, str] = dict(rows)
    return [
        f"event {key}: acknowledged as {acknowledged.get(key)}, logged as {logged.get(key)}"
        for key in sorted(acknowledged.keys() | logged.keys())
        if acknowledged.get(key) != logged.get(key)
    ]


def _over(one: Installation) -> bool:
    with suppress(psycopg.OperationalError), one.connect() as conn:
        return kills.over(conn)
    return False


def _kind(parts: Sequence[str]) -> str:
    return f"system: {parts[0]}" if len(parts) == 1 else TOGETHER


def _kill(pid: int | None, number: signal.Signals = signal.SIGKILL) -> None:
    """What has just ended by itself, or is not back yet, was hit by the stroke before."""
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _worker(one: Installation, chance: random.Random) -> None:
    """A delivery run; waits for one that is on its way, or the stroke would hit nothing."""
    wait_for(lambda: bool(one.processes(WORKER)), COLD, 0.1)
    _each(one.processes(WORKER), chance)


def _each(pids: Sequence[int], chance: random.Random) -> None:
    if pids:
        _kill(chance.choice(pids))


def _backend(one: Installation, chance: random.Random) -> None:
    """One of PostgreSQL's children: it takes all sessions down and recovers."""
    postmaster = one.server("postgres")
    if postmaster is not None:
        with suppress(FileNotFoundError):  # it has just ended
            children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
            _each([int(child) for child in children], chance)


def _everything(one: Installation, _: random.Random) -> None:
    """As when the machine's power fails, except that what was written stays written."""
    for pid in [one.server("postgres"), one.server("valkey"), *one.processes()]:
        _kill(pid)


STROKE: Mapping[str, Callable[[Installation, random.Random], None]] = {
    "run worker": _worker,
    "ingest": lambda one, chance: _each(one.processes("marketing_pipeline ingest"), chance),
    "daemon": lambda one, chance: _each(one.processes("dagster._daemon"), chance),
    "code server": lambda one, chance: _each(one.processes(CODE_SERVER), chance),
    "PostgreSQL's backend": _backend,
    "PostgreSQL stopped at once": lambda one, _: _kill(one.server("postgres"), signal.SIGQUIT),
    "PostgreSQL killed": lambda one, _: _kill(one.server("postgres")),
    "Valkey killed": lambda one, _: _kill(one.server("valkey")),
    "Valkey flushed": lambda one, _: one.flush(),
    "everything": _everything,
}
