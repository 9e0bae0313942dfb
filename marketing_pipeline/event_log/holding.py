"""Campaigns that people pause, resume and cancel while they are under way.

From the commit of a pause on no attempt of its event starts: claims read holds under a lock that
whoever holds a campaign takes for itself. What waits is moved out of the way, put back or closed in
`parking`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import class_row

from marketing_pipeline.domain.event import EventType
from marketing_pipeline.domain.payload import UNSTORABLE
from marketing_pipeline.event_log import queries

_SQL = queries.load("holding.sql")
# A resume that takes longer was interrupted. What it had put back may be late by so much at most.
PATIENCE = timedelta(hours=1)


class CannotHold(ValueError):
    """A campaign that cannot be paused, resumed or cancelled; says why, and what can be done."""


class Action(StrEnum):
    """What a person does to a campaign; spelled the same in SQL."""

    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """Who does something, and why; kept in the log."""

    why: str
    who: str

    def __post_init__(self) -> None:
        for field in ("why", "who"):
            value = getattr(self, field)
            if not value.strip() or UNSTORABLE.search(value):
                raise CannotHold(f"{field}: is empty or cannot be stored; write it in words")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """A campaign that is held and not at its end."""

    event_id: UUID
    campaign: str | None
    state: str  # unapproved, paused or cancelled
    reason: str
    since: datetime
    resumed_at: datetime | None  # when its end began; None: it has not


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """How far an event is; counts are of its effects."""

    status: str
    planned: int
    sent: int
    open: int
    parked: int  # of the open ones
    suppressed: int
    failed: int
    unknown: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Standing:
    type: str
    status: str
    campaign: str | None
    state: str | None
    reason: str | None
    since: datetime | None
    resumed_at: datetime | None
    planned: bool


async def under_way(conn: AsyncConnection, campaign: str) -> list[UUID]:
    """Events of a campaign that are under way, due or held."""
    found = await conn.execute(_SQL["under way"], {"campaign": campaign})
    return [row[0] for row in await found.fetchall()]


async def later(conn: AsyncConnection, campaign: str) -> int:
    """How many of its events are not due yet, and not held either."""
    row = await (await conn.execute(_SQL["later"], {"campaign": campaign})).fetchone()
    assert row is not None
    return int(row[0])


async def pause(conn: AsyncConnection, event_id: UUID, why: str, who: str) -> bool:
    """Hold an event; False: it was paused already. Once this ends, no attempt of it starts.

    Raises:
        CannotHold: there is nothing to hold, or its pause is just ending.
    """
    said = Said(why=why, who=who)
    async with conn.transaction():
        one = await _locked(conn, event_id)
        _refuse_cancelled(event_id, one, Action.PAUSE)
        if one.status in {"COMPLETED", "FAILED"}:
            raise CannotHold(
                f"event {event_id} is {one.status}: nothing of it is left to pause; "
                f"`marketing-pipeline explain {event_id}` tells what was sent"
            )
        if one.resumed_at is not None:
            raise CannotHold(
                f"event {event_id} is being resumed: `marketing-pipeline campaign resume "
                f"{event_id}` ends that, and then it can be paused again"
            )
        if one.state == "paused":
            return False
        await _intervene(conn, event_id, Action.PAUSE, said)
    return True


async def cancel(conn: AsyncConnection, event_id: UUID, why: str, who: str) -> bool:
    """Hold an event for good; False: it was cancelled already. One without a plan FAILS.

    What waits is closed by `parking.close_some`.

    Raises:
        CannotHold: there is nothing to cancel.
    """
    said = Said(why=why, who=who)
    async with conn.transaction():
        one = await _locked(conn, event_id)
        if one.state == "cancelled":
            await give_up(conn, event_id)
            return False
        if one.status == "COMPLETED":
            raise CannotHold(
                f"event {event_id} is COMPLETED: nothing of it is left to cancel; "
                f"`marketing-pipeline explain {event_id}` tells what was sent"
            )
        await _intervene(conn, event_id, Action.CANCEL, said)
        await give_up(conn, event_id)
    return True


async def begin_resuming(conn: AsyncConnection, event_id: UUID, why: str, who: str) -> bool:
    """Fix how long the pause was; False: that was done before, and its end goes on.

    Raises:
        CannotHold: it is not paused, or was cancelled.
    """
    said = Said(why=why, who=who)
    async with conn.transaction():
        one = await _locked(conn, event_id)
        _refuse_unpaused(event_id, one)
        if one.resumed_at is not None:
            return False
        await conn.execute(_SQL["begin resuming"], {"event_id": event_id})
        await _keep(conn, event_id, Action.RESUME, said)
    return True


async def end_pause(conn: AsyncConnection, event_id: UUID) -> bool:
    """Let an event go on once all of it is put back; False: something is left to do before.

    Raises:
        CannotHold: it was cancelled meanwhile.
    """
    values = {"event_id": event_id, "patience": PATIENCE}
    async with conn.transaction():
        one = await _locked(conn, event_id)
        _refuse_cancelled(event_id, one, Action.RESUME)
        if one.state != "paused":
            return True  # somebody else resumed it, too, and was quicker
        if await (await conn.execute(_SQL["release"], values)).fetchone():
            return True
        await conn.execute(_SQL["pause on"], values)
    return False


async def resuming(conn: AsyncConnection, event_id: UUID) -> datetime | None:
    """When a paused event's end began; None: it has not.

    Raises:
        CannotHold: it is not paused, or was cancelled.
    """
    one = await _standing(conn, event_id)
    _refuse_unpaused(event_id, one)
    return one.resumed_at


async def give_up(conn: AsyncConnection, event_id: UUID) -> None:
    """Fail a cancelled event that has no plan."""
    await conn.execute(_SQL["give up"], {"event_id": event_id})


async def resumed(conn: AsyncConnection, events: Sequence[UUID]) -> dict[UUID, datetime]:
    """When these events were last let go on, those that were ever paused."""
    found = await conn.execute(_SQL["resumed"], {"ids": list(events)})
    return dict(await found.fetchall())


async def tally(conn: AsyncConnection, event_id: UUID) -> Tally:
    """How far an event is that there is."""
    async with conn.cursor(row_factory=class_row(Tally)) as cursor:
        await cursor.execute(_SQL["tally"], {"event_id": event_id})
        found = await cursor.fetchone()
    assert found is not None, "events are never deleted"
    return found


async def holds(conn: AsyncConnection) -> list[Hold]:
    """What is held and not at its end, longest first."""
    async with conn.cursor(row_factory=class_row(Hold)) as cursor:
        await cursor.execute(_SQL["holds"])
        return await cursor.fetchall()


async def campaign_of(conn: AsyncConnection, event_id: UUID) -> str | None:
    """The name of an event's campaign.

    Raises:
        CannotHold: there is no such event, or it is of another kind.
    """
    return (await _standing(conn, event_id)).campaign


async def _locked(conn: AsyncConnection, event_id: UUID) -> _Standing:
    await conn.execute(_SQL["lock"], {"event_id": event_id})
    return await _standing(conn, event_id)


async def _standing(conn: AsyncConnection, event_id: UUID) -> _Standing:
    async with conn.cursor(row_factory=class_row(_Standing)) as cursor:
        await cursor.execute(_SQL["standing"], {"event_id": event_id})
        one = await cursor.fetchone()
    if one is None:
        raise CannotHold(f"there is no event {event_id}; `marketing-pipeline status` lists holds")
    if one.type != EventType.CAMPAIGN_TRIGGER:
        raise CannotHold(
            f"event {event_id} is a {one.type}, and only a CAMPAIGN_TRIGGER can be held; "
            "`marketing-pipeline suppress` keeps a person from being reached"
        )
    return one


def _refuse_cancelled(event_id: UUID, one: _Standing, action: Action) -> None:
    if one.state == "cancelled":
        raise CannotHold(
            f"event {event_id} was cancelled ({one.reason}), which is final: there is nothing to "
            f"{action}; trigger the campaign anew"
        )


def _refuse_unpaused(event_id: UUID, one: _Standing) -> None:
    _refuse_cancelled(event_id, one, Action.RESUME)
    if one.state == "unapproved":
        raise CannotHold(
            f"event {event_id} is not paused, it waits for approval ({one.reason}): "
            "`marketing-pipeline plan` shows its plan, `marketing-pipeline approve` approves it"
        )
    if one.state != "paused":
        raise CannotHold(
            f"event {event_id} is not paused: nothing to resume; "
            f"`marketing-pipeline explain {event_id}` tells what it waits for"
        )


async def _intervene(conn: AsyncConnection, event_id: UUID, action: Action, said: Said) -> None:
    """Last in its transaction: claims wait from here to the commit."""
    await conn.execute(_SQL["take holds"])
    await conn.execute(_SQL[str(action)], {"event_id": event_id, "why": said.why.strip()})
    await _keep(conn, event_id, action, said)


async def _keep(conn: AsyncConnection, event_id: UUID, action: Action, said: Said) -> None:
    values: Mapping[str, Any] = {
        "event_id": event_id,
        "action": str(action),
        "why": said.why.strip(),
        "who": said.who.strip(),
    }
    await conn.execute(_SQL["keep"], values)
