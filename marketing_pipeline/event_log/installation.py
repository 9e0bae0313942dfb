"""Which log this is: its identity, and how many claims it remembers having made."""

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import class_row

from marketing_pipeline.event_log import queries

_SQL = queries.load("installation.sql")


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """What the database says of itself; a copy says the same."""

    identity: UUID
    claims: int  # the highest number of those that it remembers


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


async def adopt(conn: AsyncConnection, why: str, settle_delay: timedelta) -> Adoption:
    """Make this log one of its own, in one transaction.

    Effects that were due go to DOUBT, and so will those of events that were due and wait for
    their plan: asked for again with the same key or looked up, never sent blindly, and not before
    `settle_delay`, the longest of all providers', has passed.

    Raises:
        StillAtWork: a delivery run is awake.
    """
    async with conn.transaction():
        values = {"why": why, "settle_delay": settle_delay}
        row = await (await conn.execute(_SQL["workers"])).fetchone()
        if row is None or row[0]:
            raise StillAtWork("a delivery run is awake; end it, wait 15 s, and adopt then")
        adopted = await (await conn.execute(_SQL["adopt"], values)).fetchone()
        assert adopted is not None
        identity, at, look_at = adopted
        await conn.execute(_SQL["doubt longer"], {"at": at, "look_at": look_at})
        cursor = await conn.execute(_SQL["doubt what was due"], {"at": at, "look_at": look_at})
        return Adoption(identity=identity, doubtful=cursor.rowcount)
