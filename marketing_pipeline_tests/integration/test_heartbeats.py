"""Of all who ask for a delivery run one is told yes; a run that is silent counts for nothing."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

import psycopg
import pytest
from psycopg import AsyncConnection

from marketing_pipeline import embedded
from marketing_pipeline.event_log import heartbeats, queries

LIVES = timedelta(minutes=1)
OVER = -timedelta(seconds=1)  # a span that is over before it began, so that no test has to wait
ADA, BOB = UUID(int=1), UUID(int=2)


@asynccontextmanager
async def connections(database: str, number: int) -> AsyncIterator[list[AsyncConnection]]:
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                await AsyncConnection.connect(database, autocommit=True)
            )
            for _ in range(number)
        ]


@pytest.fixture(scope="module")
def shared(servers: embedded.Servers, template: str) -> Iterator[str]:
    """One database for the tests of this module that roll back what they do."""
    name = f"shared_{uuid.uuid4().hex}"
    with psycopg.connect(servers.database_url, autocommit=True) as admin:
        admin.execute(f'create database "{name}" template "{template}"')
        yield urlunsplit(urlsplit(servers.database_url)._replace(path=f"/{name}"))
        admin.execute(f'drop database "{name}" with (force)')


def using(database: str, act: Callable[[AsyncConnection], Awaitable[None]]) -> None:
    async def run() -> None:
        async with connections(database, 1) as [conn], conn.transaction(force_rollback=True):
            await act(conn)

    asyncio.run(run())


async def requests(conn: AsyncConnection) -> int:
    found = await conn.execute("select count(*) from heartbeats where kind = 'requested'")
    row = await found.fetchone()
    assert row is not None
    return int(row[0])


def test_of_many_who_ask_at_once_one_is_told_yes(database: str) -> None:
    async def run() -> None:
        async with connections(database, 8) as all_of_them:
            for _ in range(5):
                told = await asyncio.gather(
                    *(heartbeats.request(conn, LIVES) for conn in all_of_them)
                )
                assert sorted(told) == [False] * 7 + [True]
                await all_of_them[0].execute("delete from heartbeats")

    asyncio.run(run())


def test_without_their_lock_two_who_ask_would_both_be_told_yes(database: str) -> None:
    """The known-bad case of the test above."""
    bare = queries.load("heartbeats.sql")["request"]

    async def run() -> None:
        async with (
            connections(database, 2) as [one, other],
            one.transaction(),
            other.transaction(),
        ):
            told = [await conn.execute(bare, {"lives": LIVES}) for conn in (one, other)]
            assert [cursor.rowcount for cursor in told] == [1, 1]

    asyncio.run(run())


def test_the_first_beat_answers_the_request(shared: str) -> None:
    async def act(conn: AsyncConnection) -> None:
        assert await heartbeats.request(conn, LIVES)
        assert await requests(conn) == 1
        assert not await heartbeats.request(conn, LIVES), "one is on its way"
        await heartbeats.beat(conn, ADA, "run-1", LIVES)
        assert await requests(conn) == 0
        assert not await heartbeats.request(conn, LIVES), "it is at work"
        assert await heartbeats.living(conn) == {"run-1"}

    using(shared, act)


def test_later_beats_leave_a_request_to_the_run_it_asked_for(shared: str) -> None:
    async def act(conn: AsyncConnection) -> None:
        await heartbeats.beat(conn, ADA, "run-1", OVER)  # it was frozen for too long
        assert await heartbeats.request(conn, LIVES)
        await heartbeats.beat(conn, ADA, "run-1", LIVES)
        assert await requests(conn) == 1
        await heartbeats.beat(conn, BOB, "run-2", LIVES)
        assert await requests(conn) == 0

    using(shared, act)


def test_a_beat_moves_the_end_of_a_workers_word(shared: str) -> None:
    async def act(conn: AsyncConnection) -> None:
        await heartbeats.beat(conn, ADA, "run-1", OVER)
        assert await heartbeats.living(conn) == set()
        await heartbeats.beat(conn, ADA, "run-1", LIVES)
        assert await heartbeats.living(conn) == {"run-1"}

    using(shared, act)


def test_a_span_is_over_when_it_is_over_on_the_databases_clock(shared: str) -> None:
    async def act(conn: AsyncConnection) -> None:
        await heartbeats.beat(conn, ADA, "run-1", timedelta(seconds=0.05))
        await asyncio.sleep(0.1)
        assert await heartbeats.living(conn) == set()
        assert await heartbeats.request(conn, LIVES)

    using(shared, act)


def test_a_request_that_nobody_answers_in_time_is_made_again(shared: str) -> None:
    async def act(conn: AsyncConnection) -> None:
        assert await heartbeats.request(conn, OVER)
        assert await heartbeats.request(conn, LIVES)
        assert await requests(conn) == 1, "the old one is gone"

    using(shared, act)


@pytest.mark.parametrize("run_id", ["run-1", None])
def test_a_run_that_ends_by_itself_makes_room_at_once(shared: str, run_id: str | None) -> None:
    async def act(conn: AsyncConnection) -> None:
        await heartbeats.beat(conn, ADA, run_id, LIVES)
        assert not await heartbeats.request(conn, LIVES)
        await heartbeats.stop_beating(conn, BOB)
        assert not await heartbeats.request(conn, LIVES), "that was another's word"
        await heartbeats.stop_beating(conn, ADA)
        assert await heartbeats.request(conn, LIVES)

    using(shared, act)


def test_a_run_without_dagster_is_at_work_and_is_no_dagster_run(shared: str) -> None:
    async def act(conn: AsyncConnection) -> None:
        await heartbeats.beat(conn, ADA, None, LIVES)
        assert await heartbeats.living(conn) == set()
        assert not await heartbeats.request(conn, LIVES)

    using(shared, act)


def test_what_a_dead_run_said_is_dropped_and_what_a_living_one_says_is_not(shared: str) -> None:
    async def act(conn: AsyncConnection) -> None:
        await heartbeats.beat(conn, ADA, "dead", OVER)
        await heartbeats.beat(conn, BOB, "alive", LIVES)
        for run in ("dead", "alive"):
            await heartbeats.forget_run(conn, run)
        rows = await (await conn.execute("select run_id from heartbeats")).fetchall()
        assert rows == [("alive",)]

    using(shared, act)


def test_only_what_was_silent_for_so_long_is_dropped(shared: str) -> None:
    async def act(conn: AsyncConnection) -> None:
        await heartbeats.beat(conn, ADA, "long ago", -timedelta(hours=2))
        await heartbeats.beat(conn, BOB, "just now", OVER)
        await heartbeats.beat(conn, UUID(int=3), "alive", LIVES)
        assert await heartbeats.forget_silent(conn, timedelta(hours=1)) == 1
        assert await heartbeats.forget_silent(conn, timedelta(hours=1)) == 0
        assert await heartbeats.living(conn) == {"alive"}

    using(shared, act)
