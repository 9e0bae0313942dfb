import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from psycopg import AsyncConnection, OperationalError, ProgrammingError, errors

from marketing_pipeline.event_log.round_trip import one_round_trip

Conn = AsyncConnection[Any]


@asynccontextmanager
async def table(database: str) -> AsyncIterator[Conn]:
    """A connection in autocommit mode, and a table of numbers that are not to come twice."""
    async with await AsyncConnection.connect(database, autocommit=True) as conn:
        await conn.execute("create table numbers (number int primary key)")
        yield conn


async def insert(conn: Conn, numbers: Iterable[int]) -> None:
    for number in numbers:
        await conn.execute("insert into numbers values (%s)", [number])


async def numbers(conn: Conn) -> list[int]:
    return [row[0] for row in await (await conn.execute("table numbers")).fetchall()]


def run(database: str, act: Callable[[Conn], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with table(database) as conn:
            await act(conn)

    asyncio.run(whole())


def test_all_of_it_is_committed_and_read_afterwards(database: str) -> None:
    async def act(conn: Conn) -> None:
        async with one_round_trip(conn):
            await insert(conn, [1, 2])
            found = await conn.execute("select count(*), count(distinct xmin::text) from numbers")
        assert await found.fetchone() == (2, 1)
        assert await numbers(conn) == [1, 2]

    run(database, act)


def test_of_what_the_server_refuses_nothing_is_committed_and_the_connection_serves_on(
    database: str,
) -> None:
    async def act(conn: Conn) -> None:
        for last in (1, 3):  # noticed at the end, and as early as may be
            with pytest.raises(errors.UniqueViolation):
                async with one_round_trip(conn):
                    await insert(conn, [1, 1, *range(2, 2 + last)])
            assert await numbers(conn) == []
        async with one_round_trip(conn):
            await insert(conn, [1])
        assert await numbers(conn) == [1]

    run(database, act)


def test_an_error_of_the_block_leaves_nothing_either(database: str) -> None:
    async def act(conn: Conn) -> None:
        with pytest.raises(ZeroDivisionError):
            async with one_round_trip(conn):
                await insert(conn, (1 // number for number in (1, 0)))
        assert await numbers(conn) == []

    run(database, act)


def test_it_is_no_part_of_another_transaction(database: str) -> None:
    async def act(conn: Conn) -> None:
        async with conn.transaction():
            await insert(conn, [1])
            with pytest.raises(ProgrammingError, match="a whole transaction"):
                async with one_round_trip(conn):
                    await insert(conn, [2])
        assert await numbers(conn) == [1]
        await conn.set_autocommit(False)
        with pytest.raises(ProgrammingError, match="autocommit"):
            async with one_round_trip(conn):
                await insert(conn, [2])

    run(database, act)


def test_a_server_that_has_gone_is_said_to_have_gone(database: str) -> None:
    async def act(conn: Conn) -> None:
        async with await AsyncConnection.connect(database, autocommit=True) as other:
            pid = other.info.backend_pid
            await conn.execute("select pg_terminate_backend(%s)", [pid])
            for _ in range(2):  # when it is found out, and when it is known
                with pytest.raises(OperationalError):
                    async with one_round_trip(other):
                        await insert(other, [1])
        assert await numbers(conn) == []

    run(database, act)
