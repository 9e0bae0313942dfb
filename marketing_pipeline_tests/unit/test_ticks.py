"""What a look at the clock fires, what it gives up, and whether one comes in time."""

from datetime import UTC, datetime, timedelta
from zoneinfo import available_timezones

import pytest
from cronsim import CronSim
from hypothesis import given
from hypothesis import strategies as st

from marketing_pipeline.domain.occurrences import (
    Dst,
    Late,
    Missed,
    Occurrence,
    Schedule,
    occurrences,
)
from marketing_pipeline.domain.ticks import GRACE, due, wake_minutes

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)


def hourly(**missed: object) -> Schedule:
    return Schedule(cron="0 * * * *", timezone="UTC", missed=Missed(**missed))


def hours(found: tuple[Occurrence, ...]) -> list[int]:
    return [(each.instant - NOON) // HOUR for each in found]


def test_one_noticed_within_the_grace_fires_under_every_policy() -> None:
    for policy in Late:
        found = due(hourly(policy=policy), NOON - HOUR, NOON + GRACE)
        assert (hours(found.fire), hours(found.missed)) == ([0], [])


def test_one_noticed_after_the_grace_is_late() -> None:
    noticed = NOON + GRACE + SECOND
    dropped = due(hourly(policy=Late.DROP), NOON - HOUR, noticed)
    assert (hours(dropped.fire), hours(dropped.missed)) == ([], [0])
    for policy in (Late.CATCH_UP, Late.LATEST):
        found = due(hourly(policy=policy), NOON - HOUR, noticed)
        assert (hours(found.fire), hours(found.missed)) == ([0], [])


def test_catching_up_fires_the_newest_few_oldest_first_and_then_what_is_on_time() -> None:
    schedule = hourly(policy=Late.CATCH_UP, at_most=3)
    found = due(schedule, NOON - 6 * HOUR, NOON)
    assert (hours(found.fire), hours(found.missed)) == ([-3, -2, -1, 0], [-5, -4])


def test_catching_up_leaves_what_is_too_old() -> None:
    schedule = hourly(policy=Late.CATCH_UP, within=2 * HOUR)
    found = due(schedule, NOON - 6 * HOUR, NOON)
    assert (hours(found.fire), hours(found.missed)) == ([-2, -1, 0], [-5, -4, -3])


def test_the_latest_fires_alone_where_none_is_on_time() -> None:
    found = due(hourly(policy=Late.LATEST), NOON - 3 * HOUR, NOON + HOUR / 2)
    assert (hours(found.fire), hours(found.missed)) == ([0], [-2, -1])


def test_the_latest_is_given_up_for_one_on_time() -> None:
    found = due(hourly(policy=Late.LATEST), NOON - 3 * HOUR, NOON)
    assert (hours(found.fire), hours(found.missed)) == ([0], [-2, -1])


def test_the_latest_is_given_up_when_it_is_too_old() -> None:
    schedule = hourly(policy=Late.LATEST, within=HOUR / 4)
    found = due(schedule, NOON - 3 * HOUR, NOON + HOUR / 2)
    assert (hours(found.fire), hours(found.missed)) == ([], [-2, -1, 0])


def test_a_day_is_how_long_a_late_one_is_worth_firing_unless_it_says_otherwise() -> None:
    launch = Schedule(at=datetime.fromisoformat("2026-05-01T12:00"), timezone="UTC")
    assert due(launch, NOON - HOUR, NOON + 24 * HOUR).fire
    assert not due(launch, NOON - HOUR, NOON + 24 * HOUR + SECOND).fire


def test_a_clock_that_went_back_fires_nothing() -> None:
    found = due(hourly(policy=Late.CATCH_UP), NOON, NOON - 3 * HOUR)
    assert (found.fire, found.missed) == ((), ())


looks = st.lists(st.integers(1, 200_000), min_size=1, max_size=12)
policies = st.builds(
    Missed,
    policy=st.sampled_from(Late),
    within=st.integers(1, 48).map(lambda count: count * HOUR),
    at_most=st.integers(1, 5),
)
schedules = st.builds(
    Schedule,
    cron=st.sampled_from(["*/20 * * * *", "30 2 * * *", "0 */3 * * *"]),
    timezone=st.sampled_from(["Europe/Berlin", "Australia/Lord_Howe", "America/New_York"]),
    dst=st.sampled_from(Dst),
    missed=policies,
)


@given(schedule=schedules, pauses=looks, day=st.sampled_from([(3, 28), (10, 24), (4, 3), (10, 2)]))
def test_each_occurrence_is_fired_or_given_up_by_exactly_one_look(
    schedule: Schedule, pauses: list[int], day: tuple[int, int]
) -> None:
    first = since = datetime(2026, *day, 20, tzinfo=UTC)
    seen: list[Occurrence] = []
    for pause in pauses:
        now = since + pause * SECOND
        found = due(schedule, since, now)
        assert list(found.fire) == sorted(found.fire, key=lambda each: each.instant)
        seen += found.fire + found.missed
        since = now
    seen.sort(key=lambda each: each.instant)
    assert seen == list(occurrences(schedule, first, since))


@pytest.mark.parametrize(
    ("cron", "zone", "expected"),
    [
        ("0 9 * * *", "Europe/Berlin", "0 * * * *"),
        ("15,45 9 * * MON", "America/New_York", "15,45 * * * *"),
        ("0 9 * * *", "Australia/Lord_Howe", "0,30 * * * *"),
        ("0 9 * * *", "Asia/Kathmandu", "15 * * * *"),
        ("0 9 * * *", "Asia/Kolkata", "30 * * * *"),
        ("* 9 * * *", "Europe/Berlin", "* * * * *"),
    ],
)
def test_a_look_comes_at_the_minutes_at_which_the_zone_can_be(
    cron: str, zone: str, expected: str
) -> None:
    assert wake_minutes(Schedule(cron=cron, timezone=zone)) == expected


def test_a_moment_wakes_at_its_minute() -> None:
    launch = Schedule(at=datetime.fromisoformat("2026-07-01T09:10"), timezone="Asia/Kolkata")
    assert wake_minutes(launch) == "40 * * * *"


def unwoken(schedule: Schedule, wake: str) -> list[Occurrence]:
    """The occurrences of six years at which a cron in UTC does not fire."""
    waking = CronSim(wake, NOON).minutes
    found = occurrences(schedule, NOON, NOON + timedelta(days=6 * 365))
    return [each for each in found if each.instant.minute not in waking]


def test_no_occurrence_in_any_zone_goes_without_a_look() -> None:
    for zone in available_timezones():
        schedule = Schedule(cron="10 2 * * SUN", timezone=zone, dst=Dst.SHIFT)
        assert unwoken(schedule, wake_minutes(schedule)) == [], zone


def test_a_look_at_the_local_minute_would_come_too_late_somewhere() -> None:
    schedule = Schedule(cron="10 2 * * SUN", timezone="Australia/Lord_Howe")
    assert unwoken(schedule, "10 * * * *")
