"""Carries out what people do to campaigns: pausing, resuming and cancelling, to their end.

A large campaign takes a while, and whoever does it may die at any point: nothing of it goes
meanwhile, and the same command goes on where it stopped.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import assert_never
from uuid import UUID

from psycopg import AsyncConnection

from marketing_pipeline.campaigns import meaning
from marketing_pipeline.delivery import settling, writing_out
from marketing_pipeline.event_log import holding, parking, versions
from marketing_pipeline.event_log.holding import Action, CannotHold, Said, Tally

Told = Callable[[int], None]  # so many effects more have been moved
_ELSEWHERE = 0.2  # seconds until a plan that another process writes out is looked at again
_FIRST = UUID(int=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Controlled:
    """What became of one event."""

    event_id: UUID
    campaign: str | None
    again: bool  # this had been done before: it was only brought to its end
    refused: str | None  # why nothing was done; None: it was
    tally: Tally


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What became of a campaign."""

    action: Action
    events: Sequence[Controlled]
    later: int  # events of this campaign that are not due yet, and were left alone


async def control(
    conn: AsyncConnection, action: Action, what: str, said: Said, told: Told
) -> Report:
    """Pause, resume or cancel one event, or all of a campaign that are under way, due or held.

    Events that are not due yet are left alone where the campaign is named: the next issue of a
    newsletter must not be lost because this one had a fault. `conn` is in autocommit mode.

    Raises:
        CannotHold: nothing of it can be; says why. Of several events some may be refused.
    """
    events, later = await _named(conn, what)
    begun = [await _begun(conn, action, one, said) for one in events]
    if all(isinstance(one, CannotHold) for one in begun):
        raise CannotHold("; ".join(map(str, begun)))
    done = []
    for event_id, outcome in zip(events, begun, strict=True):
        if not isinstance(outcome, CannotHold):
            await _carry_out(conn, action, event_id, said, told)
        done.append(
            Controlled(
                event_id=event_id,
                campaign=await holding.campaign_of(conn, event_id),
                again=outcome is False,
                refused=str(outcome) if isinstance(outcome, CannotHold) else None,
                tally=await holding.tally(conn, event_id),
            )
        )
    return Report(action=action, events=done, later=later)


async def tend(conn: AsyncConnection, now: datetime) -> int:
    """One bounded piece of what others left to do for a held event: how many effects it moved.

    So what was paused by a process that is gone is out of the way all the same, and what a call
    that was under way left of a cancelled event is closed.
    """
    found = await parking.to_tend(conn)
    if found is None:
        return 0
    event_id, state = found
    if state == "paused":
        return await parking.park_some(conn, event_id)
    await holding.give_up(conn, event_id)
    closed = await parking.close_some(conn, event_id)
    await settling.finish(conn, [event_id], now)
    return closed


async def _named(conn: AsyncConnection, what: str) -> tuple[list[UUID], int]:
    try:
        return [UUID(what)], 0
    except ValueError:
        events, later = await holding.under_way(conn, what), await holding.later(conn, what)
    if not events:
        known = f"{later} of it are due later: name one by its id" if later else "see `status`"
        raise CannotHold(f"no event of a campaign {what!r} is under way, due or held; {known}")
    return events, later


async def _begun(
    conn: AsyncConnection, action: Action, event_id: UUID, said: Said
) -> bool | CannotHold:
    """Whether this is new; from here on nothing of it goes. What is refused is told, not raised:
    one event of several may have ended just now."""
    try:
        match action:
            case Action.PAUSE:
                return await holding.pause(conn, event_id, said.why, said.who)
            case Action.CANCEL:
                return await holding.cancel(conn, event_id, said.why, said.who)
            case Action.RESUME:
                return await holding.resuming(conn, event_id) is None
            case _:
                assert_never(action)
    except CannotHold as refused:
        return refused


async def _carry_out(
    conn: AsyncConnection, action: Action, event_id: UUID, said: Said, told: Told
) -> None:
    match action:
        case Action.PAUSE:
            await _all_parked(conn, event_id, told)
        case Action.RESUME:
            await _resume(conn, event_id, said, told)
        case Action.CANCEL:
            await _close(conn, event_id, told)
        case _:
            assert_never(action)


async def _resume(conn: AsyncConnection, event_id: UUID, said: Said, told: Told) -> None:
    """Everything is written, parked, put back by the length of the pause, and then let go.

    What is parked is what has not been put back yet, so nothing is moved twice. Before the length
    is fixed all is parked; afterwards nothing is.
    """
    await _write_rest(conn, event_id)
    ended = False
    while not ended:
        await _all_parked(conn, event_id, told)
        await holding.begin_resuming(conn, event_id, said.why, said.who)
        after: UUID | None = _FIRST
        while after is not None:
            after, moved = await parking.unpark_some(conn, event_id, after)
            told(moved)
        ended = await holding.end_pause(conn, event_id)


async def _close(conn: AsyncConnection, event_id: UUID, told: Told) -> None:
    """The rest of the plan is written first: what was promised is accounted for."""
    await _write_rest(conn, event_id)
    while closed := await parking.close_some(conn, event_id):
        told(closed)
    await settling.finish(conn, [event_id], datetime.now(UTC))


async def _all_parked(conn: AsyncConnection, event_id: UUID, told: Told) -> None:
    while parked := await parking.park_some(conn, event_id):
        told(parked)


async def _write_rest(conn: AsyncConnection, event_id: UUID) -> None:
    while (unfinished := await parking.unfinished_plan(conn, event_id)) is not None:
        used = meaning.of(await versions.config(conn, unfinished.config_digest)).rules
        now = datetime.now(UTC)
        if not await writing_out.write_out(conn, unfinished, used, now, asyncio.Event()):
            await asyncio.sleep(_ELSEWHERE)
