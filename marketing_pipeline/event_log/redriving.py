"""Failed work: what may be done once more is put back, and for the rest it is said why not."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import class_row, dict_row

from marketing_pipeline.domain import redrive
from marketing_pipeline.domain.redrive import FailedEffect
from marketing_pipeline.domain.rules import Rules
from marketing_pipeline.event_log import planning, queries

_SQL = queries.load("redriving.sql")
_BATCH = 500  # effects, or events, a transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Standards:
    """What failed work is measured by: the operator's file as it is today, and the time."""

    rules: Rules
    providers: Collection[str]  # that the file has
    since: datetime  # what failed earlier is left alone
    now: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """Something failed, with why it stays so or why it had failed."""

    event_id: UUID
    effect_id: UUID | None  # None: the event never had a plan
    provider: str | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciliation:
    """What was found of failed work."""

    redriven: list[Listed] = field(default_factory=list)  # effects that are PLANNED again
    replanned: list[Listed] = field(default_factory=list)  # events that are PENDING again
    left: list[Listed] = field(default_factory=list)  # for a person


async def examine(conn: AsyncConnection, by: Standards) -> Reconciliation:
    """What `reconcile` would do, without doing it."""
    found = Reconciliation()
    async for page in _pages(conn, "failed page", by):
        _sort_effects(await _failed(conn, [row["id"] for row in page]), by, found)
    async for page in _pages(conn, "unplanned page", by):
        _sort_events(page, by, found)
    return found


async def reconcile(conn: AsyncConnection, by: Standards) -> Reconciliation:
    """Put back what may be done once more; `conn` is in autocommit mode.

    Effects keep their ids, so a late Accepted still settles them and nothing is done twice.
    """
    found = Reconciliation()
    async for page in _pages(conn, "failed page", by):
        ids = [row["id"] for row in page]
        async with conn.transaction():
            await conn.execute(_SQL["lock once"], {"ids": ids})
            await conn.execute(_SQL["lock effects"], {"ids": ids})
            safe = _sort_effects(await _failed(conn, ids), by, found)
            await _redrive(conn, safe, by.now)
    async for page in _pages(conn, "unplanned page", by):
        if plannable := _sort_events(page, by, found):
            await conn.execute(_SQL["plan again"], {"ids": plannable, "now": by.now})
    return found


async def _pages(
    conn: AsyncConnection, query: str, by: Standards
) -> AsyncIterator[list[dict[str, Any]]]:
    after, after_id = by.since, UUID(int=0)
    while True:
        values = {"after": after, "after_id": after_id, "now": by.now, "limit": _BATCH}
        async with conn.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(_SQL[query], values)
            page = await cursor.fetchall()
        if not page:
            return
        after, after_id = page[-1]["at"], page[-1]["id"]
        yield page


async def _failed(conn: AsyncConnection, ids: Sequence[UUID]) -> list[FailedEffect]:
    async with conn.cursor(row_factory=class_row(FailedEffect)) as cursor:
        await cursor.execute(_SQL["failed"], {"ids": list(ids)})
        return await cursor.fetchall()


async def _redrive(conn: AsyncConnection, safe: Sequence[FailedEffect], now: datetime) -> None:
    if safe:
        events = {"ids": sorted({one.event_id for one in safe}), "now": now}
        await conn.execute(_SQL["redrive"], {"ids": [one.id for one in safe], "now": now})
        await conn.execute(_SQL["lock events"], events)
        await conn.execute(_SQL["reopen"], events)


def _sort_effects(
    failed: Sequence[FailedEffect], by: Standards, found: Reconciliation
) -> list[FailedEffect]:
    """The safe ones; all of them are told in `found`."""
    safe = []
    for one in failed:
        why_not = redrive.why_not(one, by.providers, by.now)
        if why_not is None:
            safe.append(one)
        told = Listed(
            event_id=one.event_id,
            effect_id=one.id,
            provider=one.provider,
            reason=why_not or one.last_error,
        )
        (found.left if why_not else found.redriven).append(told)
    return safe


def _sort_events(
    rows: Sequence[Mapping[str, Any]], by: Standards, found: Reconciliation
) -> list[UUID]:
    """Those that can be planned now; all of them are told in `found`."""
    plannable = []
    for row in rows:
        why_not = redrive.why_not_planned(
            planning.event_row(row), row["due_since"], by.rules, by.now
        )
        if why_not is None:
            plannable.append(row["id"])
        told = Listed(
            event_id=row["id"],
            effect_id=None,
            provider=None,
            reason=why_not or row["last_error"],
        )
        (found.left if why_not else found.replanned).append(told)
    return plannable
