"""What a look at the clock fires, and when to look."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import assert_never
from zoneinfo import ZoneInfo

from marketing_pipeline.domain import occurrences
from marketing_pipeline.domain.occurrences import Late, Missed, Occurrence, Schedule

GRACE = timedelta(minutes=5)  # noticed no later than this, an occurrence is on time
_FROM = datetime(2020, 1, 1, tzinfo=UTC)
_WEEKS = 31 * 53  # to the end of 2050; no zone keeps an offset for less than one


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """The occurrences that a look found, each in one of the two, oldest first."""

    fire: tuple[Occurrence, ...]
    missed: tuple[Occurrence, ...]  # never to fire: shown to the operator


def due(schedule: Schedule, since: datetime, now: datetime) -> Due:
    """What to do about the occurrences after `since` and up to `now`.

    Where `since` is the `now` of the look before, each occurrence is found by exactly one look.
    """
    found = tuple(occurrences.occurrences(schedule, since, now))
    late = tuple(each for each in found if now - each.instant > GRACE)
    on_time = found[len(late) :]
    made_good = _made_good(schedule.missed, late, now, busy=bool(on_time))
    return Due(fire=made_good + on_time, missed=late[: len(late) - len(made_good)])


def wake_minutes(schedule: Schedule) -> str:
    """A cron in UTC that fires, perhaps among others, at every occurrence up to 2050.

    Hours are left open: they move with the clocks. Minutes do so only in a few zones, such as
    Lord Howe's, which is set by half an hour.
    """
    zone = ZoneInfo(schedule.timezone)
    offsets = {
        occurrences.offset((_FROM + timedelta(weeks=week)).astimezone(zone))
        for week in range(_WEEKS)
    }
    shifts = {offset // timedelta(minutes=1) for offset in offsets}
    named = occurrences.minutes(schedule)
    waking = sorted({(minute - shift) % 60 for minute in named for shift in shifts})
    return f"{'*' if len(waking) == 60 else ','.join(map(str, waking))} * * * *"


def _made_good(
    missed: Missed, late: tuple[Occurrence, ...], now: datetime, *, busy: bool
) -> tuple[Occurrence, ...]:
    """The late ones that fire all the same: always the newest of them.

    `busy`: one that is on time fires in the same call.
    """
    fresh = tuple(each for each in late if now - each.instant <= missed.within)
    match missed.policy:
        case Late.CATCH_UP:
            return fresh[-missed.at_most :]
        case Late.LATEST:
            return () if busy else fresh[-1:]
        case Late.DROP:
            return ()
        case _:
            assert_never(missed.policy)
