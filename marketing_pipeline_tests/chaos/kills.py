"""Engines that are killed at random instants while work keeps coming and providers misbehave."""

import random
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import psycopg

from marketing_pipeline.domain.event import NewEvent
from marketing_pipeline_tests import pipeline
from marketing_pipeline_tests.chaos import judge
from marketing_pipeline_tests.chaos.bench import Batch, Bench, ground, wait_for
from marketing_pipeline_tests.chaos.boundaries import benches
from marketing_pipeline_tests.chaos.engine import Engine
from marketing_pipeline_tests.chaos.judge import Verdict
from marketing_pipeline_tests.chaos.tally import Progress, Tally

KIND = "engine killed"
AT_ONCE = 2  # logs that are worked on side by side
KILLS = 25  # a log
LONGEST = 0.9  # seconds that an engine lives: a start takes 0.2 of them
BACKLOG = 40  # open effects below which more events come
PATIENCE = 90.0  # seconds in which the last engine must have settled everything
AUDIENCE = 10

# The breaker is quick to try again: more goes wrong here than a patient one would stand.
BREAKER = ", breaker: {error_share: 0.9, open_for: 200ms}"
_USUAL = (
    "limits: [{calls: 200, per: 1s}], call_timeout: 500ms, settle_delay: 300ms, connections: 8"
    + BREAKER
)
FILE = f"""version: 1
sender: {{email: hello@example.com, name: Example}}
delivery: {{linger: 60s, lease_margin: 200ms}}
templates:
  welcome: {{subject: Welcome, html: templates/welcome.html}}
  news: {{subject: What is new, html: templates/news.html}}
audiences:
  newcomers: {{sources: [demo], newest: {AUDIENCE}}}
campaigns:
  news: {{audience: newcomers, template: news}}
providers:
  crm_{{suffix}}: {{adapter: hubspot, token: {{env: TOKEN}}, {_USUAL}}}
  mail_{{suffix}}: {{adapter: resend, api_key: {{env: TOKEN}}, {_USUAL}}}
  mailgun_{{suffix}}:
    {{adapter: mailgun, api_key: {{env: TOKEN}}, domain: mg.example.com, region: us, horizon: 5m,
     {_USUAL.replace("settle_delay: 300ms", "settle_delay: 900ms")}}}
  site_{{suffix}}: {{adapter: webhook, url: "https://www.example.com/hook", {_USUAL}}}
routes:
  LEAD_CAPTURE:
    - {{step: contact, provider: crm_{{suffix}}, properties: {{firstname: first_name}}}}
    - {{step: welcome, provider: mail_{{suffix}}, template: welcome, priority: urgent}}
  CAMPAIGN_TRIGGER: [{{step: mail, provider: mailgun_{{suffix}}, priority: bulk}}]
  CONTENT_PUBLISH: [{{step: post, provider: site_{{suffix}}}}]
"""
BATCH = Batch(name="kills", file=FILE, events=list, effects=0)

# Nobody is throttled: a pause of seconds would leave the killer little to do. More faults than
# these, and now and then an effect would have no clear answer in six attempts, which is UNKNOWN.
FAULTS: tuple[dict[str, Any], ...] = tuple(
    {"provider": provider, "kind": kind, "share": share, "seconds": 0.7}
    for provider in ("hubspot", "resend", "mailgun", "webhook")
    for kind, share in (
        ("error_before", 0.01),
        ("error_after", 0.01),
        ("reset_before", 0.01),
        ("reset_after", 0.01),
        ("close_after", 0.01),
        ("half_body_after", 0.01),
        ("hang_before", 0.005),
        ("hang_after", 0.005),
    )
)


STUCK = "it did not end"  # how `Engine.stop` says so


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of one log."""

    kills: int
    in_flight: int  # effects that were being called when their engine was killed
    verdict: Verdict
    crashes: tuple[str, ...]  # engines that ended by themselves; others took over
    stuck: str  # what would not end when told to; empty where there was none


def run(budget: int, seed: int, progress: Progress) -> Tally:
    """As many kills as the budget says, spread over logs of `KILLS` each."""
    tally = Tally()
    progress.expect(KIND, budget)
    sizes = [min(KILLS, budget - at) for at in range(0, budget, KILLS)]
    with ground() as shared:
        shared.template(BATCH)
        with benches(shared, min(AT_ONCE, len(sizes))) as several:

            def work(turn: int) -> list[Result]:
                mine = list(enumerate(sizes))[turn :: len(several)]
                return [one_log(several[turn], kills, f"{seed}:{n}", progress) for n, kills in mine]

            with ThreadPoolExecutor(len(several)) as workers:
                for results in workers.map(work, range(len(several))):
                    for result in results:
                        count(tally, result)
    return tally


def one_log(bench: Bench, kills: int, seed: str, progress: Progress) -> Result:
    """Kill so often on one log, of one engine or two, let the last ones finish, and judge."""
    chance = random.Random(seed)  # noqa: S311 - which instants: a second run takes the same ones
    database = bench.database(BATCH)
    environment = direct(bench, BATCH, database)
    bench.forget()
    bench.client.put("/_sandbox/faults", json=list(FAULTS)).raise_for_status()
    source, in_flight, crashes = Source(database), 0, []
    engines = [bench.start(environment) for _ in range(chance.choice((1, 2)))]
    with psycopg.connect(database, autocommit=True) as conn:
        for _ in range(kills):
            source.top_up(judge.standing(conn).open)
            time.sleep(chance.uniform(0.1, LONGEST))
            at = chance.randrange(len(engines))
            crashes.append(kill(engines[at]))
            in_flight += _sending(conn)
            engines[at] = bench.start(environment)
            progress.done(KIND)
        crashes += finish(conn, engines, partial(bench.start, environment))
        verdict = judge.judge(conn, bench.acts(), source.effects)
    return Result(
        kills=kills,
        in_flight=in_flight,
        verdict=verdict,
        crashes=tuple(one for one in crashes if one and not one.startswith(STUCK)),
        stuck="; ".join(one for one in crashes if one and one.startswith(STUCK)),
    )


@dataclass(slots=True)
class Source:
    """Events without end: leads, posts, and campaigns to the newest leads."""

    database: str
    effects: int = 0  # that all events so far come to
    _leads: int = 0

    def top_up(self, open_effects: int) -> None:
        """More events, unless enough is open."""
        if open_effects < BACKLOG:
            pipeline.record(self.database, self._more())

    def _more(self) -> list[NewEvent]:
        first = self._leads
        self._leads += AUDIENCE
        events = [pipeline.lead(n) for n in range(first, self._leads)]
        events += [pipeline.post(n) for n in range(first, self._leads)]
        events.append(pipeline.campaign("news", f"news-{first}"))
        self.effects += 2 * AUDIENCE + AUDIENCE + AUDIENCE
        return events


def direct(bench: Bench, batch: Batch, database: str) -> dict[str, str]:
    """An engine's environment without the proxies of the other suites."""
    return bench.environment(batch, database) | {
        "MARKETING_DATABASE_URL": database,
        "MARKETING_REDIS_URL": bench.ground.servers.redis_url,
        "MARKETING_SANDBOX_URL": bench.sandbox_url,
    }


def kill(engine: Engine) -> str | None:
    """Kill it; what it said at its end, if it had ended with an error before."""
    engine.signal(signal.SIGKILL)
    engine.ends()
    return engine.crash()


def finish(
    conn: psycopg.Connection, engines: list[Engine], start: Callable[[], Engine]
) -> list[str | None]:
    """Let them settle everything, another one for each that ends by itself; what went wrong."""
    crashes: list[str | None] = []

    def done() -> bool:
        for at, engine in enumerate(engines):
            if not engine.lives:
                crashes.append(engine.crash())  # None where its time was up
                engines[at] = start()
        return over(conn)

    wait_for(done, PATIENCE, 0.05)
    return crashes + [one.stop() or one.crash() for one in engines]


def over(conn: psycopg.Connection) -> bool:
    """Is nothing open and every event told?"""
    standing = judge.standing(conn)
    return standing.settled and not standing.processing


def count(tally: Tally, result: Result) -> None:
    """Add a log to the sums."""
    verdict = result.verdict
    tally.trials[KIND] += result.kills
    tally.effects += verdict.effects
    tally.duplicates += len(verdict.twice)
    tally.losses += len(verdict.lost) + len(verdict.unaccounted)
    tally.unknown[KIND] += len(verdict.unknown)
    tally.crashes += result.crashes
    found = [result.stuck, "" if verdict.clean else verdict.words()[:2000]]
    if len(verdict.unknown) > result.in_flight:
        found.append(f"{len(verdict.unknown)} unknown, {result.in_flight} were in flight")
    if any(found):
        tally.troubles.append(f"{result.kills} kills: {'; '.join(one for one in found if one)}")


def _sending(conn: psycopg.Connection) -> int:
    row = conn.execute(
        "select count(*) from effects where state in ('SENDING', 'DOUBT')"
    ).fetchone()
    assert row is not None
    return int(row[0])
