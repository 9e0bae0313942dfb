"""Which log this is: its identity, and how many claims it remembers having made."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import class_row

from marketing_pipeline.event_log import queries

_SQL = queries.load("installation.sql")


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """What the database says of itself; a copy says the same."""

    identity: UUID
    claims: int  # numbers given out so far; goes back only when the database does
    adopted_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Adoption:
    """What `adopt` made of a log."""

    identity: UUID
    doubtful: int  # effects that were due, and may have been sent in the log's earlier life


class StillAtWork(RuntimeError):
    """A delivery run lives: end it before the log becomes another one."""


async def read(conn: AsyncConnection) -> Installation:
    async with conn.cursor(row_factory=class_row(Installation)) as cursor:
        await cursor.execute(_SQL["installation"])
        found = await cursor.fetchone()
        assert found is not None, "the migration wrote it"
        return found


async def adopt(conn: AsyncConnection, why: str) -> Adoption:
    """Make this log one of its own, in one transaction.

    Effects that were due go to DOUBT, and so will those of events that were due and wait for
    their plan: asked for again with the same key or looked up, never sent blindly.

    Raises:
        StillAtWork: a delivery run is awake.
    """
    async with conn.transaction():
        row = await (await conn.execute(_SQL["workers"])).fetchone()
        if row is None or row[0]:
            raise StillAtWork("a delivery run is awake; end it, wait 15 s, and adopt then")
        adopted = await (await conn.execute(_SQL["adopt"], {"why": why})).fetchone()
        assert adopted is not None
        identity, at = adopted
        cursor = await conn.execute(_SQL["doubt what was due"], {"at": at})
        return Adoption(identity=identity, doubtful=cursor.rowcount)
