"""What was planned and sent, as a replay reads it: nothing here is ever written."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import class_row, dict_row

from marketing_pipeline.event_log import planning, queries
from marketing_pipeline.event_log.planning import Plan

_SQL = queries.load("history.sql")


@dataclass(frozen=True, slots=True, kw_only=True)
class PastEffect:
    """An effect with the inputs of its rendering and the digest of what was sent for it."""

    id: UUID
    kind: str
    provider: str
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


async def effects_of_plan(conn: AsyncConnection, plan: Plan) -> list[PastEffect]:
    async with conn.cursor(row_factory=class_row(PastEffect)) as cursor:
        values = {"event_id": plan.event.id, "epoch": plan.epoch}
        await cursor.execute(_SQL["effects of plan"], values)
        return await cursor.fetchall()
