"""Everything one trial at a time needs: databases to copy, a sandbox, proxies, and processes."""

import multiprocessing
import os
import signal
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx
import psycopg
import redis

from marketing_pipeline import embedded
from marketing_pipeline.domain.event import NewEvent
from marketing_pipeline.event_log import schema
from marketing_pipeline.sandbox import serve
from marketing_pipeline_tests import pipeline
from marketing_pipeline_tests.chaos import engine_child, proxy
from marketing_pipeline_tests.chaos.proxy import Interceptor

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["__main__", "marketing_pipeline_tests.chaos.engine_child"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A little work for one provider class."""

    name: str
    file: str  # the operator's file; {suffix} stands for the bench's own
    events: Callable[[], Sequence[NewEvent]]
    effects: int  # what these events come to


@dataclass(slots=True)
class Ground:
    """What all benches share: the servers, and a template database for each batch."""

    servers: embedded.Servers
    admin: psycopg.Connection
    _made: dict[str, str] = field(default_factory=dict)  # batch -> its template

    def url(self, database: str) -> str:
        return urlunsplit(urlsplit(self.servers.database_url)._replace(path=f"/{database}"))

    def template(self, batch: Batch) -> str:
        """A migrated database with the batch's events in it; call it before benches run."""
        if batch.name not in self._made:
            name = f"chaos_{batch.name}_{uuid.uuid4().hex[:12]}"
            self.admin.execute(f'create database "{name}"')
            schema.migrate(self.url(name))
            pipeline.record(self.url(name), batch.events())
            self._made[batch.name] = name
        return self._made[batch.name]

    def drop(self) -> None:
        for name in self._made.values():
            self.admin.execute(f'drop database "{name}" with (force)')


@contextmanager
def ground() -> Iterator[Ground]:
    """The embedded servers of the tests."""
    state = Path(tempfile.gettempdir()) / f"marketing-tests-{os.getuid()}"
    servers = embedded.attach(state)
    with psycopg.connect(servers.database_url, autocommit=True) as admin:
        one = Ground(servers, admin)
        try:
            yield one
        finally:
            one.drop()


@dataclass(slots=True, kw_only=True)
class Engine:
    """An engine's process."""

    process: ForkServerProcess
    log: Path

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    @property
    def lives(self) -> bool:
        return self.process.is_alive()

    def signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def stop(self, seconds: float = 10) -> str | None:
        """Ask it to settle and end; what is wrong with how it ended, if something is."""
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        self.process.join(seconds)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
            return "it did not end when told to"
        code = self.process.exitcode
        return None if code in (0, -signal.SIGKILL) else f"it ended with {code}: {self.tail()}"

    def tail(self) -> str:
        return self.log.read_text()[-600:] if self.log.exists() else ""


@dataclass(slots=True, kw_only=True)
class Bench:
    """One trial after another, each on a database and a record of its own."""

    ground: Ground
    home: Path
    interceptor: Interceptor
    sandbox_url: str
    ports: dict[str, int]
    suffix: str
    maker: ThreadPoolExecutor
    client: httpx.Client
    valkey: redis.Redis
    _ahead: dict[str, Future[str]] = field(default_factory=dict)

    def database(self, batch: Batch) -> str:
        """A fresh copy; the next one is made meanwhile, for a copy takes as long as half a trial."""
        coming = self._ahead.pop(batch.name, None) or self.maker.submit(self._copy, batch)
        url = coming.result()
        self._ahead[batch.name] = self.maker.submit(self._copy, batch)
        return url

    def drop(self, url: str) -> None:
        self.maker.submit(self._drop, url)

    def environment(self, batch: Batch, database: str) -> dict[str, str]:
        """What an engine is told: every way out leads through a proxy."""
        file = self.home / "campaigns" / f"{batch.name}.yaml"
        file.write_text(batch.file.replace("{suffix}", self.suffix))
        return {
            "MARKETING_HOME": str(self.home),
            "MARKETING_CAMPAIGNS": str(file),
            "MARKETING_DATABASE_URL": proxy.postgres_url(database, self.ports["postgres"]),
            "MARKETING_REDIS_URL": f"redis://127.0.0.1:{self.ports['valkey']}",
            "MARKETING_SANDBOX_URL": f"http://127.0.0.1:{self.ports['provider']}",
        }

    def start(self, environment: dict[str, str], fault: str | None = None) -> Engine:
        log = self.home / "engine.log"
        process = _FORKS.Process(
            target=engine_child.forked, args=(environment, str(log), fault), daemon=True
        )
        process.start()
        return Engine(process=process, log=log)

    def forget(self) -> None:
        """Begin a trial: an empty record, no faults, an empty log."""
        self.client.delete("/_sandbox/record").raise_for_status()
        self.client.delete("/_sandbox/faults").raise_for_status()
        (self.home / "engine.log").unlink(missing_ok=True)

    def acts(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.client.get("/_sandbox/record").json()
        return found

    def _copy(self, batch: Batch) -> str:
        name = f"chaos_{uuid.uuid4().hex}"
        template = self.ground.template(batch)
        with psycopg.connect(self.ground.servers.database_url, autocommit=True) as admin:
            admin.execute(f'create database "{name}" template "{template}" strategy file_copy')
        url = self.ground.url(name)
        with psycopg.connect(url, autocommit=True) as conn:  # a copy is another installation
            conn.execute("update installation set identity = gen_random_uuid()")
        return url

    def _drop(self, url: str) -> None:
        with psycopg.connect(url, autocommit=True) as conn:
            row = conn.execute("select identity from installation").fetchone()
        assert row is not None
        self.valkey.delete(f"high_water:{row[0]}")
        (self.home / ".marketing" / "high-water" / str(row[0])).unlink(missing_ok=True)
        with psycopg.connect(self.ground.servers.database_url, autocommit=True) as admin:
            admin.execute(f'drop database "{urlsplit(url).path[1:]}" with (force)')

    def close(self) -> None:
        for coming in self._ahead.values():
            self._drop(coming.result())
        self.maker.shutdown()
        for key in self.valkey.scan_iter(f"*_{self.suffix}*"):
            self.valkey.delete(key)


@contextmanager
def bench(ground: Ground, folder: Path) -> Iterator[Bench]:
    """A bench in an empty folder."""
    (folder / "campaigns" / "templates").mkdir(parents=True)
    for template in (pipeline.CHECKOUT / "campaigns" / "templates").iterdir():
        (folder / "campaigns" / "templates" / template.name).write_bytes(template.read_bytes())
    with ExitStack() as stack:
        url = stack.enter_context(serve.running(folder / "sandbox.sqlite"))
        between = stack.enter_context(proxy.interceptor())
        servers = ground.servers
        ports = {
            "postgres": between.lead(proxy.postgres(servers.database_url)),
            "valkey": between.lead(proxy.redis(servers.redis_url)),
            "provider": between.lead(proxy.http(url)),
        }
        one = Bench(
            ground=ground,
            home=folder,
            interceptor=between,
            sandbox_url=url,
            ports=ports,
            suffix=uuid.uuid4().hex[:8],
            maker=stack.enter_context(ThreadPoolExecutor(1)),
            client=stack.enter_context(httpx.Client(base_url=url)),
            valkey=stack.enter_context(redis.Redis.from_url(servers.redis_url)),
        )
        stack.callback(one.close)
        yield one


def wait_for(ready: Callable[[], bool], seconds: float, every: float = 0.01) -> bool:
    """Whether it came to be within that time."""
    ends = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > ends:
            return False
        time.sleep(every)
    return True
