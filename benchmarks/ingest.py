"""Single posts to the ingest service: rate, latency and memory, with the store and without it.

    python benchmarks/ingest.py                          # an embedded PostgreSQL of its own
    python benchmarks/ingest.py --database-url URL       # a server where databases may be created

"Without the store" is the same service, key check, validation and answer included, that says
ACCEPTED without recording anything: the difference is what durability costs. Both run in turn,
since figures drift from one minute to the next. Load generator, service and PostgreSQL share this
machine.
"""

import argparse
import asyncio
import json
import logging
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit, urlunsplit

import psycopg
import uvloop
from psycopg import AsyncConnection
from rich.console import Console
from rich.table import Table
from starlette.applications import Starlette
from starlette.routing import Route

from marketing_pipeline import embedded, settings
from marketing_pipeline.domain.event import NewEvent
from marketing_pipeline.event_log import intake, schema
from marketing_pipeline.event_log.intake import Recorded, Verdict
from marketing_pipeline.ingest.app import create_app
from marketing_pipeline.ingest.batcher import Batcher, Outcome
from marketing_pipeline.ingest.events import Events
from marketing_pipeline.ingest.senders import Senders
from marketing_pipeline.ingest.serve import run

SOURCE = "benchmark"
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
    with _database(arguments.database_url) as database_url:
        key = asyncio.run(_key(database_url))
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
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(one) for one in runs], indent=2) + "\n")


def measure(service: str, database_url: str, key: str, events: int, connections: int) -> Measured:
    """Start the service in a process of its own, post to it, and stop it."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    process = multiprocessing.get_context("spawn").Process(
        target=_serve, args=(service, database_url, listener)
    )
    process.start()
    try:
        waits, seconds = uvloop.run(_load(port, key, events, connections))
        assert process.pid is not None
        rss = subprocess.check_output(["ps", "-o", "rss=", "-p", str(process.pid)], text=True)  # noqa: S603, S607
    finally:
        if process.pid is not None:
            os.kill(process.pid, signal.SIGTERM)
        process.join()
    waits.sort()
    return Measured(
        service=service,
        events=len(waits),
        per_second=len(waits) / seconds,
        p50_ms=waits[len(waits) // 2] * 1000,
        p95_ms=waits[len(waits) * 95 // 100] * 1000,
        p99_ms=waits[len(waits) * 99 // 100] * 1000,
        rss_mib=int(rss) / 1024,
    )


def _serve(service: str, database_url: str, listener: socket.socket) -> None:
    app = create_app(settings.read({}), database_url)
    if service == "without the store":
        events = Events(Senders(database_url), Storeless(database_url))
        app = Starlette(routes=[Route("/events", events.post, methods=["POST"])])
    logging.disable(logging.INFO)
    run(app, sockets=[listener])


class _Connection(asyncio.Protocol):
    """One HTTP connection that sends its next request when it has the answer to the last."""

    def __init__(self, requests: Iterator[bytes], waits: list[float]) -> None:
        self._requests = requests
        self._waits = waits
        self._answer = b""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name
        self._send()

    def data_received(self, data: bytes) -> None:
        self._answer += data
        head, end, content = self._answer.partition(b"\r\n\r\n")
        if not end:
            return
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(content) < length:
            return
        if not head.startswith(b"HTTP/1.1 201 "):
            self._end(RuntimeError(self._answer.decode()))
            return
        self._waits.append(time.perf_counter() - self._sent)
        self._answer = b""
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc or RuntimeError("the service closed the connection"))

    def _send(self) -> None:
        request = next(self._requests, None)
        if request is None:
            self._end(None)
            return
        self._sent = time.perf_counter()
        self._transport.write(request)

    def _end(self, error: Exception | None) -> None:
        if not self.done.done():
            if error is None:
                self.done.set_result(None)
            else:
                self.done.set_exception(error)
            self._transport.close()


async def _load(port: int, key: str, events: int, connections: int) -> tuple[list[float], float]:
    """Waits in seconds, and how long all of it took. The requests are made before the clock."""
    requests = iter([_request(key, number) for number in range(events)])
    waits: list[float] = []
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    opened = [
        await loop.create_connection(lambda: _Connection(requests, waits), "127.0.0.1", port)
        for _ in range(connections)
    ]
    await asyncio.gather(*(connection.done for _, connection in opened))
    return waits, time.perf_counter() - began


def _request(key: str, number: int) -> bytes:
    """A lead of about 350 bytes; every fifth comes from a person who came before."""
    content = json.dumps(
        {
            "type": "LEAD_CAPTURE",
            "payload": {
                "email": f"person{number - number // 5}@example.com",
                "name": "Ada Example",
                "form": "newsletter",
                "page": "https://www.example.com/landing/spring-campaign?utm_source=search",
                "consent": {"mail": True, "version": 3},
            },
            "source": SOURCE,
            "idempotencyKey": str(uuid.uuid4()),
        }
    )
    return (
        "POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {key}\r\nContent-Length: {len(content)}\r\n\r\n{content}"
    ).encode()


async def _key(database_url: str) -> str:
    async with await AsyncConnection.connect(database_url) as conn:
        return await intake.create_key(conn, SOURCE, datetime.now(UTC))


@contextmanager
def _database(server_url: str | None) -> Iterator[str]:
    """A migrated database, dropped afterwards."""
    with tempfile.TemporaryDirectory() as state:
        if server_url is None:
            server_url = embedded.attach(Path(state)).database_url
        name = f"benchmark_{uuid.uuid4().hex}"
        try:
            with psycopg.connect(server_url, autocommit=True) as admin:
                admin.execute(f'create database "{name}"')
                database_url = urlunsplit(urlsplit(server_url)._replace(path=f"/{name}"))
                schema.migrate(database_url)
                yield database_url
                admin.execute(f'drop database "{name}" with (force)')
        finally:
            embedded.stop(Path(state))


def _print(runs: Sequence[Measured], connections: int) -> None:
    table = Table(title=f"POST /events over {connections} connections")
    for heading in ("service", "events", "events/s", "p50 ms", "p95 ms", "p99 ms", "RSS MiB"):
        table.add_column(heading, justify="left" if heading == "service" else "right")
    for one in runs:
        times = (f"{value:.1f}" for value in (one.p50_ms, one.p95_ms, one.p99_ms, one.rss_mib))
        table.add_row(one.service, f"{one.events:,}", f"{one.per_second:,.0f}", *times)
    Console().print(table)
    most = max(one.rss_mib for one in runs)
    print(
        f"memory: {most:.0f} MiB of {LIMIT_MIB} MiB", "- kept" if most < LIMIT_MIB else "- BROKEN"
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--events", type=int, default=50_000, help="a run (default: 50,000)")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=2, help="of both services in turn")
    parser.add_argument("--database-url", help="a server; without it an embedded one is started")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
