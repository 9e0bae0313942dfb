"""Posts to the ingest service: rate, latency, CPU and memory, beside the same work without a part.

    python -m benchmarks.ingest [--quick]

Load generator, service and PostgreSQL share this machine. What is compared runs in turn, since
figures drift from one minute to the next:

- one event a request, beside the same service that says ACCEPTED without recording anything (key
  check, validation, fingerprint and answer included): the difference is what durability costs;
- batches, beside bare inserts of the same rows on as many connections as the service has, as one
  writes them by hand: no HTTP, nothing validated or hashed, nobody told; and beside what PostgreSQL
  alone makes of statements that were written before the clock;
- posts at a steady rate, alone and while a delivery run is awake that each of them wakes.
"""

import asyncio
import json
import logging
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlsplit

import psycopg
import uvloop
from psycopg import AsyncConnection
from psycopg.types.json import Jsonb

from benchmarks import delivering, figures, installation, posting, usage
from benchmarks.figures import Line, compared, measured
from marketing_pipeline import settings
from marketing_pipeline.domain.event import NewEvent
from marketing_pipeline.event_log.intake import Recorded, Verdict
from marketing_pipeline.ingest.app import Ingest, create_app
from marketing_pipeline.ingest.batcher import Batcher, Outcome
from marketing_pipeline.ingest.feedback import Feedback, Openings
from marketing_pipeline.ingest.health import Health
from marketing_pipeline.ingest.senders import Senders
from marketing_pipeline.ingest.serve import run

SHARE = 0.6  # of the same work without the store, or without HTTP
RATE = 4_000  # events/s, one a request
CONNECTIONS = 64
BATCH = 100  # events
BATCHING = 8  # connections that send batches
STEADY = 500  # events/s
P95, P99 = 5.0, 15.0  # ms at that rate
LIMIT_MIB = 120  # what the service may take after 50,000 events
_ROUNDS = 5
FLUSHERS = 2  # connections on which the service records
STATES = "select state, count(*) from effects group by state"
COLUMNS = (
    "id, idempotency_key, type, payload, source, fingerprint, scheduled_at, created_at, updated_at"
)
_NAMES = COLUMNS.split(", ")
_ONE = ", ".join(["%s"] * len(_NAMES))
_VALUES = f"""
insert into marketing_events ({COLUMNS}) values {", ".join([f"({_ONE})"] * BATCH)}
on conflict do nothing"""  # noqa: S608 (our own words)
_DOCUMENT = f"""
insert into marketing_events ({COLUMNS})
select {COLUMNS} from json_populate_recordset(null::marketing_events, %s::json)
on conflict do nothing"""  # noqa: S608 (our own words)
Row = tuple[object, ...]  # of marketing_events, in the order of COLUMNS
Insert = Callable[[AsyncConnection], Awaitable[object]]  # of one batch, in its own transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Burst:
    """As many posts as the service takes."""

    per_second: float
    p95: float  # ms
    cpu: float  # ms of the service per event
    peak_mib: float


class Storeless(Batcher):
    """Accepts at once and records nothing."""

    async def record(self, events: Sequence[NewEvent]) -> list[Outcome]:
        return [Recorded(event_id=e.id, verdict=Verdict.ACCEPTED) for e in events]


def lines(quick: bool = False) -> Iterator[Line]:
    """Single posts, batches, and posts at a steady rate."""
    seconds = 5 if quick else 50
    with installation.database() as url:
        key = installation.create_key(url)
        yield from _singles(url, key, 4_000 if quick else 50_000)
        yield from _batches(url, key, 40 if quick else 200)
        with _service(url) as (port, _):
            alone = uvloop.run(_steadily(port, key, seconds))
    yield from _percentiles(f"ingest/{STEADY} a second, alone", alone)
    yield from _beside_delivery(seconds, alone)


def _singles(url: str, key: str, events: int) -> Iterator[Line]:
    def recorded() -> Burst:
        before = _count(url)
        burst = _burst(url, key, events, recording=True)
        if (found := _count(url) - before) != events:
            raise SystemExit(f"{events} accepted, {found} in the log: the figures are void")
        return burst

    stored, storeless = figures.turns(
        _ROUNDS, recorded, lambda: _burst(url, key, events, recording=False)
    )
    rates, baselines = [one.per_second for one in stored], [one.per_second for one in storeless]
    name = f"ingest/one a request, {CONNECTIONS} connections"
    yield compared(f"{name}, to no store", "events/s", rates, baselines, at_least=SHARE)
    yield measured(name, "events/s", rates, at_least=RATE)
    yield measured(f"{name}, p95", "ms", [one.p95 for one in stored])
    yield compared(
        "ingest/CPU of the service per event, to no store",
        "ms",
        [one.cpu for one in stored],
        [one.cpu for one in storeless],
    )
    peaks = [one.peak_mib for one in stored]
    yield measured(f"ingest/peak after {events:,} events", "MiB", peaks, at_most=LIMIT_MIB)


def _burst(url: str, key: str, events: int, *, recording: bool) -> Burst:
    bodies = [posting.lead(number) for number in range(events)]
    with _service(url, recording=recording) as (port, pid):
        before = usage.cpu(pid)
        waits, seconds = uvloop.run(posting.post(port, key, bodies, CONNECTIONS))
        return Burst(
            per_second=events / seconds,
            p95=figures.percentile(waits, 95) * 1000,
            cpu=(usage.cpu(pid) - before) * 1000 / events,
            peak_mib=usage.peak_mib(pid),
        )


def _batches(url: str, key: str, count: int) -> Iterator[Line]:
    with _service(url) as (port, _):
        rates, by_hand, alone = figures.turns(
            _ROUNDS,
            lambda: _posted(port, key, count),
            lambda: uvloop.run(_inserted(url, count, _by_hand)),
            lambda: uvloop.run(_inserted(url, count, _written_before)),
        )
    name = f"ingest/batches of {BATCH}"
    yield compared(f"{name}, to bare inserts", "events/s", rates, by_hand, at_least=SHARE)
    yield compared(f"{name}, to PostgreSQL alone", "events/s", rates, alone)


def _posted(port: int, key: str, count: int) -> float:
    """Events a second in batches over HTTP."""
    batches = [[posting.publication(n) for n in range(BATCH)] for _ in range(count)]
    _, seconds = uvloop.run(posting.post_batches(port, key, batches, BATCHING))
    return count * BATCH / seconds


async def _inserted(url: str, count: int, making: Callable[[Sequence[Row]], Insert]) -> float:
    """Rows a second."""
    now = datetime.now(UTC)
    inserts = [
        making([_row(posting.publication(n), now) for n in range(BATCH)]) for _ in range(count)
    ]

    async def work(conn: AsyncConnection, inserts: Sequence[Insert]) -> None:
        for insert in inserts:
            await insert(conn)

    async with AsyncExitStack() as stack:
        connecting = (AsyncConnection.connect(url, autocommit=True) for _ in range(FLUSHERS))
        conns = [await stack.enter_async_context(await one) for one in connecting]
        began = time.perf_counter()
        shares = (work(conn, inserts[at::FLUSHERS]) for at, conn in enumerate(conns))
        await asyncio.gather(*shares)
        return count * BATCH / (time.perf_counter() - began)


def _by_hand(rows: Sequence[Row]) -> Insert:
    """The statement's values are made of the rows as it is executed."""

    def insert(conn: AsyncConnection) -> Awaitable[object]:
        values = [
            Jsonb(value) if isinstance(value, dict) else value for row in rows for value in row
        ]
        return conn.execute(_VALUES, values)

    return insert


def _written_before(rows: Sequence[Row]) -> Insert:
    document = json.dumps([dict(zip(_NAMES, row, strict=True)) for row in rows], default=str)
    return lambda conn: conn.execute(_DOCUMENT, [document])


def _row(body: posting.Body, now: datetime) -> Row:
    made = posting.as_event(body, now)
    facts = (made.id, made.idempotency_key, str(made.type), made.payload, made.source)
    return (*facts, made.fingerprint, now, now, now)


def _beside_delivery(seconds: int, alone: Sequence[float]) -> Iterator[Line]:
    """An installation whose delivery run plans and sends what is posted, while it is posted."""
    with delivering.house(linger="10s") as at:
        own = at.own
        own.env = at.env
        own.start_ingest()
        run = own.start_delivery()
        port = urlsplit(own.ingest_url).port
        assert port is not None
        waits = uvloop.run(_steadily(port, own.key, seconds))
        awake = run.poll() is None and own.awake()
        own.finish(120)
        states = own.ask(STATES)
    events = STEADY * (seconds + 1)  # a lead is two effects, and every second event is one
    if not awake or states != [("SENT", events + events // 2)]:
        raise SystemExit(f"{states} of {events} events, awake: {awake}: the figures are void")
    name = f"ingest/{STEADY} a second, delivery awake"
    yield from _percentiles(name, waits, alone, p95=P95, p99=P99)


async def _steadily(port: int, key: str, seconds: int) -> list[float]:
    """In ms; a second of it before the clock, which opens connections and prepares statements."""
    bodies = [posting.mixed(number) for number in range(STEADY * (seconds + 1))]
    waits = await posting.post_steadily(port, key, bodies, STEADY)
    return [wait * 1000 for wait in waits[STEADY:]]


def _percentiles(
    name: str,
    waits: Sequence[float],
    alone: Sequence[float] = (),
    *,
    p95: float | None = None,
    p99: float | None = None,
) -> Iterator[Line]:
    """In ms, each of five spans of time."""
    for percent, bound in ((50, None), (95, p95), (99, p99)):
        yield measured(
            f"{name}, p{percent}",
            "ms",
            figures.fifths(waits, percent),
            baselines=figures.fifths(alone, percent),
            at_most=bound,
        )


@contextmanager
def _service(url: str, *, recording: bool = True) -> Iterator[tuple[int, int]]:
    """Port and process of a service of its own, which has all that it needs to start with."""
    listener = socket.create_server(("127.0.0.1", 0))
    process = multiprocessing.get_context("spawn").Process(
        target=_serve, args=(url, listener, recording)
    )
    process.start()
    assert process.pid is not None
    port = listener.getsockname()[1]
    try:
        asyncio.run(_answers(port))
        yield port, process.pid
    finally:
        os.kill(process.pid, signal.SIGTERM)
        process.join()
        listener.close()


def _serve(url: str, listener: socket.socket, recording: bool) -> None:
    app = create_app(settings.read({}), url)
    if not recording:
        feedback = Feedback(url, Openings(readers={}, closed={}, otherwise="nobody asks"))
        app = Ingest(Senders(url), Storeless(url), Health(url, ""), feedback)
    logging.disable(logging.INFO)
    run(app, sockets=[listener])


async def _answers(port: int) -> None:
    """Its socket takes connections from the start: the first answer is what tells."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await reader.readline()
    writer.close()


def _count(url: str) -> int:
    with psycopg.connect(url) as conn:
        row = conn.execute("select count(*) from marketing_events").fetchone()
    assert row is not None
    return int(row[0])


if __name__ == "__main__":
    figures.alone(__doc__, lines)
