"""From the answer of ingest to the provider: with a delivery run awake, and with nothing awake.

    python -m benchmarks.latency [--quick]

Real processes of an installation of its own: ingest, the sandbox, and `dagster job execute` (warm)
or `dagster-daemon run` (cold). The clock ends when the sandbox has read the provider's request, for
each effect's first call. It starts when the client has read ingest's answer; for "request to
provider" before it has sent the request, and beside a flood before the log's commit. All are this
machine's. Beside it, what benchmarks/byhand.py takes from a job's commit to the same sandbox.
"""

import asyncio
import itertools
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from multiprocessing.connection import Connection
from urllib.parse import urlsplit

import aiohttp
import uvloop
from psycopg import AsyncConnection

from benchmarks import aside, byhand, delivering, figures, installation, posting
from benchmarks.figures import Line, measured
from benchmarks.installation import Installation, until
from marketing_pipeline.event_log import intake

COMMIT_LIMIT = 5.0  # milliseconds at p95
REQUEST_LIMIT = 15.0
FLOODED_LIMIT = 50.0
FLOODING = 64  # connections
COLD_LIMIT = 15.0  # seconds, each trial
_ENDED = "('SUCCESS', 'FAILURE', 'CANCELED')"
_EFFECTS = """
select e.id::text, m.id::text, extract(epoch from m.created_at)::float
from effects e join marketing_events m on m.id = e.event_id order by m.seq"""
_STEP = 1.3  # seconds that each cold trial starts later in the sensor's interval of 5 s


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """An event as the client saw it."""

    event_id: str
    began: float  # unix seconds
    at: float  # unix seconds, when its answer had been read


def lines(quick: bool = False) -> Iterator[Line]:
    """Warm, cold, and while ingest is given all that it takes."""
    yield from _warm(20, 10 if quick else 60)
    yield from _beside_a_flood(20, 8_000 if quick else 80_000)
    yield from _flooded(2_000 if quick else 20_000)
    cold = _cold(2 if quick else 5)
    yield measured("latency/cold, answer to provider", "s", cold, at_most=COLD_LIMIT)


def _warm(per_second: int, seconds: int) -> Iterator[Line]:
    """Until the sandbox has read the call: from a commit of ours, and from a request to ingest."""
    with installation.installation(linger="5s") as own:
        own.start_sandbox()
        own.start_ingest()
        run = own.start_delivery()
        answered = asyncio.run(_post_steadily(own, per_second, seconds))
        committed = asyncio.run(_commit_steadily(own, per_second, range(per_second * seconds)))
        if run.wait(120) != 0:
            raise SystemExit(f"the delivery run failed: {own.said('delivery')}")
        from_requests = _all_reached(own, {one.event_id: one.began for one in answered})
        from_commits = _all_reached(own, {one.event_id: one.at for one in committed})
        by_hand = _by_hand(own, per_second, seconds)
    waits = [(one.at - one.began) * 1000 for one in answered]
    yield from _percentiles("latency/ingest's answer", waits)
    name = "latency/commit to provider"
    yield from _percentiles(name, from_commits, by_hand, at_most=COMMIT_LIMIT)
    yield from _percentiles("latency/request to provider", from_requests, at_most=REQUEST_LIMIT)


def _beside_a_flood(per_second: int, events: int) -> Iterator[Line]:
    """The same at full ingest rate, of posts that are due tomorrow, for what is due now.

    From before the commit: this process may be late in reading that it is done.
    """
    with installation.installation(linger="5s") as own:
        own.start_sandbox()
        own.start_ingest()
        own.start_delivery()
        asyncio.run(_commit_steadily(own, per_second, range(2 * per_second)))
        with aside.working(_pour, urlsplit(own.ingest_url).port, own.key, events) as flood:
            committed = asyncio.run(_commit_steadily(own, per_second, _until_told(flood)))
            rate = flood.recv()
        own.finish(120)
        waits = _all_reached(own, {one.event_id: one.began for one in committed})
    yield measured("latency/flood due tomorrow", "events/s", [rate])
    name = "latency/commit to provider beside that flood"
    yield from _percentiles(name, waits, at_most=FLOODED_LIMIT)


def _pour(port: int, key: str, events: int, pipe: Connection) -> None:
    """Post so many that are due tomorrow, and tell the rate."""
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    bodies = [posting.publication(n) | {"scheduledAt": tomorrow} for n in range(events)]
    ready = partial(pipe.send, "ready")
    waits, seconds = uvloop.run(posting.post(port, key, bodies, FLOODING, ready))
    pipe.send(len(waits) / seconds)


def _until_told(pipe: Connection) -> Iterator[int]:
    yield from itertools.takewhile(lambda _: not pipe.poll(), itertools.count())


def _flooded(events: int) -> Iterator[Line]:
    """From a post's record to the provider's door, at full ingest rate, of which all is due."""
    with delivering.house() as at:
        own = at.own
        own.env = at.env
        own.start_ingest()
        own.start_delivery()
        port = urlsplit(own.ingest_url).port
        assert port is not None
        bodies = [posting.publication(number) for number in range(events)]
        waits, seconds = uvloop.run(posting.post(port, own.key, bodies, FLOODING))
        own.finish(300)
        calls = at.provider.count().keys
        delays = [(calls[effect] - since) * 1000 for effect, _, since in own.ask(_EFFECTS)]
    yield measured("latency/flood", "events/s", [len(waits) / seconds])
    if len(delays) != events:
        raise SystemExit(f"{len(delays)} effects of {events} posts: the figures are void")
    name = "latency/commit to provider while flooded"
    yield from _percentiles(name, delays, at_most=FLOODED_LIMIT)


def _by_hand(own: Installation, per_second: int, seconds: int) -> list[float]:
    """Milliseconds from the commit of a job of a loop by hand until its call had been read."""
    jobs = per_second * seconds
    with byhand.database(own.database_url) as url:
        byhand.fill(url, 0)
        with byhand.working(url, f"{own.sandbox_url}/webhook", jobs) as worker:
            committed = asyncio.run(_add_steadily(url, per_second, jobs))
            worker.recv()
    calls = _calls(own)
    return [(calls[str(job)] - at) * 1000 for job, at in committed.items()]


async def _add_steadily(url: str, per_second: int, jobs: int) -> dict[int, float]:
    """When each job's commit had returned, in unix seconds."""
    found = {}
    async with await AsyncConnection.connect(url, autocommit=True) as conn:
        began = time.monotonic()
        for number in range(jobs):
            await asyncio.sleep(max(began + number / per_second - time.monotonic(), 0))
            job = await byhand.add(conn)
            found[job] = time.time()
    return found


def _percentiles(
    name: str,
    waits: Sequence[float],
    by_hand: Sequence[float] = (),
    *,
    at_most: float | None = None,
) -> Iterator[Line]:
    """In ms, each of five spans of time; the bound is for the p95."""
    for percent in (50, 95, 99):
        yield measured(
            f"{name}, p{percent}",
            "ms",
            figures.fifths(waits, percent),
            baselines=figures.fifths(by_hand, percent),
            at_most=at_most if percent == 95 else None,
        )


def _cold(trials: int) -> list[float]:
    """Seconds from the answer to the sandbox, of one event at a time that wakes everything."""
    with installation.installation(linger="1s") as own:
        own.start_sandbox()
        own.start_ingest()
        code = ("-m", "marketing_pipeline.definitions")
        own.start("daemon", "dagster._daemon", "run", *code)
        _deliver_one(own)  # the daemon itself has to start
        found = []
        for number in range(trials):
            until(lambda: _all_ended(own), 120, "the end of a run")
            time.sleep(number * _STEP % 5)
            found.append(_deliver_one(own))
    return found


def _deliver_one(own: Installation) -> float:
    answered = asyncio.run(_post_steadily(own, 1, 1))
    since = {one.event_id: one.at for one in answered}
    until(lambda: _reached(own, since), 120, "the event at the sandbox")
    return min(_reached(own, since)) / 1000


def _all_ended(own: Installation) -> bool:
    query = f"select from runs where status not in {_ENDED}"
    return not own.awake() and not own.ask(query, url=own.dagster_url)


async def _post_steadily(own: Installation, per_second: int, seconds: int) -> list[Answered]:
    """A post at each beat, whether or not the one before has been answered."""
    headers = {"Authorization": f"Bearer {own.key}"}
    async with aiohttp.ClientSession(own.ingest_url, headers=headers) as session:

        async def send(number: int) -> Answered:
            await asyncio.sleep(number / per_second)
            began = time.time()
            async with session.post("/events", json=posting.mixed(number)) as answer:
                content = await answer.json()
                at = time.time()
            answer.raise_for_status()
            return Answered(event_id=content["eventId"], began=began, at=at)

        return await asyncio.gather(*(send(number) for number in range(per_second * seconds)))


async def _commit_steadily(
    own: Installation, per_second: int, numbers: Iterable[int]
) -> list[Answered]:
    """The same events by our own hand, one for each number: answered when its commit returned."""
    found = []
    async with await AsyncConnection.connect(own.database_url, autocommit=True) as conn:
        began = time.monotonic()
        for number in numbers:
            await asyncio.sleep(max(began + number / per_second - time.monotonic(), 0))
            one = posting.as_event(posting.mixed(number), datetime.now(UTC))
            begins = time.time()
            async with conn.transaction():
                await intake.record(conn, [one], datetime.now(UTC))
            found.append(Answered(event_id=str(one.id), began=begins, at=time.time()))
    return found


def _reached(own: Installation, since: Mapping[str, float]) -> list[float]:
    """Milliseconds from an instant of each event, in unix seconds, until each of its first calls
    had been read, in the order of the events; what was not is absent."""
    calls = _calls(own)
    effects: dict[str, list[str]] = {}
    for effect, caused_by, _ in own.ask(_EFFECTS):
        effects.setdefault(caused_by, []).append(effect)
    return [
        (calls[effect] - began) * 1000
        for event_id, began in since.items()
        for effect in effects.get(event_id, ())
        if effect in calls
    ]


def _all_reached(own: Installation, since: Mapping[str, float]) -> list[float]:
    """The same, where every effect of every event must have been called for."""
    planned = sum(caused_by in since for _, caused_by, _ in own.ask(_EFFECTS))
    found = _reached(own, since)
    if not len(found) == planned >= len(since) > 0:
        raise SystemExit(
            f"{len(found)} calls for {planned} effects of {len(since)} events: the figures are void"
        )
    return found


def _calls(own: Installation) -> dict[str, float]:
    """When the sandbox had read the first call under each key, in unix seconds."""
    with closing(sqlite3.connect(f"file:{own.record}?mode=ro", uri=True)) as file:
        return dict(file.execute("select key, min(at) from calls group by key").fetchall())


if __name__ == "__main__":
    figures.alone(__doc__, lines)
