"""Posts to the ingest service: rate, latency, CPU and memory, beside the same work without a part.

    python -m benchmarks.ingest [--quick]

Load generator, service and PostgreSQL share this machine. What is compared runs in turn, since
figures drift from one minute to the next:

- one event a request, beside the same service that says ACCEPTED without recording anything (key
  check, validation, fingerprint and answer included): the difference is what durability costs;
- batches, beside the same rows by the same statements on one connection, without HTTP;
- posts at a steady rate, alone and while a delivery run is awake that each of them wakes.
"""

import asyncio
import logging
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlsplit

import psycopg
import uvloop
from psycopg import AsyncConnection

from benchmarks import delivering, figures, installation, posting, usage
from benchmarks.figures import Line, compared, measured
from marketing_pipeline import settings
from marketing_pipeline.domain import event
from marketing_pipeline.domain.event import EventType, NewEvent
from marketing_pipeline.event_log import intake
from marketing_pipeline.event_log.intake import Recorded, Verdict
from marketing_pipeline.ingest.app import Ingest, create_app
from marketing_pipeline.ingest.batcher import Batcher, Outcome
from marketing_pipeline.ingest.database import STATEMENT_PATIENCE
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
    with installation.database() as url:
        key = installation.create_key(url)
        yield from _singles(url, key, 4_000 if quick else 50_000)
        yield from _batches(url, key, 40 if quick else 200)
        with _service(url) as (port, _):
            waits = uvloop.run(_steadily(port, key, 3 if quick else 20))
    yield from _percentiles(f"ingest/{STEADY} a second, alone", waits)
    yield from _beside_delivery(3 if quick else 20)


def _singles(url: str, key: str, events: int) -> Iterator[Line]:
    stored, storeless = [], []
    for _ in range(_ROUNDS):
        storeless.append(_burst(url, key, events, recording=False))
        before = _count(url)
        stored.append(_burst(url, key, events, recording=True))
        if (found := _count(url) - before) != events:
            raise SystemExit(f"{events} accepted, {found} in the log: the figures are void")
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
    rates, baselines = [], []
    with _service(url) as (port, _):
        for _ in range(_ROUNDS):
            baselines.append(uvloop.run(_bare(url, count)))
            batches = [[posting.lead(n) for n in range(BATCH)] for _ in range(count)]
            _, seconds = uvloop.run(posting.post_batches(port, key, batches, BATCHING))
            rates.append(count * BATCH / seconds)
    name = f"ingest/batches of {BATCH}, to bare inserts"
    yield compared(name, "events/s", rates, baselines, at_least=SHARE)


async def _bare(url: str, count: int) -> float:
    """Rows a second on one connection: what a flush of the service does, and nothing else."""
    now = datetime.now(UTC)
    batches = [[_made(posting.lead(n), now) for n in range(BATCH)] for _ in range(count)]
    async with await AsyncConnection.connect(url, autocommit=True) as conn:
        began = time.perf_counter()
        for batch in batches:
            await intake.commit(conn, batch, now, STATEMENT_PATIENCE)
        return count * BATCH / (time.perf_counter() - began)


def _made(body: posting.Body, now: datetime) -> NewEvent:
    return event.new(
        type=EventType(body["type"]),
        payload=body["payload"],
        source=body["source"],
        key=body["idempotencyKey"],
        now=now,
    )


def _beside_delivery(seconds: int) -> Iterator[Line]:
    """An installation whose delivery run plans and sends what is posted, while it is posted."""
    with delivering.house() as at:
        own = at.own
        own.env = at.env
        own.start_ingest()
        own.start_delivery()
        port = urlsplit(own.ingest_url).port
        assert port is not None
        waits = uvloop.run(_steadily(port, own.key, seconds))
        done = own.ask("select from effects where state = 'SENT' limit 1")
    if not done:
        raise SystemExit("delivery sent nothing meanwhile: the figures are void")
    name = f"ingest/{STEADY} a second, delivery awake"
    yield from _percentiles(name, waits, p95=P95, p99=P99)


async def _steadily(port: int, key: str, seconds: int) -> list[float]:
    """In ms; a second of it before the clock, which opens connections and prepares statements."""
    await posting.post_steadily(port, key, [posting.mixed(n) for n in range(STEADY)], STEADY)
    bodies = [posting.mixed(number) for number in range(STEADY * seconds)]
    waits = await posting.post_steadily(port, key, bodies, STEADY)
    return [wait * 1000 for wait in waits]


def _percentiles(
    name: str, waits: Sequence[float], *, p95: float | None = None, p99: float | None = None
) -> Iterator[Line]:
    """In ms, each of five spans of time."""
    for percent, bound in ((50, None), (95, p95), (99, p99)):
        spans = figures.fifths(waits, percent)
        yield measured(f"{name}, p{percent}", "ms", spans, at_most=bound)


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
