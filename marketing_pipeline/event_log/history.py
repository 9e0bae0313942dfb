"""What was planned and sent, as a replay reads it: nothing here is ever written."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import class_row, dict_row

from marketing_pipeline.domain.event import EventType
from marketing_pipeline.event_log import planning, queries
from marketing_pipeline.event_log.planning import Plan

_SQL = queries.load("history.sql")
PAGE = 2000  # effects
NO_SEQ = 2**63 - 1  # is reached by no event


@dataclass(frozen=True, slots=True, kw_only=True)
class PastDay:
    """A day that has something to replay."""

    day: date
    plans: int
    effects: int  # that these promise


@dataclass(frozen=True, slots=True, kw_only=True)
class PastCampaign:
    """The plan of a campaign."""

    event_id: UUID
    epoch: int
    count: int  # effects that it promises


@dataclass(slots=True, kw_only=True)
class PastEffect:
    """An effect with the inputs of its rendering and the digest of what was sent for it."""

    event_id: UUID
    epoch: int
    id: UUID
    kind: str
    provider: str
    step: str
    recipient_id: UUID | None
    template: str | None
    variables: Mapping[str, Any]
    state: str
    config_digest: str
    address: str | None
    erased: bool
    sent_sha256: str | None  # of the last request's body; None: no call was ever made


async def days(
    conn: AsyncConnection, first: date, last: date, types: Sequence[EventType]
) -> list[PastDay]:
    """The days of a span, both ends included, that have plans of these types."""
    async with conn.cursor(row_factory=class_row(PastDay)) as cursor:
        await cursor.execute(_SQL["days"], {"first": first, "last": last, "types": list(types)})
        return await cursor.fetchall()


async def slices(
    conn: AsyncConnection, day: date, types: Sequence[EventType], size: int
) -> list[tuple[int, int]]:
    """A day's events of these types in slices of so many: from a seq up to, without, another."""
    values = {"day": day, "types": list(types), "size": size}
    begins = [row[0] for row in await (await conn.execute(_SQL["slices"], values)).fetchall()]
    return list(zip(begins, [*begins[1:], NO_SEQ], strict=False))


async def campaigns_of_day(conn: AsyncConnection, day: date) -> list[PastCampaign]:
    """The largest first."""
    async with conn.cursor(row_factory=class_row(PastCampaign)) as cursor:
        await cursor.execute(_SQL["campaigns"], {"day": day})
        return await cursor.fetchall()


async def cancelled(conn: AsyncConnection, day: date) -> set[UUID]:
    """Events of the day that somebody cancelled."""
    found = await (await conn.execute(_SQL["cancelled"], {"day": day})).fetchall()
    return {row[0] for row in found}


async def plans_of_day(
    conn: AsyncConnection,
    day: date,
    types: Sequence[EventType] = tuple(EventType),
    since: int = 0,
    before: int = NO_SEQ,
) -> AsyncIterator[Plan]:
    """The plans of a day, or of a slice of it, streamed; inside a transaction."""
    async with conn.cursor(name="plans", row_factory=dict_row) as cursor:
        cursor.itersize = PAGE
        values = {"day": day, "types": list(types), "since": since, "before": before}
        await cursor.execute(_SQL["plans of day"], values)
        async for row in cursor:
            yield planning.plan_row(row)


async def effects_of_plans(
    conn: AsyncConnection, plans: Sequence[Plan]
) -> dict[tuple[UUID, int], list[PastEffect]]:
    """What the ledger holds of these plans, by event and epoch."""
    held: dict[tuple[UUID, int], list[PastEffect]] = {}
    async with conn.cursor(row_factory=class_row(PastEffect)) as cursor:
        values = {
            "event_ids": [plan.event.id for plan in plans],
            "epochs": [plan.epoch for plan in plans],
        }
        await cursor.execute(_SQL["effects of plans"], values)
        for effect in await cursor.fetchall():
            held.setdefault((effect.event_id, effect.epoch), []).append(effect)
    return held


async def effects_of_campaign(
    conn: AsyncConnection, event_id: UUID, epoch: int, first: UUID, last: UUID
) -> AsyncIterator[list[PastEffect]]:
    """What the ledger holds of a plan between two ids, both included: pages, in a transaction."""
    async with conn.cursor(name="campaign", row_factory=class_row(PastEffect)) as cursor:
        values = {"event_id": event_id, "epoch": epoch, "first": first, "last": last}
        await cursor.execute(_SQL["effects of campaign"], values)
        while page := await cursor.fetchmany(PAGE):
            yield page


async def entries_of_campaign(
    conn: AsyncConnection, plan: Plan, steps: Sequence[str]
) -> AsyncIterator[dict[str, str]]:
    """Ids that the ledger holds of a plan of these steps, each with what it is, in plan order.

    Pages, inside a transaction.
    """
    async with conn.cursor(name="entries") as cursor:
        values = {"event_id": plan.event.id, "epoch": plan.epoch, "steps": list(steps)}
        await cursor.execute(_SQL["entries of campaign"], values)
        while page := await cursor.fetchmany(PAGE):
            yield dict(page)
