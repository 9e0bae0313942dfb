"""Limits from outside: a strict judge with a clock of its own counts what reaches each provider.

Several engines share one gate while they are killed and their Valkey is flushed or killed. Every
request counts, also those that the provider failed, and every span of a window's length does.
"""

import os
import random
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psycopg
import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from marketing_pipeline import embedded
from marketing_pipeline_tests import pipeline
from marketing_pipeline_tests.chaos import bucket, judge, kills
from marketing_pipeline_tests.chaos.bench import Batch, Bench, ground, wait_for
from marketing_pipeline_tests.chaos.boundaries import benches
from marketing_pipeline_tests.chaos.engine import Engine
from marketing_pipeline_tests.chaos.judge import Verdict
from marketing_pipeline_tests.chaos.tally import Progress, Tally

ENGINES = 4
STROKES = 8  # disturbances a log
LEADS, POSTS = 45, 100  # about ten seconds' work at these limits
PATIENCE = 60.0  # seconds

Limits = Mapping[str, Sequence[tuple[int, float]]]
"""By adapter: so many calls in any span of so many seconds."""
LIMITS: Limits = {
    "hubspot": [(20, 2.0)],
    "resend": [(10, 1.0), (30, 4.0)],
    "webhook": [(20, 1.0)],
}


def _windows(adapter: str) -> str:
    return ", ".join(f"{{calls: {calls}, per: {per}s}}" for calls, per in LIMITS[adapter])


_USUAL = f"call_timeout: 500ms, settle_delay: 300ms, connections: 8{kills.BREAKER}"
FILE = f"""version: 1
sender: {{email: hello@example.com, name: Example}}
delivery: {{linger: 60s, lease_margin: 200ms}}
templates:
  welcome: {{subject: Welcome, html: templates/welcome.html}}
providers:
  crm_{{suffix}}:
    {{adapter: hubspot, token: {{env: TOKEN}}, limits: [{_windows("hubspot")}], {_USUAL}}}
  mail_{{suffix}}:
    {{adapter: resend, api_key: {{env: TOKEN}}, limits: [{_windows("resend")}], {_USUAL}}}
  site_{{suffix}}:
    {{adapter: webhook, url: "https://www.example.com/hook", limits: [{_windows("webhook")}],
     {_USUAL}}}
routes:
  LEAD_CAPTURE:
    - {{step: contact, provider: crm_{{suffix}}, properties: {{firstname: first_name}}}}
    - {{step: welcome, provider: mail_{{suffix}}, template: welcome, priority: urgent}}
  CONTENT_PUBLISH: [{{step: post, provider: site_{{suffix}}}}]
  CAMPAIGN_TRIGGER: [{{step: mail, provider: mail_{{suffix}}}}]
"""
BATCH = Batch(
    name="limits",
    file=FILE,
    events=lambda: [*map(pipeline.lead, range(LEADS)), *map(pipeline.post, range(POSTS))],
    effects=2 * LEADS + POSTS,
)


def run(budget: int, seed: int, progress: Progress) -> Tally:
    """As many disturbances as the budget says, `STROKES` a log."""
    tally = Tally()
    sizes = [min(STROKES, budget - at) for at in range(0, budget, STROKES)]
    with ground() as shared, own_valkey() as valkey, benches(shared, 1) as (bench,):
        for number, size in enumerate(sizes):
            chance = random.Random(f"{seed}:{number}")  # noqa: S311 - a second run does the same
            kinds = chance.choices(list(STROKE), k=size)
            for kind in sorted(set(kinds)):
                progress.expect(kind, kinds.count(kind))
            _count(tally, _one_log(bench, valkey, kinds, chance, progress))
    return tally


@dataclass(slots=True)
class Valkey:
    """A Valkey that may be flushed and killed: nobody else's gate is in it."""

    state: Path
    url: str

    def flush(self) -> None:
        patient = Retry(ConstantBackoff(0.1), 100)  # it may just have been killed
        with redis.Redis.from_url(self.url, retry=patient) as client:
            client.flushall()

    def kill(self) -> None:
        """Kill it and start it again with its file, as an init system would."""
        [pid] = self._pids()
        os.kill(pid, signal.SIGKILL)
        assert wait_for(lambda: pid not in self._pids(), 10, 0.01)  # else it were taken for alive
        embedded.attach(self.state, postgres=False)

    def _pids(self) -> list[int]:
        return [server.pid for server in embedded.status(self.state).servers]


@contextmanager
def own_valkey() -> Iterator[Valkey]:
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder) / "state"
        try:
            yield Valkey(state, embedded.attach(state, postgres=False).redis_url)
        finally:
            embedded.stop(state, force=True)


@dataclass(slots=True, kw_only=True)
class Site:
    """What a stroke may strike at."""

    engines: list[Engine]
    start: Callable[[], Engine]
    valkey: Valkey
    chance: random.Random
    crashes: list[str | None] = field(default_factory=list)

    def kill_one(self) -> None:
        at = self.chance.randrange(len(self.engines))
        self.crashes.append(kills.kill(self.engines[at]))
        self.engines[at] = self.start()


STROKE: Mapping[str, Callable[[Site], None]] = {
    "limits: engine killed": Site.kill_one,
    "limits: Valkey flushed": lambda site: site.valkey.flush(),
    "limits: Valkey killed": lambda site: site.valkey.kill(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of one log."""

    kinds: Sequence[str]
    verdict: Verdict
    exceeded: Sequence[str]  # a line for each span with a call too many
    trouble: str


def _one_log(
    bench: Bench,
    valkey: Valkey,
    kinds: Sequence[str],
    chance: random.Random,
    progress: Progress,
) -> Result:
    database, environment = ready(bench, valkey)
    start = partial(bench.start, environment)
    engines = [start() for _ in range(ENGINES)]
    site = Site(engines=engines, start=start, valkey=valkey, chance=chance)
    with psycopg.connect(database, autocommit=True) as conn:
        for kind in kinds:
            time.sleep(chance.uniform(0.3, 1.5))
            STROKE[kind](site)
            progress.done(kind)
        trouble = site.crashes + kills.finish(conn, engines, start)
        verdict = judge.judge(conn, bench.acts(), BATCH.effects)
    return Result(
        kinds=kinds,
        verdict=verdict,
        exceeded=exceeded(calls(bench)),
        trouble="; ".join(one for one in trouble if one),
    )


def ready(bench: Bench, valkey: Valkey) -> tuple[str, dict[str, str]]:
    """A log full of work, an empty record, providers with faults; URL and environment."""
    database = bench.database(BATCH)
    bench.forget()
    bench.client.put("/_sandbox/faults", json=list(kills.FAULTS)).raise_for_status()
    environment = kills.direct(bench, BATCH, database)
    return database, environment | {"MARKETING_REDIS_URL": valkey.url}


def calls(bench: Bench) -> dict[str, list[float]]:
    """When each provider was called, by its own clock, whatever it answered."""
    found: dict[str, list[float]] = {}
    for row in bench.client.get("/_sandbox/calls").json():
        found.setdefault(row["provider"], []).append(row["at"])
    return {provider: sorted(times) for provider, times in found.items()}


def exceeded(called: Mapping[str, Sequence[float]], limits: Limits = LIMITS) -> list[str]:
    """Every call that came while as many as the limit had come within the span before it."""
    return [
        f"{provider}: {most + 1} calls within {times[at] - times[at - most]:.3f} of {per} s"
        for provider, times in called.items()
        for most, per in limits[provider]
        for at in range(most, len(times))
        if times[at] - times[at - most] < per
    ]


def _count(tally: Tally, result: Result) -> None:
    verdict = result.verdict
    tally.trials.update(result.kinds)
    tally.effects += verdict.effects
    tally.duplicates += len(verdict.twice)
    tally.losses += len(verdict.lost) + len(verdict.unaccounted)
    tally.unknown["limits"] += len(verdict.unknown)
    tally.over_limit += len(result.exceeded)
    found = [result.trouble, "" if verdict.clean else verdict.words()[:2000], *result.exceeded[:5]]
    if verdict.unknown:
        found.append(f"{len(verdict.unknown)} left UNKNOWN, though every provider can be asked")
    if any(found):
        tally.troubles.append("limits: " + "; ".join(one for one in found if one))


def a_plain_bucket(bench: Bench) -> bool:
    """The same engines with the usual gate, and nobody disturbs them: the judge must object."""
    with own_valkey() as valkey:
        _, environment = ready(bench, valkey)
        log = bench.home / "engine.log"
        arguments = (environment, str(log))
        engines = [Engine.start(bucket.forked, arguments, log) for _ in range(ENGINES)]
        caught = wait_for(lambda: bool(exceeded(calls(bench))), PATIENCE, 0.2)
        for engine in engines:
            kills.kill(engine)
    return caught


CONTROLS: dict[str, Callable[[Bench], bool]] = {"the gate as a plain bucket": a_plain_bucket}
