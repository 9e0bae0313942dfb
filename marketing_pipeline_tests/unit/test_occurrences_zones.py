"""Every IANA zone and twenty years of its changes, against a count of minutes.

The oracle knows no rule of summer time and no `fold`: it turns each minute of UTC around a change
into wall time, and looks how often the wall showed the time that a cron names.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo, available_timezones

import pytest
from cronsim import CronSim

from marketing_pipeline.domain.occurrences import Dst, Schedule, occurrences

START, END = datetime(2008, 1, 1, tzinfo=UTC), datetime(2028, 1, 1, tzinfo=UTC)
QUIET = datetime(2019, 6, 4, 12, tzinfo=UTC)  # looked at in zones, too, that have no change at all
MINUTE = timedelta(minutes=1)
QUARTER = timedelta(minutes=15)
HOUR = timedelta(hours=1)
STEP = timedelta(days=1)  # no zone keeps an offset for less
GRID = tuple(START + STEP * n for n in range((END - START) // STEP + 1))

Walls = dict[datetime, list[datetime]]
Fired = list[tuple[datetime, datetime]]  # instant, wall time that the schedule names
Fires = Callable[[str, str, Dst, datetime, datetime], Fired]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """The first instant of a new offset."""

    at: datetime
    before: timedelta
    after: timedelta

    @property
    def size(self) -> timedelta:
        return abs(self.after - self.before)

    def touched(self) -> tuple[datetime, datetime]:
        """The wall times from, inclusive, and to, exclusive, that are skipped or repeated."""
        at = self.at.replace(tzinfo=None)
        low, high = sorted((self.before, self.after))
        return at + low, at + high

    def beside(self) -> Iterator[datetime]:
        """Wall times before, inside and after the change."""
        low, high = self.touched()
        middle = low + (high - low) // MINUTE // 2 * MINUTE
        yield from {low - HOUR, low - MINUTE, low, middle, high - MINUTE, high, high + HOUR}


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """What all zones with the same changes show."""

    names: list[str]
    changes: tuple[Change, ...]


def shown_offset(moment: datetime, zone: ZoneInfo) -> timedelta:
    return moment.astimezone(zone).replace(tzinfo=None) - moment.replace(tzinfo=None)


def changes_of(zone: ZoneInfo) -> Iterator[Change]:
    offsets = [shown_offset(moment, zone) for moment in GRID]
    for (early, late), (before, after) in zip(pairwise(GRID), pairwise(offsets), strict=True):
        if before != after:
            low, high = 0, STEP // MINUTE
            while high - low > 1:
                middle = (low + high) // 2
                if shown_offset(early + middle * MINUTE, zone) == before:
                    low = middle
                else:
                    high = middle
            assert early + high * MINUTE <= late
            yield Change(at=early + high * MINUTE, before=before, after=after)


@pytest.fixture(scope="module")
def clocks() -> list[Clock]:
    names = defaultdict(list)
    for name in sorted(available_timezones()):
        zone = ZoneInfo(name)
        names[shown_offset(START, zone), tuple(changes_of(zone))].append(name)
    return [Clock(names=found, changes=changes) for (_, changes), found in names.items()]


def walls_around(change: Change, zone: ZoneInfo) -> Walls:
    """At which minutes of UTC each wall time is shown, well beyond the change on both sides."""
    walls = defaultdict(list)
    reach = (change.size + 4 * HOUR) // MINUTE
    for minute in range(-reach, reach):
        moment = change.at + minute * MINUTE
        walls[moment.astimezone(zone).replace(tzinfo=None)].append(moment)
    return dict(walls)


def expected(wall: datetime, dst: Dst, walls: Walls) -> list[datetime]:
    """The table of policies, row by row."""
    shown = walls.get(wall, [])
    if shown:
        return shown if dst is Dst.SHIFT else shown[:1]
    if dst is Dst.SKIP:
        return []
    first = last = wall
    while first - MINUTE not in walls:
        first -= MINUTE
    while last + MINUTE not in walls:
        last += MINUTE
    return walls[wall + (last - first) + MINUTE]  # later by as many minutes as were never shown


def expected_quarters(dst: Dst, walls: Walls) -> Fired:
    named: dict[datetime, datetime] = {}
    wall = min(walls).replace(minute=0)
    while wall <= max(walls):
        if wall >= min(walls):
            named |= dict.fromkeys(expected(wall, dst, walls), wall)
        wall += QUARTER
    return sorted(named.items())


def disagreements(clock: Clock, fires: Fires, policies: tuple[Dst, ...]) -> Iterator[str]:
    name = clock.names[0]
    zone = ZoneInfo(name)
    calm = shown_offset(QUIET, zone)
    for change in (Change(at=QUIET, before=calm, after=calm), *clock.changes):
        walls = walls_around(change, zone)
        for dst in policies:
            for cron, window, should in questions(change, dst, walls):
                if (does := fires(cron, name, dst, *window)) != should:
                    yield f"{name} {dst} {cron} in {window}: {does} instead of {should}"


def questions(
    change: Change, dst: Dst, walls: Walls
) -> Iterator[tuple[str, tuple[datetime, datetime], Fired]]:
    """A cron, after when and until when to ask for it, and the right answer."""
    start, end = change.at - change.size - 2 * HOUR, change.at + change.size + 2 * HOUR
    for wall in change.beside():
        cron = f"{wall.minute} {wall.hour} {wall.day} {wall.month} *"
        yield cron, (start, end), [(instant, wall) for instant in expected(wall, dst, walls)]
    quarters = expected_quarters(dst, walls)
    half = change.size / 2
    cuts = (start, change.at - half, change.at, change.at + half, change.at + change.size, end)
    for window in {(start, end), *pairwise(cuts)}:
        fired = [each for each in quarters if window[0] < each[0] <= window[1]]
        yield "*/15 * * * *", window, fired


def ours(cron: str, timezone: str, dst: Dst, after: datetime, until: datetime) -> Fired:
    schedule = Schedule(cron=cron, timezone=timezone, dst=dst)
    return [(each.instant, each.local) for each in occurrences(schedule, after, until)]


def naive(cron: str, timezone: str, _dst: Dst, after: datetime, until: datetime) -> Fired:
    """What is written first: wall times with the zone stuck on."""
    zone = ZoneInfo(timezone)
    walls = CronSim(cron, after.astimezone(zone).replace(tzinfo=None))
    last = until.astimezone(zone).replace(tzinfo=None)
    found = []
    while (wall := next(walls)) <= last:
        found.append((wall.replace(tzinfo=zone).astimezone(UTC), wall))
    return found


def borrowed(cron: str, timezone: str, _dst: Dst, after: datetime, until: datetime) -> Fired:
    """What the library does with an aware time: Debian's rules, whatever the policy."""
    walls = CronSim(cron, after.astimezone(ZoneInfo(timezone)))
    found = []
    while (wall := next(walls)).astimezone(UTC) <= until:
        found.append((wall.astimezone(UTC), wall.replace(tzinfo=None)))
    return found


def test_the_oracle_looks_at_every_zone_and_at_all_kinds_of_changes(clocks: list[Clock]) -> None:
    named = [name for clock in clocks for name in clock.names]
    assert len(named) == len(set(named))
    assert set(named) == available_timezones()
    by_name = {name: clock.changes for clock in clocks for name in clock.names}
    assert len(by_name["Europe/Berlin"]) == len(by_name["America/New_York"]) == 40
    assert {change.size for change in by_name["Australia/Lord_Howe"]} == {HOUR / 2}
    assert max(change.size for change in by_name["Pacific/Apia"]) == 24 * HOUR
    assert by_name["Asia/Kathmandu"] == ()
    midnights = [change.touched()[0].hour == 0 for change in by_name["America/Sao_Paulo"]]
    assert any(midnights)


def test_in_every_zone_each_policy_fires_as_often_and_when_its_table_says(
    clocks: list[Clock],
) -> None:
    found = [text for clock in clocks for text in disagreements(clock, ours, tuple(Dst))]
    assert found == []


@pytest.mark.parametrize("dst", Dst)
@pytest.mark.parametrize("fires", [naive, borrowed])
def test_a_schedule_without_policies_does_not_pass(
    clocks: list[Clock], fires: Fires, dst: Dst
) -> None:
    berlin = next(clock for clock in clocks if "Europe/Berlin" in clock.names)
    assert list(disagreements(berlin, fires, (dst,)))
