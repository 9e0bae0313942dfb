"""Schedules as people read them, and the ids of what they fire."""

from datetime import UTC, datetime, timedelta

import pytest

from marketing_pipeline.delivery import timetable, triggering
from marketing_pipeline.domain.occurrences import Dst, Late, Missed, Schedule

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


def test_an_instant_has_one_id_in_every_zone() -> None:
    berlin = datetime.fromisoformat("2026-03-02T13:00:00+01:00")
    assert triggering.event_id("news", berlin) == triggering.event_id("news", NOON)


def test_a_cron_is_told_in_words_by_the_clocks_there() -> None:
    schedule = Schedule(timezone="Europe/Berlin", cron="0 9 * * 1")
    assert timetable.in_words(schedule) == "At 09:00 on Monday, Europe/Berlin (0 9 * * 1)"


def test_a_time_of_its_own_is_told_as_it_is_written() -> None:
    once = Schedule(timezone="Asia/Tokyo", at=datetime.fromisoformat("2026-12-01T09:00"))
    assert timetable.in_words(once) == "once at 2026-12-01 09:00, Asia/Tokyo"


@pytest.mark.parametrize(
    ("missed", "told"),
    [
        (Missed(), "the newest is made good for 1d (latest)"),
        (Missed(policy=Late.DROP), "What was missed is not made good (drop)"),
        (
            Missed(policy=Late.CATCH_UP, at_most=3, within=timedelta(minutes=90)),
            "up to 3 are made good for 90m (catch_up)",
        ),
        (Missed(within=timedelta(seconds=90.5)), "for 90.5s"),
    ],
)
def test_what_becomes_of_missed_ones_is_told(missed: Missed, told: str) -> None:
    schedule = Schedule(timezone="UTC", cron="0 9 * * 1", missed=missed)
    assert told in timetable.rules(schedule)


def test_each_rule_for_days_that_clocks_are_set_is_told_differently() -> None:
    told = {timetable.rules(Schedule(timezone="UTC", cron="0 9 * * 1", dst=dst)) for dst in Dst}
    assert len(told) == len(Dst)


def test_a_moment_is_told_in_both_times() -> None:
    assert timetable.moment(NOON, "Europe/Berlin") == "2026-03-02 13:00 Europe/Berlin (12:00 UTC)"
    late = NOON.replace(hour=23, minute=30)
    assert timetable.moment(late, "Europe/Berlin") == (
        "2026-03-03 00:30 Europe/Berlin (2026-03-02 23:30 UTC)"
    )
