"""Cuts: the facts that a plan may read."""

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta

from psycopg import AsyncConnection

from marketing_pipeline.event_log import queries

_SQL = queries.load("cuts.sql")
_POLL = 0.005  # seconds between looks at the transactions that a cut waits for


class CutTimeout(TimeoutError):
    """A transaction that writes facts has been open for too long to take a cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """The facts a plan may read: every seq up to this one, and none that commits later."""

    seq: int
    at: datetime


async def take(conn: AsyncConnection, now: datetime, patience: timedelta) -> Cut:
    """Fix the facts that plans made now may read; `conn` must be in autocommit mode.

    A number is drawn before its transaction commits, so the highest number alone is no cut: we
    read it and then wait for the transactions that hold the log for writing at that moment, as
    CREATE INDEX CONCURRENTLY does. New writers are not blocked; their numbers are higher.

    Raises:
        CutTimeout: one of them stays open longer than `patience`.
    """
    row = await (await conn.execute(_SQL["highest seq"])).fetchone()
    assert row is not None
    left = [r[0] for r in await (await conn.execute(_SQL["writers"])).fetchall()]
    try:
        async with asyncio.timeout(patience.total_seconds()):
            while left:
                await asyncio.sleep(_POLL)
                found = await conn.execute(_SQL["writers left"], {"writers": left})
                left = [r[0] for r in await found.fetchall()]
    except TimeoutError as error:
        raise CutTimeout(
            f"a transaction that writes to the log has been open for over {patience}; end it"
        ) from error
    return Cut(seq=row[0], at=now)
