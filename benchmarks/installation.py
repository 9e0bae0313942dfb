"""Installations of our own, in folders that are removed afterwards."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx
import psycopg

from marketing_pipeline import embedded, settings
from marketing_pipeline.cli.processes import free_port
from marketing_pipeline.domain import digest
from marketing_pipeline.event_log import schema
from marketing_pipeline.event_log.location import locate

SOURCE = "benchmark"
CHECKOUT = Path(__file__).parents[1]
_PATIENCE = 60.0  # seconds until a process that was started must answer
_GRACE = 60.0  # seconds to end on SIGTERM
_UNFINISHED = """
select count(*) from marketing_events
where status in ('PENDING', 'PROCESSING') and scheduled_at <= now()"""
_OTHERS = ("MARKETING_DATABASE_URL", "MARKETING_REDIS_URL", "DAGSTER_POSTGRES_URL")


@dataclass(slots=True, kw_only=True)
class Installation:
    """Embedded servers and the processes that were started on them."""

    home: Path
    env: Mapping[str, str]
    database_url: str
    dagster_url: str
    sandbox_url: str
    ingest_url: str
    key: str  # of ingest
    started: ExitStack = field(repr=False)  # ends them

    @property
    def record(self) -> Path:
        """The sandbox's own account."""
        return self.home / "sandbox.sqlite"

    def start(self, name: str, module: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Run a module in a process of its own until the installation ends."""
        with (self.home / f"{name}.log").open("wb") as output:
            process = subprocess.Popen(  # noqa: S603 (our own programs)
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self.env,
                cwd=self.home,
            )
        self.started.callback(_end, process)
        return process

    def start_sandbox(self) -> None:
        place = ("--port", str(urlsplit(self.sandbox_url).port), "--record", str(self.record))
        process = self.start("sandbox", "marketing_pipeline.sandbox", *place)
        self._wait("sandbox", process, f"{self.sandbox_url}/_sandbox/summary")

    def start_ingest(self) -> subprocess.Popen[bytes]:
        process = self.start("ingest", "marketing_pipeline", "ingest")
        self._wait("ingest", process, f"{self.ingest_url}/readyz")
        return process

    def start_delivery(self) -> subprocess.Popen[bytes]:
        """One run of the real job, as an operator starts it by hand; back when it is awake."""
        job = ("-m", "marketing_pipeline.definitions", "-j", "deliver_pending")
        process = self.start("delivery", "dagster", "job", "execute", *job)
        until(lambda: self._alive("delivery", process) and self.awake(), _PATIENCE, "a run")
        return process

    def awake(self) -> bool:
        """Is a delivery run at work?"""
        query = "select from heartbeats where kind = 'delivery' and expires_at > clock_timestamp()"
        return bool(self.ask(query))

    def finish(self, seconds: float) -> None:
        """Wait until nothing is left to do of what is due."""
        until(lambda: not self.ask(_UNFINISHED)[0][0], seconds, "the end of what is due")

    def ask(self, query: str, *, url: str | None = None) -> list[tuple[Any, ...]]:
        with psycopg.connect(url or self.database_url) as conn:
            return conn.execute(query).fetchall()

    def said(self, name: str) -> str:
        """The last words of a process."""
        return (self.home / f"{name}.log").read_text(errors="replace")[-3000:]

    def _alive(self, name: str, process: subprocess.Popen[bytes]) -> bool:
        if process.poll() is not None:
            sys.exit(f"{name} ended with {process.returncode}: {self.said(name)}")
        return True

    def _wait(self, name: str, process: subprocess.Popen[bytes], url: str) -> None:
        until(lambda: self._alive(name, process) and _answers(url), _PATIENCE, name)


@contextmanager
def installation(*, linger: str) -> Iterator[Installation]:
    """An installation on embedded servers, with nothing else started yet.

    Its pipeline is campaigns/demo.yaml with limits that nobody reaches, and this linger.
    """
    # What a daemon has launched may still be ending, and write there.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, ExitStack() as ended:
        home = Path(folder)
        _operators_folder(home, linger)
        sandbox, ingest_port = f"http://127.0.0.1:{free_port()}", free_port()
        env = {name: value for name, value in os.environ.items() if name not in _OTHERS} | {
            "DAGSTER_HOME": folder,
            "MARKETING_HOME": folder,
            "MARKETING_STATE": str(home / "state"),
            "MARKETING_CAMPAIGNS": "campaigns/benchmark.yaml",
            "MARKETING_SANDBOX_URL": sandbox,
            "MARKETING_INGEST_PORT": str(ingest_port),
        }
        ended.callback(embedded.stop, home / "state", force=True)
        servers = locate(settings.read(env))
        yield Installation(
            home=home,
            env=env,
            database_url=servers.database_url,
            dagster_url=servers.dagster_url,
            sandbox_url=sandbox,
            ingest_url=f"http://127.0.0.1:{ingest_port}",
            key=create_key(servers.database_url),
            started=ended,
        )


@contextmanager
def database(server_url: str | None = None) -> Iterator[str]:
    """A migrated database, dropped afterwards; on an embedded server of its own unless told."""
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


def create_key(database_url: str) -> str:
    """A key of ingest for our events."""
    key_id, secret = uuid.uuid4().hex[:12], uuid.uuid4().hex
    with psycopg.connect(database_url) as conn:
        conn.execute(
            "insert into ingest_keys (id, source, secret_sha256, created_at)"
            " values (%s, %s, %s, %s)",
            (key_id, SOURCE, digest.sha256(secret.encode()), datetime.now(UTC)),
        )
    return f"mk_{key_id}_{secret}"


def peak_mib(process: subprocess.Popen[bytes]) -> float | None:
    """The most memory it ever held (VmHWM, so Linux only); None: it has ended."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except FileNotFoundError:
        return None
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) / 1024 if found else None


def until(holds: Callable[[], object], seconds: float, what: str) -> None:
    """Wait until it holds; the benchmark ends with an error where it does not in time."""
    ends = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > ends:
            sys.exit(f"{what}: not there after {seconds:.0f} s")
        time.sleep(0.1)


def _operators_folder(home: Path, linger: str) -> None:
    shutil.copytree(CHECKOUT / "campaigns", home / "campaigns")
    shutil.copy(CHECKOUT / "dagster.yaml", home)
    text = (home / "campaigns" / "demo.yaml").read_text()
    text, limits = re.subn(r"limits: .*", "limits: [{calls: 10000, per: 1s}]", text)
    text, lingers = re.subn(r"linger: \w+", f"linger: {linger}", text)
    assert min(limits, lingers) > 0, "campaigns/demo.yaml is not written as it was"
    (home / "campaigns" / "benchmark.yaml").write_text(text)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).is_success
    except httpx.TransportError:
        return False


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
