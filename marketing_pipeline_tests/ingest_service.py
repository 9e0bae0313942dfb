"""The ingest service for tests: over real sockets, in a thread or in a process of its own."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx
import psycopg
import uvicorn
from psycopg import AsyncConnection

from marketing_pipeline import settings
from marketing_pipeline.event_log import intake
from marketing_pipeline.ingest.app import create_app

_SERVE = """
import os, sys
from marketing_pipeline import settings
from marketing_pipeline.ingest.serve import serve
serve(settings.read(os.environ), sys.argv[1], port=0)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A running service, and a client that knows its key (of the source "web")."""

    port: int
    key: str
    client: httpx.Client
    process: subprocess.Popen[str] | None = None

    def post(self, body: object, path: str = "/events", **headers: str) -> httpx.Response:
        return self.post_raw(json.dumps(body).encode(), path, **headers)

    def post_raw(self, content: bytes, path: str = "/events", **headers: str) -> httpx.Response:
        return self.client.post(
            path, content=content, headers={"Content-Type": "application/json"} | headers
        )


def lead(**said: Any) -> dict[str, Any]:
    """A body that is taken, with what the test says instead; ... leaves a field out."""
    usual: dict[str, Any] = {
        "type": "LEAD_CAPTURE",
        "payload": {"email": "ada@example.com", "name": "Ada"},
        "source": "web",
        "idempotencyKey": str(uuid.uuid4()),
    }
    return {name: value for name, value in (usual | said).items() if value is not ...}


def new_key(database_url: str, source: str = "web") -> str:
    async def create() -> str:
        async with await AsyncConnection.connect(database_url) as conn:
            return await intake.create_key(conn, source, datetime.now(UTC))

    return asyncio.run(create())


def count(database_url: str, table: str = "marketing_events") -> int:
    with psycopg.connect(database_url) as conn:
        row = conn.execute(f"select count(*) from {table}".encode()).fetchone()  # noqa: S608
    assert row is not None
    return int(row[0])


@contextmanager
def fresh_database(server_url: str, template: str) -> Iterator[str]:
    """A copy of the template that outlives a single test."""
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(server_url, autocommit=True) as admin:
        admin.execute(f'create database "{name}" template "{template}"'.encode())
        yield urlunsplit(urlsplit(server_url)._replace(path=f"/{name}"))
        admin.execute(f'drop database "{name}" with (force)'.encode())


@contextmanager
def in_thread(
    database_url: str, key: str, used: settings.Settings | None = None
) -> Iterator[Service]:
    """The service in a thread: it starts in a moment."""
    app = create_app(used or settings.read({}), database_url)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(app, loop="uvloop", http="httptools", ws="none", log_config=None)
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        with _client(listener.getsockname()[1], key) as client:
            _wait_until_alive(client)
            yield Service(port=listener.getsockname()[1], key=key, client=client)
    finally:
        server.should_exit = True
        thread.join(timeout=30)
        listener.close()
        assert not thread.is_alive(), "the service did not stop"


@contextmanager
def in_process(
    database_url: str, key: str, log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[Service]:
    """The service as it is run in earnest, with its log in a file."""
    env = _env() | dict(environment or {})
    with log.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, "-c", _SERVE, database_url], stderr=stream, text=True, env=env
        )
    try:
        port = _port(log, process)
        with _client(port, key) as client:
            yield Service(port=port, key=key, client=client, process=process)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)


def log_lines(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def _env() -> dict[str, str]:
    root = str(Path(__file__).parents[1])
    return {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ} | {
        "PYTHONPATH": root
    }


def _client(port: int, key: str) -> httpx.Client:
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=30)


def _wait_until_alive(client: httpx.Client) -> None:
    for _ in range(200):
        try:
            client.get("/healthz").raise_for_status()
        except httpx.TransportError:
            time.sleep(0.02)
        else:
            return
    raise AssertionError("the service does not answer")


def _port(log: Path, process: subprocess.Popen[str]) -> int:
    for _ in range(300):
        if found := re.search(r"running on http://127\.0\.0\.1:(\d+)", log.read_text()):
            return int(found[1])
        assert process.poll() is None, log.read_text()
        time.sleep(0.05)
    raise AssertionError(f"no port in {log.read_text()}")
