"""Moves what waits of a held campaign: out of the way, back to its place, or to its end.

All of it goes in chunks that can be repeated, whoever died in between. Where it is not done, claims
leave out what is held all the same, and nothing but time is lost.
"""

from collections.abc import Sequence
from uuid import UUID

from psycopg import AsyncConnection

from marketing_pipeline.event_log import planning, queries
from marketing_pipeline.event_log.planning import Plan

_SQL = queries.load("parking.sql")
CHUNK = 2000  # effects a transaction: enough to be quick, too few to hold a lock for long
PAGE = 20_000  # effects that are looked for at once: finding them reads all that is open


async def park_some(conn: AsyncConnection, event_id: UUID) -> int:
    """Take up to a page of a paused event's effects out of the way; 0: none is left, or it is not
    paused any more. `conn` is in autocommit mode."""
    parked, page = 0, await _waiting(conn, event_id, parked=False)
    for ids in _chunks(page):
        async with conn.transaction():
            if not await _is(conn, "keep paused", event_id):
                return parked
            parked += (await conn.execute(_SQL["park"], {"ids": ids})).rowcount
    if len(page) < PAGE:
        await conn.execute(_SQL["parked"], {"event_id": event_id})
    return parked


async def unpark_some(
    conn: AsyncConnection, event_id: UUID, after: UUID
) -> tuple[UUID | None, int]:
    """Put back a chunk of what is parked and comes after an id: the last one and how many.

    None: there is no more, or its pause is not ending any more.
    """
    values = {"event_id": event_id, "after": after, "limit": CHUNK}
    async with conn.transaction():
        if not await _is(conn, "keep resuming", event_id):
            return None, 0
        rows = await (await conn.execute(_SQL["unpark"], values)).fetchall()
    return max((row[0] for row in rows), default=None), len(rows)


async def close_some(conn: AsyncConnection, event_id: UUID) -> int:
    """Close up to a page of what waits of a cancelled event; 0: nothing does."""
    page = await _waiting(conn, event_id, parked=True)
    closed = 0
    for ids in _chunks(page):
        async with conn.transaction():
            closed += (await conn.execute(_SQL["close"], {"ids": ids})).rowcount
    return closed


async def to_tend(conn: AsyncConnection) -> tuple[UUID, str] | None:
    """A held event of which something is in the way, with its hold's state."""
    row = await (await conn.execute(_SQL["to tend"])).fetchone()
    return None if row is None else (row[0], row[1])


async def unfinished_plan(conn: AsyncConnection, event_id: UUID) -> Plan | None:
    """A plan of the event of which not all is in the ledger yet."""
    row = await queries.row(conn, _SQL["unfinished plan"], {"event_id": event_id})
    return planning.plan_row(row) if row else None


async def _waiting(conn: AsyncConnection, event_id: UUID, *, parked: bool) -> list[UUID]:
    values = {"event_id": event_id, "parked": parked, "limit": PAGE}
    return [row[0] for row in await (await conn.execute(_SQL["waiting"], values)).fetchall()]


async def _is(conn: AsyncConnection, query: str, event_id: UUID) -> bool:
    return await (await conn.execute(_SQL[query], {"event_id": event_id})).fetchone() is not None


def _chunks(ids: Sequence[UUID]) -> list[Sequence[UUID]]:
    return [ids[at : at + CHUNK] for at in range(0, len(ids), CHUNK)]
