"""One measured run of delivery: by the real engine in processes of its own, or written by hand.

The engine delivers posts to benchmarks/provider.py under limits that nobody reaches. The clock runs
from the provider's first call until the last event is COMPLETED.
"""

import asyncio
import itertools
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection

import psycopg
from psycopg import AsyncConnection

from benchmarks import aside, barerows, byhand, history, installation, usage
from benchmarks import provider as providers
from benchmarks.installation import SOURCE, Installation
from benchmarks.provider import Provider
from marketing_pipeline import embedded, settings
from marketing_pipeline.campaigns.configuration import Configuration
from marketing_pipeline.delivery import planner
from marketing_pipeline.delivery.assembly import assemble
from marketing_pipeline.delivery.run import deliver
from marketing_pipeline.domain import event
from marketing_pipeline.domain.event import EventType
from marketing_pipeline.event_log import intake
from marketing_pipeline.event_log.location import locate

CAMPAIGNS = "campaigns/dispatch.yaml"
LONGEST = timedelta(minutes=5)  # a run
SHORT = timedelta(seconds=10)  # a run that is not meant to end its work
_number = itertools.count(1)  # of a run: makes its events' keys their own


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one run came to."""

    effects: int
    seconds: float  # from the first call until the last outcome was on record
    worker_cpu: float  # seconds, all workers together
    servers_cpu: Mapping[str, float]  # the same of each server, and of the provider
    peak_mib: float  # of the largest worker

    @property
    def rate(self) -> float:
        return self.effects / self.seconds

    @property
    def cores(self) -> float:
        """How many were kept busy on average; what began and ended the run is counted in."""
        return (self.worker_cpu + sum(self.servers_cpu.values())) / self.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """An installation that delivers to such a provider."""

    own: Installation
    provider: Provider

    @property
    def env(self) -> dict[str, str]:
        named = {"MARKETING_CAMPAIGNS": CAMPAIGNS, "MARKETING_SANDBOX_URL": self.provider.url}
        return {**self.own.env, **named}

    def cpu(self) -> dict[str, float]:
        """Seconds that the servers and the provider have worked so far, by name."""
        running = embedded.status(self.own.home / "state").servers
        servers = {one.name: usage.cpu_of_tree(one.pid) for one in running}
        return servers | {"provider": self.provider.cpu()}

    def cpu_since(self, before: Mapping[str, float]) -> dict[str, float]:
        """Seconds since `cpu` said so."""
        return {name: now - before[name] for name, now in self.cpu().items()}


@contextmanager
def house(delay: int = 0, linger: str = "500ms") -> Iterator[House]:
    """One with empty tables, and the operator's file that the demo has, without its limits."""
    with installation.installation(linger=linger) as own, providers.serving(delay) as provider:
        text = (own.home / "campaigns" / "benchmark.yaml").read_text()
        text, limits = re.subn(
            "limits: .*", "limits: [{calls: 1000000, per: 1s}]\n    connections: 100", text
        )
        text, timeouts = re.subn("call_timeout: .*", "call_timeout: 15s", text)
        assert min(limits, timeouts) > 0, "campaigns/demo.yaml is not written as it was"
        (own.home / CAMPAIGNS).write_text(text)
        yield House(own=own, provider=provider)


def engine(
    at: House,
    effects: int,
    *,
    workers: int = 1,
    planned: bool = False,
    fill: bool = True,
    checkpoint: bool = True,
) -> Run:
    """Deliver so many new events; without `fill`, what is there already for SHORT.

    checkpoint: begin with one, instead of somewhere between two.
    """
    number = next(_number)
    if fill:
        asyncio.run(_record(at, number, effects, planned=planned))
    _tidy(at.own.database_url, checkpoint=checkpoint)
    with _workers(at, workers, LONGEST if fill else SHORT) as pipes:
        at.provider.count()
        before = at.cpu()
        for pipe in pipes:
            pipe.send("go")
        reports = [pipe.recv() for pipe in pipes]
        worked = at.cpu_since(before)
    counted = at.provider.count()
    if fill and counted.calls != effects:
        raise SystemExit(f"{counted.calls} calls for {effects} effects: the figures are void")
    ended = _completed(at.own.database_url, number, effects) if fill else counted.last
    return Run(
        effects=counted.calls,
        seconds=ended - counted.first,
        worker_cpu=sum(cpu for cpu, _ in reports),
        servers_cpu=worked,
        peak_mib=max(peak for _, peak in reports),
    )


@contextmanager
def _workers(at: House, count: int, longest: timedelta) -> Iterator[list[Connection]]:
    """Processes that wait for the word, and tell their CPU seconds and peak of memory."""
    with ExitStack() as ended:
        each = (aside.working(_work, at.env, longest) for _ in range(count))
        yield [ended.enter_context(one) for one in each]


def _work(env: dict[str, str], longest: timedelta, pipe: Connection) -> None:
    used = settings.read(env)
    servers, assembly = locate(used), assemble(used)
    pipe.send("ready")
    pipe.recv()
    before = time.process_time()
    deliver(
        assembly,
        threading.Event(),
        database_url=servers.database_url,
        redis_url=servers.redis_url,
        max_run=longest,
    )
    pipe.send((time.process_time() - before, usage.peak_mib()))


async def _record(at: House, number: int, effects: int, *, planned: bool) -> None:
    used = assemble(settings.read(at.env)).configuration
    await record(at.own.database_url, used, number, effects, planned=planned)


async def record(
    url: str, used: Configuration, number: int, effects: int, *, planned: bool
) -> None:
    """Posts of run `number`, one effect each; planned: as far as to be claimed."""
    now = datetime.now(UTC)
    posts = [
        event.new(
            type=EventType.CONTENT_PUBLISH,
            payload={"text": f"news {n} of run {number}: " + "x" * 250},
            source=SOURCE,
            key=f"{number}-{n}",
            now=now,
        )
        for n in range(effects)
    ]
    async with await AsyncConnection.connect(url, autocommit=True) as conn:
        await planner.keep(conn, used, now)
        for chunk in range(0, effects, 500):
            async with conn.transaction():
                await intake.record(conn, posts[chunk : chunk + 500], now)
        rules = used.meaning.rules
        while planned and (await planner.plan_due(conn, rules, datetime.now(UTC))).events:
            pass


@contextmanager
def snapshot(at: House) -> Iterator[None]:
    """Of somebody else, held open all along: no row that dies meanwhile can be forgotten."""
    with psycopg.connect(at.own.database_url) as conn:
        conn.execute("set transaction isolation level repeatable read")
        conn.execute("select from effects limit 1")
        yield


def _tidy(url: str, *, checkpoint: bool = True) -> None:
    """Begin each run alike, as autovacuum and the checkpointer would have it in time."""
    with psycopg.connect(url, autocommit=True) as conn:
        for table in history.TABLES:
            conn.execute(f"vacuum (analyze) {table}")
        if checkpoint:
            conn.execute("checkpoint")


def _completed(url: str, number: int, effects: int) -> float:
    """When the last event of a run ended, in unix seconds."""
    with psycopg.connect(url) as conn:
        row = conn.execute(
            "select count(*), extract(epoch from max(updated_at))::float8 from marketing_events"
            " where status = 'COMPLETED' and source = %s and payload->>'text' like %s",
            (SOURCE, f"news % of run {number}:%"),
        ).fetchone()
    assert row is not None
    if row[0] != effects:
        raise SystemExit(f"{row[0]} of {effects} events COMPLETED: the figures are void")
    return float(row[1])


def rows(at: House, effects: int) -> Run:
    """Where nothing is done but to write the rows of so many new events; this process writes."""
    number = next(_number)
    asyncio.run(_record(at, number, effects, planned=False))
    _tidy(at.own.database_url)
    before, began = at.cpu(), time.process_time()
    seconds = barerows.write(at.own.database_url, SOURCE)
    cpu, worked = time.process_time() - began, at.cpu_since(before)
    _completed(at.own.database_url, number, effects)
    return Run(
        effects=effects,
        seconds=seconds,
        worker_cpu=cpu,
        servers_cpu=worked,
        peak_mib=usage.peak_mib(),
    )


def hand(at: House, url: str, jobs: int) -> Run:
    """The same many jobs by benchmarks/byhand.py."""
    byhand.fill(url, jobs)
    at.provider.count()
    before = at.cpu()
    with byhand.working(url, at.provider.url, jobs) as worker:
        cpu, peak, ended = worker.recv()
    worked = at.cpu_since(before)
    counted = at.provider.count()
    if counted.calls != jobs:
        raise SystemExit(f"{counted.calls} calls for {jobs} jobs: the figures are void")
    return Run(
        effects=jobs,
        seconds=ended - counted.first,
        worker_cpu=cpu,
        servers_cpu=worked,
        peak_mib=peak,
    )
