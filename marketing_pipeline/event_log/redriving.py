"""Failed work: what may be done once more is put back, and for the rest it is said why not."""

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import class_row, dict_row

from marketing_pipeline.domain import plan, redrive
from marketing_pipeline.domain.event import Event, EventType, Origin
from marketing_pipeline.domain.plan import Rules, Unplannable
from marketing_pipeline.domain.redrive import FailedEffect
from marketing_pipeline.event_log import queries

_SQL = queries.load("redriving.sql")
_BATCH = 500  # effects, or events, a transaction
# A daily job sees each failure within a day, also on a day on which it starts late.
_FRESH = timedelta(hours=26)
_FIRST = UUID(int=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """Something failed that stays so, and why."""

    event_id: UUID
    effect_id: UUID | None  # None: the event never had a plan
    provider: str | None
    reason: str


@dataclass(slots=True, kw_only=True)
class Reconciliation:
    """What was found of failed work, and what was put back."""

    redriven: list[FailedEffect] = field(default_factory=list)
    replanned: dict[UUID, str] = field(default_factory=dict)  # events, with why they had failed
    listed: list[Listed] = field(default_factory=list)


async def examine(
    conn: AsyncConnection, rules: Rules, providers: Collection[str], since: datetime, now: datetime
) -> Reconciliation:
    """What `reconcile` would do, without doing it."""
    found = Reconciliation()
    async for ids in _pages(conn, "failed page", "settled_at", since):
        _sort(await _failed(conn, ids), providers, now, found)
    async for events in _unplanned(conn, since):
        _sort_events(events, rules, now, found)
    return found


async def reconcile(
    conn: AsyncConnection, rules: Rules, providers: Collection[str], since: datetime, now: datetime
) -> Reconciliation:
    """Put back what failed since then and may be done once more; `conn` is in autocommit mode.

    Effects keep their ids, so a late Accepted still settles them and nothing is done twice.
    """
    found = Reconciliation()
    async for ids in _pages(conn, "failed page", "settled_at", since):
        async with conn.transaction():
            await conn.execute(_SQL["lock once"], {"ids": ids})
            await conn.execute(_SQL["lock effects"], {"ids": ids})
            safe = _sort(await _failed(conn, ids), providers, now, found)
            await _redrive(conn, safe, now)
    async for events in _unplanned(conn, since):
        await _plan_again(conn, _sort_events(events, rules, now, found), now)
    return found


async def _redrive(conn: AsyncConnection, safe: Sequence[FailedEffect], now: datetime) -> None:
    if not safe:
        return
    events = {"ids": sorted({one.event_id for one in safe}), "now": now}
    await conn.execute(_SQL["redrive"], {"ids": [one.id for one in safe], "now": now})
    await conn.execute(_SQL["lock events"], events)
    await conn.execute(_SQL["reopen"], events)


async def _plan_again(conn: AsyncConnection, ids: Sequence[UUID], now: datetime) -> None:
    if ids:
        await conn.execute(_SQL["plan again"], {"ids": list(ids), "now": now})


async def _failed(conn: AsyncConnection, ids: Sequence[UUID]) -> list[FailedEffect]:
    async with conn.cursor(row_factory=class_row(FailedEffect)) as cursor:
        await cursor.execute(_SQL["failed"], {"ids": list(ids)})
        return await cursor.fetchall()


def _sort(
    failed: Sequence[FailedEffect],
    providers: Collection[str],
    now: datetime,
    found: Reconciliation,
) -> list[FailedEffect]:
    """The safe ones; all of them are told in `found`."""
    safe = []
    for one in failed:
        reason = redrive.why_not(one, providers, now)
        if reason is None:
            safe.append(one)
        else:
            listed = Listed(
                event_id=one.event_id, effect_id=one.id, provider=one.provider, reason=reason
            )
            found.listed.append(listed)
    found.redriven += safe
    return safe
