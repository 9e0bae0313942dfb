"""Due events and plans."""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import class_row

from marketing_pipeline.domain.event import Event, EventType, Origin
from marketing_pipeline.domain.plan import PlannedEffect
from marketing_pipeline.event_log import queries, rows
from marketing_pipeline.event_log.cuts import Cut
from marketing_pipeline.event_log.ledger import Begun, NewAttempt

_SQL = queries.load("planning.sql")
_FOR_EVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What was promised for one event in one epoch."""

    event: Event
    epoch: int
    cut: Cut
    config_digest: str
    plan_version: int
    count: int
    digest: str
    inserted: int
    starts_at: datetime | None = None  # when its effects come due; None: with the event
    excluded: Mapping[str, int] = field(default_factory=dict)  # people who get nothing, by reason


@dataclass(frozen=True, slots=True, kw_only=True)
class DueEvent:
    """An event that waits for its plan, or has one and was set PENDING by hand."""

    event: Event
    planned: bool
    now: datetime  # the database's clock when it was found


class Place(NamedTuple):
    """Where an event stands in the order in which due events are planned."""

    scheduled_at: datetime
    seq: int


FIRST = Place(datetime.min.replace(tzinfo=UTC), 0)  # before all events


class Triggers(NamedTuple):
    """Which kinds of campaigns are due."""

    crowd: bool  # for a whole audience
    single: bool  # for one person: a step of a sequence, or a test


async def triggers_due(conn: AsyncConnection, now: datetime) -> Triggers:
    row = await (await conn.execute(_SQL["triggers due"], {"now": now})).fetchone()
    assert row is not None
    return Triggers(*row)


async def due_events(
    conn: AsyncConnection, now: datetime, cut: Cut | None, limit: int, after: Place = FIRST
) -> list[DueEvent]:
    """Lock due events until the caller's transaction ends; those for one person up to the cut.

    In their order, and only what comes `after` a place. Campaigns to a whole audience are not among
    them: `campaign_to_plan` gives these.
    """
    values = {
        "now": now,
        "cut": cut.seq if cut else -1,
        "limit": limit,
        "after_at": after.scheduled_at,
        "after_seq": after.seq,
    }
    found = await queries.rows(conn, _SQL["due events"], values)
    return [_due_event(row) for row in found]


async def promise(
    conn: AsyncConnection, plans: Sequence[Plan], under_way: Sequence[UUID], now: datetime
) -> None:
    """Write plans, each once, and that these events are under way: PROCESSING."""
    written = [
        {
            "event_id": plan.event.id,
            "epoch": plan.epoch,
            "day": plan.event.day,
            "cut_seq": plan.cut.seq,
            "cut_at": plan.cut.at,
            "config_digest": plan.config_digest,
            "plan_version": plan.plan_version,
            "count": plan.count,
            "digest": plan.digest,
            "inserted": plan.inserted,
            "campaign": plan.event.payload.get("campaign") if is_campaign(plan.event) else None,
            "starts_at": plan.starts_at,
            "excluded": plan.excluded,
        }
        for plan in plans
    ]
    values = {"plans": rows.document(written), "under_way": list(under_way), "now": now}
    await conn.execute(_SQL["promise"], values)


async def standing_plans(conn: AsyncConnection, plans: Sequence[Plan]) -> dict[UUID, str]:
    """The digests of those of these plans that are there, by event."""
    values = {"event_ids": [one.event.id for one in plans], "epochs": [one.epoch for one in plans]}
    return dict(await (await conn.execute(_SQL["standing plans"], values)).fetchall())


async def insert_effects(
    conn: AsyncConnection,
    planned: Sequence[tuple[Event, int, PlannedEffect]],
    now: datetime,
    *,
    refused: Container[UUID],
    claim_id: UUID | None = None,
    attempts: Sequence[NewAttempt] = (),
) -> Begun | None:
    """Write effects, each with its event and epoch; one that is there already stays as it is.

    refused: what `take_once` did not let pass; written as SUPPRESSED.
    attempts: of those that are claimed by this very stroke, under `claim_id`; what began.
    """
    written = [
        {
            "id": effect.id,
            "event_id": event.id,
            "epoch": epoch,
            "day": event.day,
            "event_seq": event.seq,
            "route": event.type,
            "step": effect.step,
            "provider": effect.provider,
            "kind": effect.kind,
            "recipient_id": effect.recipient_id,
            "ordering_key": effect.ordering_key,
            "template": effect.template,
            "variables": effect.variables,
            "priority": effect.priority,
            "due_at": effect.due_at,
            "expires_at": effect.expires_at,
            "once_key": effect.once_key,
            "refused": effect.id in refused,
        }
        for event, epoch, effect in planned
    ]
    values = {
        "effects": rows.document(written),
        "attempts": rows.document(attempts),
        "claim_id": claim_id,
        "now": now,
    }
    async with conn.cursor(row_factory=class_row(Begun)) as cursor:
        await cursor.execute(_SQL["insert effects"], values)
        return await cursor.fetchone()


async def take_once(conn: AsyncConnection, effects: Iterable[PlannedEffect]) -> set[UUID]:
    """Take the keys of `once`, of effects that have one; those that did not get theirs.

    Where several want one key they ask one after the other, by when they are due: the span of
    the first may be over before the next.
    """
    keyed = [effect for effect in effects if effect.once_key]
    waiting = sorted(keyed, key=lambda effect: (effect.due_at, effect.id))
    refused: set[UUID] = set()
    while waiting:
        first = {effect.once_key: effect for effect in reversed(waiting)}
        ids = {effect.id for effect in first.values()}
        refused |= ids - await _takers(conn, list(first.values()))
        waiting = [effect for effect in waiting if effect.id not in ids]
    return refused


async def _takers(conn: AsyncConnection, effects: Sequence[PlannedEffect]) -> set[UUID]:
    """Those that hold their key now; no two of them want the same."""
    values = {
        "keys": [effect.once_key for effect in effects],
        "effect_ids": [effect.id for effect in effects],
        "since": [effect.due_at for effect in effects],
        "until": [effect.once_until or _FOR_EVER for effect in effects],
    }
    await conn.execute(_SQL["lock once"], values)
    await conn.execute(_SQL["take once"], values)
    found = await (await conn.execute(_SQL["once takers"], values)).fetchall()
    return {row[0] for row in found}


async def mark_unplannable(
    conn: AsyncConnection, reasons: Mapping[UUID, str], now: datetime
) -> None:
    if not reasons:
        return
    values = {"ids": list(reasons), "reasons": list(reasons.values()), "now": now}
    await conn.execute(_SQL["mark unplannable"], values)


async def unfinished_plans(conn: AsyncConnection) -> list[Plan]:
    """Plans that somebody began to write out and did not finish."""
    return [plan_row(row) for row in await queries.rows(conn, _SQL["unfinished plans"], {})]


async def plan(conn: AsyncConnection, event_id: UUID, epoch: int) -> Plan | None:
    """What was promised for an event in an epoch."""
    row = await queries.row(conn, _SQL["plan"], {"event_id": event_id, "epoch": epoch})
    return plan_row(row) if row else None


async def advance(conn: AsyncConnection, plan: Plan, before: int, upto: int) -> bool:
    """Count a chunk as written; False where another process is writing this plan."""
    values = {"event_id": plan.event.id, "epoch": plan.epoch, "before": before, "upto": upto}
    return await (await conn.execute(_SQL["advance"], values)).fetchone() is not None


async def campaign_to_plan(conn: AsyncConnection, now: datetime, cut: Cut) -> DueEvent | None:
    """A due campaign up to the cut, unlocked: `lock_unplanned` before its plan is kept."""
    row = await queries.row(conn, _SQL["campaign to plan"], {"now": now, "cut": cut.seq})
    return _due_event(row) if row else None


async def lock_unplanned(conn: AsyncConnection, event_id: UUID) -> bool:
    """Lock an event that waits for its plan still; False where it does not, or is held."""
    return (
        await (await conn.execute(_SQL["lock unplanned"], {"id": event_id})).fetchone() is not None
    )


def is_campaign(event: Event) -> bool:
    return event.type is EventType.CAMPAIGN_TRIGGER


def _due_event(row: Mapping[str, Any]) -> DueEvent:
    return DueEvent(event=event_row(row), planned=row["planned"], now=row["now"])


def event_row(row: Mapping[str, Any]) -> Event:
    """An event of a row that holds its facts."""
    return Event(
        id=row["id"],
        seq=row["seq"],
        type=EventType(row["type"]),
        payload=row["payload"],
        source=row["source"],
        origin=Origin(row["origin"]),
        scheduled_at=row["scheduled_at"],
        recipient_id=row["recipient_id"],
    )


def plan_row(row: Mapping[str, Any]) -> Plan:
    """A plan of a row that holds its event too."""
    return Plan(
        event=event_row(row),
        epoch=row["epoch"],
        cut=Cut(seq=row["cut_seq"], at=row["cut_at"]),
        config_digest=row["config_digest"],
        plan_version=row["plan_version"],
        count=row["count"],
        digest=row["digest"],
        inserted=row["inserted"],
        starts_at=row["starts_at"],
        excluded=row["excluded"],
    )
