"""Which campaigns were triggered, what became of it, and which steps are to come."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import class_row

from marketing_pipeline.event_log import queries

_SQL = queries.load("triggers.sql")


@dataclass(frozen=True, slots=True, kw_only=True)
class Last:
    """The newest trigger of a campaign that has come due."""

    campaign: str
    event_id: UUID
    scheduled_at: datetime
    status: str
    last_error: str | None
    held: str | None  # unapproved, paused or cancelled
    held_because: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A step of a sequence, and for how many people it is still to come."""

    sequence: str
    step: str
    waiting: int
    next_at: datetime


async def recorded(conn: AsyncConnection, ids: Sequence[UUID]) -> Mapping[UUID, bool]:
    """Those of the triggers that are in the log: was it a person who recorded them?"""
    if not ids:
        return {}
    cursor = await conn.execute(_SQL["recorded"], {"ids": list(ids)})
    return dict(await cursor.fetchall())


async def last_look(
    conn: AsyncConnection, campaign: str, source: str, now: datetime
) -> datetime | None:
    """The last occurrence that was recorded for the clock's sake; None where none is found.

    One that could not be planned is found by its id alone: see `recorded`.
    """
    values = {"campaign": campaign, "source": source, "now": now}
    row = await (await conn.execute(_SQL["last look"], values)).fetchone()
    return None if row is None else row[0]


async def last(
    conn: AsyncConnection, campaigns: Sequence[str], ids: Sequence[UUID], now: datetime
) -> Mapping[str, Last]:
    """By campaign; `ids` are of triggers that there may be."""
    values = {"campaigns": list(campaigns), "ids": list(ids), "now": now}
    async with conn.cursor(row_factory=class_row(Last)) as cursor:
        await cursor.execute(_SQL["last triggers"], values)
        return {one.campaign: one for one in await cursor.fetchall()}


async def effects_of(
    conn: AsyncConnection, events: Sequence[UUID]
) -> Mapping[UUID, Mapping[str, int]]:
    """How many effects each of the events has in its last epoch, by state."""
    counts: dict[UUID, dict[str, int]] = {one: {} for one in events}
    for event, state, count in await (
        await conn.execute(_SQL["effects of"], {"ids": list(events)})
    ).fetchall():
        counts[event][state] = count
    return counts


async def steps_to_come(conn: AsyncConnection, now: datetime) -> Sequence[Step]:
    async with conn.cursor(row_factory=class_row(Step)) as cursor:
        await cursor.execute(_SQL["steps to come"], {"now": now})
        return await cursor.fetchall()
