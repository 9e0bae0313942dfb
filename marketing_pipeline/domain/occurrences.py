"""When a campaign is due: from a local wall time, once or by cron, to instants."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from difflib import get_close_matches
from enum import StrEnum
from heapq import heappop, heappush
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from cronsim import CronSim, CronSimError

# A cron that names no moment within a century names none: 29 February on a Monday is 40 years
# apart at most, across 2100.
HORIZON = timedelta(days=36525)
_EPOCH = datetime(2020, 1, 1, tzinfo=UTC)  # from where a cron's first moment is sought
_YEARS = range(1970, 2100)  # of `at`: what lies outside is a year written with two digits, or 20226
# No zone is set forward or back by more, nor twice within two of it.
_LONGEST_CHANGE = timedelta(days=1)
_FIELDS = (
    "minute (0-59), hour (0-23), day (1-31, one that its month has), month (1-12), "
    "weekday (0-7 or MON-SUN)"
)


class BadSchedule(ValueError):
    """This schedule can never work; says what is wrong and what to write instead."""


class Dst(StrEnum):
    """What a local time means that does not exist, or exists twice, because clocks are set."""

    SKIP = "skip"  # not there: it does not fire; there twice: at the first
    SHIFT = "shift"  # not there: later by what the clocks skip (RFC 5545); there twice: both times
    ONCE = "once"  # exactly one for each: shifted in the same way, or at the first


class Late(StrEnum):
    """What becomes of occurrences that nobody was there to notice in time."""

    CATCH_UP = "catch_up"  # the newest of them are made good, oldest first
    LATEST = "latest"  # only the newest is, and only where none is due right now
    DROP = "drop"  # none is


@dataclass(frozen=True, slots=True, kw_only=True)
class Missed:
    """Which late occurrences are still worth firing."""

    policy: Late = Late.LATEST
    within: timedelta = timedelta(hours=24)  # older ones never fire
    at_most: int = 10  # in one go; of catch_up

    def __post_init__(self) -> None:
        if self.within <= timedelta(0):
            raise BadSchedule("missed.within must be a positive duration, such as 24h")
        if self.at_most < 1:
            raise BadSchedule(
                f"missed.at_most is {self.at_most}: write 1 or more, or the policy drop"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Occurrence:
    """One moment at which a schedule fires."""

    instant: datetime  # in UTC
    local: datetime  # naive: the wall time that the schedule names, also where that does not exist


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A wall time in a zone: `at` once, or as often as `cron` says; one of the two.

    In `cron` a day must match both its day fields where one of them starts with a star, and
    otherwise either, as Debian's cron has it. Raises `BadSchedule`.
    """

    timezone: str  # an IANA name
    at: datetime | None = None  # naive
    cron: str | None = None  # minute, hour, day, month, weekday
    dst: Dst = Dst.ONCE
    missed: Missed = field(default_factory=Missed)

    def __post_init__(self) -> None:
        _refuse_zone(self.timezone)
        match self.at, self.cron:
            case None, str(cron):
                _refuse_cron(cron)
                if next_after(self, _EPOCH) is None:
                    raise BadSchedule(
                        f"cron {cron!r} never fires in {self.timezone} with dst: {self.dst}: "
                        "name a day that exists in its month, and a time that no clock skips"
                    )
            case datetime() as at, None:
                _refuse_at(at)
                if not _instants(at, _offsets(at, ZoneInfo(self.timezone)), self.dst):
                    raise BadSchedule(
                        f"at {at:%Y-%m-%dT%H:%M} does not exist in {self.timezone}, where clocks "
                        "skip it: write another time, or dst: once"
                    )
            case _:
                raise BadSchedule("a schedule has either `at` or `cron`: write one of them")


def occurrences(schedule: Schedule, after: datetime, until: datetime) -> Iterator[Occurrence]:
    """All with `after` < instant <= `until`, in order, at most one at an instant.

    Wall times in order are not instants in order: what is shifted out of a gap comes after what
    follows the gap. So each waits until no later wall time can come before it.
    """
    zone = ZoneInfo(schedule.timezone)
    waiting: list[tuple[datetime, datetime]] = []
    for local in _wall_times(schedule, _first_wall_time(after, zone), until):
        offsets = _offsets(local, zone)
        reached = (local - max(offsets)).replace(tzinfo=UTC)  # no later wall time comes before this
        yield from _ripe(waiting, reached)
        if reached > until:
            break
        for instant in _instants(local, offsets, schedule.dst):
            if after < instant <= until:
                heappush(waiting, (instant, local))
    yield from _ripe(waiting, datetime.max.replace(tzinfo=UTC))


def next_after(schedule: Schedule, now: datetime) -> Occurrence | None:
    """The first after `now`; None where there is none within a century."""
    return next(occurrences(schedule, now, now + HORIZON), None)


def key(campaign: str, occurrence: Occurrence) -> str:
    """What makes the occurrence's event the only one, whoever notices it, and however often."""
    return f"{campaign}/{occurrence.instant:%Y-%m-%dT%H:%M:%SZ}"


def minutes(schedule: Schedule) -> frozenset[int]:
    """The minutes of the local hour that the schedule names."""
    if schedule.at is not None:
        return frozenset({schedule.at.minute})
    return frozenset(_parsed(schedule).minutes)


def offset(moment: datetime) -> timedelta:
    """What an aware moment's zone adds to UTC."""
    found = moment.utcoffset()
    assert found is not None  # every IANA zone has one at all times
    return found


def _instants(
    local: datetime, offsets: tuple[timedelta, timedelta], dst: Dst
) -> tuple[datetime, ...]:
    """The instants in UTC at which the wall time `local` fires: none, one or two."""
    before, after = offsets
    first = (local - before).replace(tzinfo=UTC)
    if before < after and dst is Dst.SKIP:
        return ()
    if before > after and dst is Dst.SHIFT:
        return (first, (local - after).replace(tzinfo=UTC))
    return (first,)


def _offsets(local: datetime, zone: ZoneInfo) -> tuple[timedelta, timedelta]:
    """Before and after the change that makes `local` skipped or twofold; elsewhere the same twice.

    PEP 495: of a skipped time, too, fold=0 has the offset before the change.
    """
    return (
        offset(local.replace(tzinfo=zone, fold=0)),
        offset(local.replace(tzinfo=zone, fold=1)),
    )


def _first_wall_time(after: datetime, zone: ZoneInfo) -> datetime:
    """No wall time up to this one has an instant later than `after`.

    Near a change an instant's wall time can be one by the offset on the other side of it.
    """
    around = (after - _LONGEST_CHANGE, after + _LONGEST_CHANGE)
    least = min(offset(moment.astimezone(zone)) for moment in around)
    return after.astimezone(UTC).replace(tzinfo=None) + least


def _wall_times(schedule: Schedule, after: datetime, until: datetime) -> Iterator[datetime]:
    """The naive times that the schedule names, in order; a cron's from `after` to past `until`."""
    if schedule.at is not None:
        yield schedule.at
        return
    cron = _parsed(schedule)
    times = [time(hour, minute) for hour in sorted(cron.hours) for minute in sorted(cron.minutes)]
    last = until.astimezone(UTC).date() + 2 * _LONGEST_CHANGE  # offsets are below a day
    for day in _days(after.date(), last):
        if day.month in cron.months and cron.match_day(day):
            for at in times:
                if (local := datetime.combine(day, at)) > after:
                    yield local


def _days(first: date, last: date) -> Iterator[date]:
    return map(date.fromordinal, range(first.toordinal(), last.toordinal() + 1))


def _ripe(waiting: list[tuple[datetime, datetime]], before: datetime) -> Iterator[Occurrence]:
    """Take what is earlier than `before` from the heap, one for each instant.

    Of several it is the last: the one whose wall time exists, not one shifted onto it.
    """
    while waiting and waiting[0][0] < before:
        instant, local = heappop(waiting)
        if not waiting or waiting[0][0] != instant:
            yield Occurrence(instant=instant, local=local)


def _parsed(schedule: Schedule) -> CronSim:
    assert schedule.cron is not None
    return CronSim(schedule.cron, _EPOCH)


def _refuse_zone(name: str) -> None:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:  # OSError: the name of a folder
        near = get_close_matches(name, available_timezones(), n=1) or ["Europe/Berlin"]
        raise BadSchedule(
            f"timezone {name!r} is unknown: write an IANA name, such as {near[0]}"
        ) from error


def _refuse_cron(cron: str) -> None:
    if (count := len(cron.split())) != 5:
        raise BadSchedule(f"cron {cron!r} has {count} fields: write five, {_FIELDS}")
    try:
        CronSim(cron, _EPOCH)
    except CronSimError as error:
        problem = str(error).lower()
        raise BadSchedule(f"cron {cron!r} has a {problem}: write {_FIELDS}") from error


def _refuse_at(at: datetime) -> None:
    if at.tzinfo is not None:
        raise BadSchedule(
            f"at {at.isoformat()} has an offset: write the local time alone; "
            "`timezone` says whose it is"
        )
    if at.second or at.microsecond:
        raise BadSchedule(f"at {at.isoformat()} has seconds: write a whole minute")
    if at.year not in _YEARS:
        raise BadSchedule(f"at {at.isoformat()} is in no year of 1970-2099: write its four digits")
