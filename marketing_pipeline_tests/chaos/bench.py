"""Everything one trial at a time needs: databases to copy, a sandbox, proxies, and processes."""

import os
import sqlite3
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
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
from marketing_pipeline_tests import pipeline, plain_hook
from marketing_pipeline_tests.chaos import engine_child, proxy, targets
from marketing_pipeline_tests.chaos.engine import Engine
from marketing_pipeline_tests.chaos.proxy import Interceptor
from marketing_pipeline_tests.chaos.rewinding import Rewind


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A little work for one provider class."""

    name: str
    file: str  # the operator's file; {suffix} stands for the bench's own
    events: Callable[[], Sequence[NewEvent]]
    effects: int  # what these events come to
    variation: str | None = None  # of faulty.VARIATIONS: how the engine differs from what it is
    about: tuple[str, ...] = ()  # words of the messages that are struck at; none: all of them
    holds: bool = False  # what was in flight when it was struck may end UNKNOWN


@dataclass(slots=True)
class Ground:
    """What all benches share: the servers, and a template database for each batch."""

    servers: embedded.Servers
    admin: psycopg.Connection
    _made: dict[str, str] = field(default_factory=dict)  # batch -> its template

    def url(self, database: str) -> str:
        return urlunsplit(urlsplit(self.servers.database_url)._replace(path=f"/{database}"))

    def template(self, batch: Batch) -> str:
        """A migrated database with the batch's events in it."""
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
class Bench:
    """One trial after another, each on a database and a record of its own."""

    ground: Ground
    home: Path
    interceptor: Interceptor
    sandbox_url: str
    ports: dict[str, int]
    suffix: str
    client: httpx.Client
    valkey: redis.Redis
    _databases: dict[str, tuple[str, Rewind]] = field(default_factory=dict)

    def database(self, batch: Batch) -> str:
        """This bench's database of a batch, as it was before anybody worked on it."""
        if batch.name not in self._databases:
            url = self._copy(batch)
            self._databases[batch.name] = (url, Rewind(url))
        url, rewind = self._databases[batch.name]
        rewind.back()
        return url

    def url(self, batch: Batch) -> str:
        """Where the last trial of a batch left its books."""
        return self._databases[batch.name][0]

    def environment(self, batch: Batch, database: str) -> dict[str, str]:
        """What an engine is told: every way out leads through a proxy."""
        file = self.home / "campaigns" / f"{batch.name}.yaml"
        file.write_text(batch.file.replace("{suffix}", self.suffix))
        return {
            "MARKETING_HOME": str(self.home),
            "MARKETING_CAMPAIGNS": str(file),
            "MARKETING_DATABASE_URL": targets.postgres_url(database, self.ports["postgres"]),
            "MARKETING_REDIS_URL": f"redis://127.0.0.1:{self.ports['valkey']}",
            "MARKETING_SANDBOX_URL": f"http://127.0.0.1:{self.ports['provider']}",
        }

    def start(self, environment: dict[str, str], variation: str | None = None) -> Engine:
        log = self.home / "engine.log"
        return Engine.start(engine_child.forked, (environment, str(log), variation), log)

    def forget(self) -> None:
        """Begin a trial: an empty record, no faults, the usual settings, an empty log."""
        self.client.delete("/_sandbox/record").raise_for_status()
        self.client.delete("/_sandbox/faults").raise_for_status()
        self.index_after(0.5)
        (self.home / "engine.log").unlink(missing_ok=True)

    def index_after(self, seconds: float) -> None:
        """How long Mailgun's search does not see a mail."""
        wish = {"mailgun_index_delay": seconds}
        self.client.put("/_sandbox/settings", json=wish).raise_for_status()

    def forget_keys(self) -> None:
        """Resend no longer knows any idempotency key, as after their life."""
        with closing(sqlite3.connect(self.home / "sandbox.sqlite")) as record, record:
            record.execute("delete from keys where provider = 'resend'")

    def acts(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.client.get("/_sandbox/record").json()
        return found

    def _copy(self, batch: Batch) -> str:
        name = f"chaos_{uuid.uuid4().hex}"
        template = self.ground.template(batch)
        self.ground.admin.execute(f'create database "{name}" template "{template}"')
        return self.ground.url(name)

    def close(self) -> None:
        for url, _ in self._databases.values():
            name = urlsplit(url).path[1:]
            self.ground.admin.execute(f'drop database "{name}" with (force)')
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
        plain_hook.forgets(folder / "sandbox.sqlite")
        between = stack.enter_context(proxy.interceptor())
        servers = ground.servers
        ports = {
            "postgres": between.lead(targets.postgres(servers.database_url)),
            "valkey": between.lead(targets.redis(servers.redis_url)),
            "provider": between.lead(targets.http(url)),
        }
        one = Bench(
            ground=ground,
            home=folder,
            interceptor=between,
            sandbox_url=url,
            ports=ports,
            suffix=uuid.uuid4().hex[:8],
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
