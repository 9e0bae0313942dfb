"""A whole installation of its own: servers, ingest, Dagster and providers, kept up by an init.

Linux only: its processes are found in /proc, for Dagster does not tell which ones it starts.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psycopg
import redis

from marketing_pipeline import embedded
from marketing_pipeline.cli.processes import LOOPBACK, free_port
from marketing_pipeline.event_log import schema
from marketing_pipeline_tests import ingest_service, pipeline
from marketing_pipeline_tests.chaos.bench import wait_for

SOURCE = "demo"
WORKER, CODE_SERVER = "spawn_main", "dagster api grpc"  # in the command lines of Dagster's children
COLD = 60.0  # seconds within which everything has started, on a small and busy machine
_PAUSE = 0.3  # seconds before the init starts what has died


@dataclass(slots=True)
class Service:
    """A program that is to run always."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    process: "subprocess.Popen[bytes] | None" = None
    starts: int = 0

    def keep(self) -> None:
        """Start it where it does not run."""
        if self.process is not None and self.process.poll() is None:
            return
        self.starts += 1
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, *self.command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self.environment,
                start_new_session=True,
            )


@dataclass(slots=True, kw_only=True)
class Installation:
    """What runs, and how to get at each part of it."""

    home: Path
    servers: embedded.Servers
    key: str  # of ingest
    ingest: str
    sandbox: httpx.Client
    services: list[Service]
    _ends: threading.Event = field(default_factory=threading.Event)

    @property
    def state(self) -> Path:
        return self.home / "state"

    def tend(self) -> None:
        """Be an init system until the end."""
        while not self._ends.is_set():
            for service in self.services:
                service.keep()
            self._ends.wait(_PAUSE)

    def end(self) -> None:
        self._ends.set()

    def processes(self, containing: str = "") -> list[int]:
        """Our programs by their command line, with all that they started; servers not among them.

        Nothing else has the name of this installation's folder in its environment.
        """
        mark = f"MARKETING_STATE={self.state}".encode()
        found = []
        for folder in Path("/proc").iterdir():
            with suppress(OSError):  # it has just ended, or belongs to another user
                if folder.name.isdigit() and mark in (folder / "environ").read_bytes().split(b"\0"):
                    line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    if containing in line:
                        found.append(int(folder.name))
        return sorted(found)

    def server(self, name: str) -> int | None:
        """The process of "postgres" or "valkey", if it runs at this moment."""
        running = {one.name: one.pid for one in embedded.status(self.state).servers}
        return running.get(name)

    def flush(self) -> None:
        with suppress(redis.RedisError), redis.Redis.from_url(self.servers.redis_url) as client:
            client.flushall()

    def connect(self) -> psycopg.Connection:
        """A connection to the log; waits for a server that is just starting."""
        ends = time.monotonic() + COLD
        while True:
            try:
                return psycopg.connect(self.servers.database_url, autocommit=True)
            except psycopg.OperationalError:
                if time.monotonic() > ends:
                    raise
                time.sleep(0.2)

    def acts(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.sandbox.get("/_sandbox/record", timeout=30).json()
        return found

    def tail(self) -> str:
        """The last words of every program, for whoever has to find out."""
        return "\n".join(
            f"--- {one.name}, started {one.starts} times\n{one.log.read_text()[-1500:]}"
            for one in self.services
        )


@contextmanager
def installed(file: str) -> Iterator[Installation]:
    """A running installation with this operator's file."""
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    state = folder / "state"
    try:
        (folder / "campaigns").mkdir()
        shutil.copytree(pipeline.CHECKOUT / "campaigns/templates", folder / "campaigns/templates")
        shutil.copy(pipeline.CHECKOUT / "dagster.yaml", folder)
        (folder / "campaigns" / "system.yaml").write_text(file)
        servers = embedded.attach(state)
        schema.migrate(servers.database_url)
        with _running(folder, servers) as one:
            yield one
    finally:
        embedded.stop(state, force=True)
        shutil.rmtree(folder)


@contextmanager
def _running(folder: Path, servers: embedded.Servers) -> Iterator[Installation]:
    ingest, sandbox = free_port(), free_port()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.endswith("_URL")},
        "MARKETING_HOME": str(folder),
        "MARKETING_STATE": str(folder / "state"),
        "MARKETING_CAMPAIGNS": "campaigns/system.yaml",
        "MARKETING_SANDBOX_URL": f"http://{LOOPBACK}:{sandbox}",
        "DAGSTER_HOME": str(folder),
        "PYTHONPATH": str(pipeline.CHECKOUT),
        "PYTHONUNBUFFERED": "1",
    }
    commands = {
        "ingest": ["-m", "marketing_pipeline", "ingest", "--port", str(ingest)],
        "daemon": ["-m", "dagster._daemon", "run", "-m", "marketing_pipeline.definitions"],
    }
    record = folder / "sandbox.sqlite"
    provider = Service(
        "sandbox",
        ["-m", "marketing_pipeline.sandbox", "--port", str(sandbox), "--record", str(record)],
        {name: value for name, value in environment.items() if name != "MARKETING_STATE"},
        folder / "sandbox.log",
    )
    provider.keep()
    services = [Service(n, c, environment, folder / f"{n}.log") for n, c in commands.items()]
    with httpx.Client(base_url=f"http://{LOOPBACK}:{sandbox}") as client:
        one = Installation(
            home=folder,
            servers=servers,
            key=ingest_service.new_key(servers.database_url, SOURCE),
            ingest=f"http://{LOOPBACK}:{ingest}",
            sandbox=client,
            services=services,
        )
        init = threading.Thread(target=one.tend, name="init")
        init.start()
        try:
            _await(client, "/_sandbox/summary")
            yield one
        finally:
            one.end()
            init.join()
            _end_all(one, provider)


def _await(client: httpx.Client, path: str) -> None:
    def answers() -> bool:
        with suppress(httpx.TransportError):
            return client.get(path).is_success
        return False

    assert wait_for(answers, COLD, 0.1), f"{client.base_url} does not answer"


def _end_all(one: Installation, provider: Service) -> None:
    """Nothing here has to end well."""
    while pids := one.processes():
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for service in one.services:
            if service.process is not None:
                service.process.wait()
        time.sleep(0.05)
    assert provider.process is not None
    provider.process.kill()
    provider.process.wait()
