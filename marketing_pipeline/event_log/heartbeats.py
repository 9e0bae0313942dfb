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


async def alive(conn: AsyncConnection) -> bool:
    """Is a delivery run at work, or asked for and on its way?"""
    row = await (await conn.execute(_SQL["alive"])).fetchone()
    return bool(row and row[0])


async def request(conn: AsyncConnection, lives: timedelta) -> bool:
    """Ask for a run; False where one is alive already, so that of two who ask one is told yes.

    `lives` is how long a run may take to start before somebody asks again.
    """
    async with conn.transaction():
        await conn.execute(_SQL["lock"])
        await conn.execute(_SQL["forget"])
        cursor = await conn.execute(_SQL["request"], {"lives": lives})
        return cursor.rowcount == 1


async def silent(conn: AsyncConnection, grace: timedelta) -> list[str]:
    """Ids of the Dagster runs whose worker stopped beating without saying goodbye.

    `grace` is what is waited beyond the promised beat: after the database was away a run that
    lives needs a moment to say so.
    """
    cursor = await conn.execute(_SQL["silent"], {"grace": grace})
    return [row[0] for row in await cursor.fetchall()]


async def bury(conn: AsyncConnection, run_id: str) -> None:
    """Forget a silent run, once Dagster has been told or has noticed."""
    await conn.execute(_SQL["bury"], {"run_id": run_id})
