"""Single posts to the ingest service: rate, latency and memory, with the store and without it.

    python -m benchmarks.ingest                      # an embedded PostgreSQL of its own
    python -m benchmarks.ingest --database-url URL   # a server where databases may be created

"Without the store" is the same service, key check, validation and answer included, that says
ACCEPTED without recording anything: the difference is what durability costs. Both run in turn,
since figures drift from one minute to the next. Load generator, service and PostgreSQL share this
machine.
"""

import argparse
import logging
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psycopg
import uvloop
from starlette.applications import Starlette
from starlette.routing import Route

from benchmarks import figures, installation, posting
from marketing_pipeline import settings
from marketing_pipeline.domain.event import NewEvent
from marketing_pipeline.event_log.intake import Recorded, Verdict
from marketing_pipeline.ingest.app import create_app
from marketing_pipeline.ingest.batcher import Batcher, Outcome
from marketing_pipeline.ingest.events import Events
from marketing_pipeline.ingest.senders import Senders
from marketing_pipeline.ingest.serve import run

LIMIT_MIB = 120  # what the service may take after 50,000 events


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One run of one service."""

    service: str
    events: int
    per_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    rss_mib: float


class Storeless(Batcher):
    """Accepts at once and records nothing."""

    async def record(self, events: Sequence[NewEvent]) -> list[Outcome]:
        return [Recorded(event_id=e.id, verdict=Verdict.ACCEPTED) for e in events]


def main() -> None:
    arguments = _arguments()
    with installation.database(arguments.database_url) as database_url:
        key = installation.create_key(database_url)
        runs = [
            measure(service, database_url, key, arguments.events, arguments.connections)
            for service in ("without the store", "with the store") * arguments.rounds
        ]
        with psycopg.connect(database_url) as conn:
            stored = conn.execute("select count(*) from marketing_events").fetchone()
    expected = arguments.events * arguments.rounds
    if stored != (expected,):
        sys.exit(f"{stored} events are in the log, {expected} were accepted: the figures are void")
    _print(runs, arguments.connections)
    figures.write(arguments.json, [asdict(one) for one in runs])


def measure(service: str, database_url: str, key: str, events: int, connections: int) -> Measured:
    """Start the service in a process of its own, post to it, and stop it."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    process = multiprocessing.get_context("spawn").Process(
        target=_serve, args=(service, database_url, listener)
    )
    process.start()
    bodies = [posting.lead(number) for number in range(events)]
    try:
        waits, seconds = uvloop.run(posting.post(port, key, bodies, connections))
        assert process.pid is not None
        rss = subprocess.check_output(["ps", "-o", "rss=", "-p", str(process.pid)], text=True)  # noqa: S603, S607
    finally:
        if process.pid is not None:
            os.kill(process.pid, signal.SIGTERM)
        process.join()
    return Measured(
        service=service,
        events=len(waits),
        per_second=len(waits) / seconds,
        p50_ms=figures.percentile(waits, 50) * 1000,
        p95_ms=figures.percentile(waits, 95) * 1000,
        p99_ms=figures.percentile(waits, 99) * 1000,
        rss_mib=int(rss) / 1024,
    )


def _serve(service: str, database_url: str, listener: socket.socket) -> None:
    app = create_app(settings.read({}), database_url)
    if service == "without the store":
        events = Events(Senders(database_url), Storeless(database_url))
        app = Starlette(routes=[Route("/events", events.post, methods=["POST"])])
    logging.disable(logging.INFO)
    run(app, sockets=[listener])


def _print(runs: Sequence[Measured], connections: int) -> None:
    rows = []
    for one in runs:
        times = (f"{value:.1f}" for value in (one.p50_ms, one.p95_ms, one.p99_ms, one.rss_mib))
        rows.append((one.service, f"{one.events:,}", f"{one.per_second:,.0f}", *times))
    headings = ("service", "events", "events/s", "p50 ms", "p95 ms", "p99 ms", "RSS MiB")
    figures.show(f"POST /events over {connections} connections", headings, rows)
    most = max(one.rss_mib for one in runs)
    figures.say(f"memory: {most:.0f} MiB of {LIMIT_MIB} MiB", most, LIMIT_MIB)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--events", type=int, default=50_000, help="a run (default: 50,000)")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=2, help="of both services in turn")
    parser.add_argument("--database-url", help="a server; without it an embedded one is started")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
