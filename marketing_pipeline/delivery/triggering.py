"""Campaigns become due: each occurrence of a schedule is one event, whoever notices it."""

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from psycopg import AsyncConnection

from marketing_pipeline.domain import digest, event, occurrences, ticks
from marketing_pipeline.domain.event import EventType, NewEvent
from marketing_pipeline.domain.occurrences import Occurrence, Schedule
from marketing_pipeline.event_log import intake, triggers
from marketing_pipeline.event_log.intake import Recorded, Verdict

SOURCE = "schedule"  # also of what a person triggers: a moment's event is the same
LOOK_BACK = timedelta(days=7)  # what was missed is told for so long


@dataclass(frozen=True, slots=True, kw_only=True)
class ByHand:
    """Who triggered a campaign, and why."""

    who: str
    why: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """What a look at the clock did; oldest first."""

    recorded: tuple[Occurrence, ...]
    repeated: tuple[Occurrence, ...]  # in the log already: a person or another look was quicker
    missed: tuple[Occurrence, ...]  # of the last days, never to fire
    next: Occurrence | None


def event_id(campaign: str, instant: datetime) -> UUID:
    """Of the event that triggers the campaign at this instant, in the log or not."""
    return digest.identity("event", event.idempotency_key(SOURCE, _key(campaign, instant)))


async def trigger(
    conn: AsyncConnection,
    campaign: str,
    instant: datetime,
    now: datetime,
    by_hand: ByHand | None = None,
) -> Recorded:
    """Record that a campaign is due, to the second: ACCEPTED, or DUPLICATE where it is recorded.

    In a transaction of its own. Raises InvalidEvent: `instant` is out of the log's range.
    """
    async with conn.transaction():
        [told] = await intake.record(conn, [_event(campaign, instant, now, by_hand)], now)
    return _once(told)


async def tick(
    conn: AsyncConnection, campaign: str, schedule: Schedule, *, since: datetime, now: datetime
) -> Tick:
    """Record what has become due since `since`, the moment at which the schedule was switched on.

    The log alone says how far earlier looks came, so that no restart loses what is due or repeats
    it. What a person recorded says nothing of that: it may be of tomorrow, or of one of many that
    were missed. All is recorded in one transaction: a look is had or not.
    """
    looked, standing = await _looked_until(conn, campaign, schedule, since, now)
    due = ticks.due(schedule, looked, now)
    events = [_event(campaign, one.instant, now) for one in due.fire]
    async with conn.transaction():
        told = [_once(one).verdict for one in await intake.record(conn, events, now)]
    fired = list(zip(due.fire, told, strict=True))
    return Tick(
        recorded=tuple(one for one, verdict in fired if verdict is Verdict.ACCEPTED),
        repeated=tuple(one for one, verdict in fired if verdict is not Verdict.ACCEPTED),
        missed=tuple(one for one in due.missed if one.instant not in standing),
        next=occurrences.next_after(schedule, now),
    )


def latest_ids(campaign: str, schedule: Schedule, now: datetime) -> Sequence[UUID]:
    """The ids that the triggers of the last occurrences have, if there are such events."""
    found = list(occurrences.occurrences(schedule, now - LOOK_BACK, now))
    return [event_id(campaign, one.instant) for one in found[-10:]]


async def _looked_until(
    conn: AsyncConnection, campaign: str, schedule: Schedule, since: datetime, now: datetime
) -> tuple[datetime, Set[datetime]]:
    """Up to where occurrences have been decided, fired or given up; and those in the log anyway."""
    last = await triggers.last_look(conn, campaign, SOURCE, now)
    oldest = now - max(LOOK_BACK, schedule.missed.within, ticks.GRACE)
    start = max(since, oldest, last or oldest)
    open_ = {
        event_id(campaign, one.instant): one.instant
        for one in occurrences.occurrences(schedule, start, now)
    }
    recorded = await triggers.recorded(conn, list(open_))
    looks = [open_[one] for one, by_hand in recorded.items() if not by_hand]
    return max(looks, default=start), {open_[one] for one in recorded}


def _event(
    campaign: str, instant: datetime, now: datetime, by_hand: ByHand | None = None
) -> NewEvent:
    payload: dict[str, str] = {"campaign": campaign, "occurrence": _moment(instant)}
    if by_hand is not None:
        payload["who"] = by_hand.who
        if by_hand.why is not None:
            payload["why"] = by_hand.why
    return event.new(
        type=EventType.CAMPAIGN_TRIGGER,
        payload=payload,
        source=SOURCE,
        key=_key(campaign, instant),
        now=now,
        scheduled_at=instant.replace(microsecond=0),
    )


def _once(told: Recorded) -> Recorded:
    """Who recorded it is part of the event, so that the same moment by another is a conflict."""
    accepted = told.verdict is Verdict.ACCEPTED
    return told if accepted else replace(told, verdict=Verdict.DUPLICATE)


def _key(campaign: str, instant: datetime) -> str:
    utc = instant.astimezone(UTC)
    return occurrences.key(campaign, Occurrence(instant=utc, local=utc.replace(tzinfo=None)))


def _moment(instant: datetime) -> str:
    return f"{instant.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
