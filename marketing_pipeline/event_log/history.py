"""What was planned and sent, as a replay reads it: nothing here is ever written."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import class_row, dict_row

from marketing_pipeline.event_log import planning, queries
from marketing_pipeline.event_log.planning import Plan

_SQL = queries.load("history.sql")
PAGE = 2000  # effects


@dataclass(frozen=True, slots=True, kw_only=True)
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


async def plans_of_day(conn: AsyncConnection, day: date) -> AsyncIterator[Plan]:
    """The plans of a day, streamed; inside a transaction."""
    async with conn.cursor(name="plans", row_factory=dict_row) as cursor:
        await cursor.execute(_SQL["plans of day"], {"day": day})
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
    conn: AsyncConnection, plan: Plan, steps: Sequence[str]
) -> AsyncIterator[list[PastEffect]]:
    """What the ledger holds of a plan of these steps, in its order: pages, inside a transaction."""
    async with conn.cursor(name="campaign", row_factory=class_row(PastEffect)) as cursor:
        values = {"event_id": plan.event.id, "epoch": plan.epoch, "steps": list(steps)}
        await cursor.execute(_SQL["effects of campaign"], values)
        while page := await cursor.fetchmany(PAGE):
            yield page
