"""Providers that are held back durably: the gate's memory is shorter."""

from dataclasses import asdict, dataclass
from datetime import datetime

from psycopg import AsyncConnection
from psycopg.rows import class_row

from marketing_pipeline.event_log import queries

_SQL = queries.load("pauses.sql")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """A provider that is held back, and why."""

    provider: str
    until: datetime
    reason: str


async def keep(conn: AsyncConnection, pause: Pause, now: datetime) -> None:
    """Hold a provider back; the later end of two pauses wins."""
    values = {**asdict(pause), "now": now}
    await conn.execute(_SQL["keep"], values)


async def lift(conn: AsyncConnection, provider: str) -> Pause | None:
    """End a provider's durable pause; what it was, or None where there was none."""
    async with conn.cursor(row_factory=class_row(Pause)) as cursor:
        await cursor.execute(_SQL["lift"], {"provider": provider})
        return await cursor.fetchone()


async def standing(conn: AsyncConnection) -> list[Pause]:
    """What is held back now."""
    async with conn.cursor(row_factory=class_row(Pause)) as cursor:
        await cursor.execute(_SQL["standing"])
        return await cursor.fetchall()
