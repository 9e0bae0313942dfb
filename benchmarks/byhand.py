"""The baseline of delivery: what somebody would write by hand for just this and no more.

Jobs are claimed by SKIP LOCKED, a hundred at a time, with their attempts inserted by the same
statement; where there is none, a NOTIFY is waited for. The calls go through the pipeline's own HTTP
client; outcomes are written together, those that arrive within 3 ms of each other. No plans, no
gate, no leases: killed, it leaves its jobs stuck.
"""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from urllib.parse import urlsplit, urlunsplit

import httpx
import psycopg
import uvloop
from psycopg import AsyncConnection
from psycopg.types.json import Jsonb

from benchmarks import aside, usage
from marketing_pipeline.providers.transport import Limits, Transport

CONNECTIONS = 100
CLAIM = 100
GATHER = 0.003  # seconds
_TABLES = """
create table jobs (
    id bigint generated always as identity primary key,
    body jsonb not null,
    state text not null default 'PENDING',
    settled_at timestamptz
);
create index on jobs (id) where state = 'PENDING';
create table attempts (
    job_id bigint not null references jobs, number int not null, started_at timestamptz not null,
    finished_at timestamptz, status_code int, primary key (job_id, number)
);
"""
CHANNEL = "jobs"
POLL = 1.0  # seconds: behind NOTIFY
_BODY = {"text": "x" * 270}
_CLAIM = """
with due as (
    select id from jobs where state = 'PENDING' order by id limit %s for update skip locked
), claimed as (
    update jobs j set state = 'SENDING' from due where j.id = due.id returning j.id, j.body
), recorded as (
    insert into attempts (job_id, number, started_at) select id, 1, now() from claimed
)
select id, body::text from claimed
"""
_SETTLE = """
with s as (
    select * from unnest(%s::bigint[], %s::int[]) as s (id, status_code)
), ended as (
    update attempts set finished_at = now(), status_code = s.status_code
    from s where job_id = s.id
)
update jobs j set state = 'SENT', settled_at = now() from s where j.id = s.id
"""
Outcome = tuple[int, int]  # job, status code


@contextmanager
def database(server_url: str) -> Iterator[str]:
    """A database of its own beside the log."""
    with psycopg.connect(server_url, autocommit=True) as admin:
        admin.execute("create database byhand")
        try:
            url = urlunsplit(urlsplit(server_url)._replace(path="/byhand"))
            with psycopg.connect(url) as conn:
                conn.execute(_TABLES)
            yield url
        finally:
            admin.execute("drop database byhand with (force)")


def fill(url: str, jobs: int) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        values = (Jsonb(_BODY), jobs)
        conn.execute("insert into jobs (body) select %s from generate_series(1, %s)", values)
        conn.execute("vacuum (analyze) jobs")
        conn.execute("vacuum (analyze) attempts")
        conn.execute("checkpoint")


async def add(conn: AsyncConnection) -> int:
    """Commit one more job and wake whoever works; which."""
    async with conn.transaction():
        insert = "insert into jobs (body) values (%s) returning id, pg_notify(%s, '')"
        row = await (await conn.execute(insert, (Jsonb(_BODY), CHANNEL))).fetchone()
    assert row is not None
    return int(row[0])


def work(url: str, provider: str, jobs: int, pipe: Connection) -> None:
    """Do so many jobs, in a process of its own: tells CPU seconds, peak of memory, the instant of
    the last commit."""
    pipe.send("ready")
    pipe.recv()
    before = time.process_time()
    ended = uvloop.run(_work(url, provider, jobs))
    pipe.send((time.process_time() - before, usage.peak_mib(), ended))


@contextmanager
def working(url: str, provider: str, jobs: int) -> Iterator[Connection]:
    """Somebody who has been told to `work`, and how to hear what they tell at the end."""
    with aside.working(work, url, provider, jobs) as worker:
        worker.send("go")
        yield worker


async def _work(url: str, provider: str, wanted: int) -> float:
    jobs: asyncio.Queue[tuple[int, str]] = asyncio.Queue(CLAIM)  # claims no further ahead
    outcomes: asyncio.Queue[Outcome] = asyncio.Queue()
    limits = Limits(connections=CONNECTIONS)
    async with (
        await AsyncConnection.connect(url, autocommit=True) as claiming,
        await AsyncConnection.connect(url, autocommit=True) as settling,
        Transport(limits) as transport,
        asyncio.TaskGroup() as group,
    ):
        await claiming.execute(f"listen {CHANNEL}")
        address = httpx.URL(f"{provider}/jobs")
        settler = group.create_task(_settle(settling, outcomes))
        callers = [
            group.create_task(_call(transport, address, jobs, outcomes)) for _ in range(CONNECTIONS)
        ]
        while wanted > 0:
            claimed = await (await claiming.execute(_CLAIM, (CLAIM,))).fetchall()
            for one in claimed:
                await jobs.put(one)
            wanted -= len(claimed)
            if not claimed:
                async for _ in claiming.notifies(timeout=POLL, stop_after=1):
                    pass
        await jobs.join()
        await outcomes.join()
        ended = time.time()
        for task in (settler, *callers):
            task.cancel()
    return ended


async def _call(
    transport: Transport,
    address: httpx.URL,
    jobs: asyncio.Queue[tuple[int, str]],
    outcomes: asyncio.Queue[Outcome],
) -> None:
    while True:
        number, body = await jobs.get()
        headers = {"Content-Type": "application/json", "Idempotency-Key": str(number)}
        request = httpx.Request("POST", address, headers=headers, content=body.encode())
        response = await transport.send(request)
        outcomes.put_nowait((number, response.status_code))
        jobs.task_done()


async def _settle(conn: AsyncConnection, outcomes: asyncio.Queue[Outcome]) -> None:
    while True:
        batch = [await outcomes.get()]
        await asyncio.sleep(GATHER)
        while not outcomes.empty():
            batch.append(outcomes.get_nowait())
        await conn.execute(_SETTLE, tuple(map(list, zip(*batch, strict=True))))
        for _ in batch:
            outcomes.task_done()
