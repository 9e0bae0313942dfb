"""Which delivery runs are at work: what they say themselves, on the database's clock."""

from datetime import timedelta
from uuid import UUID

from psycopg import AsyncConnection

from marketing_pipeline.event_log import queries

_SQL = queries.load("heartbeats.sql")


async def beat(conn: AsyncConnection, worker: UUID, run_id: str | None, lives: timedelta) -> None:
    """Say that `worker` lives, and will be heard of again before `lives` has passed.

    The first beat of a worker answers the request that started it.
    """
    await conn.execute(_SQL["beat"], {"worker": worker, "run_id": run_id, "lives": lives})


async def stop_beating(conn: AsyncConnection, worker: UUID) -> None:
    """The worker ends by itself; one that was killed goes silent instead."""
    await conn.execute(_SQL["stop beating"], {"worker": worker})


async def request(conn: AsyncConnection, lives: timedelta) -> bool:
    """Ask for a run; False where one is alive already, so that of two who ask one is told yes.

    `lives` is how long a run may take to start before somebody asks again.
    """
    async with conn.transaction():
        await conn.execute(_SQL["lock"])
        await conn.execute(_SQL["forget"])
        cursor = await conn.execute(_SQL["request"], {"lives": lives})
        return cursor.rowcount == 1


async def living(conn: AsyncConnection) -> set[str]:
    """The Dagster runs that say they are at work."""
    return {row[0] for row in await (await conn.execute(_SQL["living"])).fetchall()}


async def forget_run(conn: AsyncConnection, run_id: str) -> None:
    """Drop what a run said that was found dead."""
    await conn.execute(_SQL["forget run"], {"run_id": run_id})


async def forget_silent(conn: AsyncConnection, silent: timedelta) -> int:
    """Drop what was last said so long ago; how much there was."""
    return (await conn.execute(_SQL["forget silent"], {"silent": silent})).rowcount
