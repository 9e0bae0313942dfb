"""Whether events that are said to be at their end are."""

from dataclasses import dataclass
from datetime import date
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import class_row

from marketing_pipeline.event_log import queries

_SQL = queries.load("completion.sql")


@dataclass(frozen=True, slots=True, kw_only=True)
class FalselyFinished:
    """An event that is COMPLETED or FAILED and must not be; counts are of its effects."""

    event_id: UUID
    day: date
    status: str
    missing: int  # planned and not in the ledger; below zero: in the ledger and not planned
    open: int
    unknown: int
    failed: int
    planned: bool


async def falsely_finished(
    conn: AsyncConnection, from_day: date, to_day: date, limit: int = 100
) -> list[FalselyFinished]:
    """Events of these days, both ends included, that passed the gate to "finished" too early."""
    values = {"from_day": from_day, "to_day": to_day, "limit": limit}
    async with conn.cursor(row_factory=class_row(FalselyFinished)) as cursor:
        await cursor.execute(_SQL["falsely finished"], values)
        return await cursor.fetchall()
