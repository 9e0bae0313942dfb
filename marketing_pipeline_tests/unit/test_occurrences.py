"""When campaigns are due, by name: the zones and days that break schedules."""

from datetime import UTC, datetime, timedelta
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketing_pipeline.domain import occurrences
from marketing_pipeline.domain.occurrences import BadSchedule, Dst, Missed, Occurrence, Schedule

MINUTE = timedelta(minutes=1)


local = datetime.fromisoformat  # naive where the text names no offset


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def fired(schedule: Schedule, after: str, until: str) -> list[str]:
    found = occurrences.occurrences(schedule, utc(after), utc(until))
    return [f"{each.local:%d %H:%M} = {each.instant:%d %H:%M}Z" for each in found]


@pytest.mark.parametrize(
    ("zone", "cron", "day", "skip", "shift", "once"),
    [
        # 02:00 becomes 03:00, and 03:00 becomes 02:00
        ("Europe/Berlin", "30 2 * * *", "2026-03-29", [], ["01:30"], ["01:30"]),
        ("Europe/Berlin", "30 2 * * *", "2026-10-25", ["00:30"], ["00:30", "01:30"], ["00:30"]),
        ("America/New_York", "30 2 * * *", "2026-03-08", [], ["07:30"], ["07:30"]),
        ("America/New_York", "30 1 * * *", "2026-11-01", ["05:30"], ["05:30", "06:30"], ["05:30"]),
        # winter time is the exception there, one hour less than the standard
        ("Europe/Dublin", "30 1 * * *", "2026-03-29", [], ["01:30"], ["01:30"]),
        ("Europe/Dublin", "30 1 * * *", "2026-10-25", ["00:30"], ["00:30", "01:30"], ["00:30"]),
        # half an hour: 02:00 becomes 02:30, and 02:00 becomes 01:30
        ("Australia/Lord_Howe", "10 2 4 10 *", "2026-10-03", [], ["15:40"], ["15:40"]),
        (
            "Australia/Lord_Howe",
            "40 1 5 4 *",
            "2026-04-04",
            ["14:40"],
            ["14:40", "15:10"],
            ["14:40"],
        ),
        # there is no midnight
        ("America/Sao_Paulo", "0 0 4 11 *", "2018-11-04", [], ["03:00"], ["03:00"]),
        ("Asia/Beirut", "0 0 29 3 *", "2026-03-28", [], ["22:00"], ["22:00"]),
        # there is no 30 December
        ("Pacific/Apia", "0 9 30 12 *", "2011-12-30", [], ["19:00"], ["19:00"]),
        # neither whole hours nor summer time
        ("Asia/Kathmandu", "0 9 * * *", "2026-03-29", ["03:15"], ["03:15"], ["03:15"]),
        ("Asia/Kolkata", "0 9 * * *", "2026-03-29", ["03:30"], ["03:30"], ["03:30"]),
    ],
)
def test_a_policy_says_what_a_skipped_or_repeated_time_means(
    zone: str, cron: str, day: str, skip: list[str], shift: list[str], once: list[str]
) -> None:
    start = utc(day)
    for dst, expected in ((Dst.SKIP, skip), (Dst.SHIFT, shift), (Dst.ONCE, once)):
        schedule = Schedule(cron=cron, timezone=zone, dst=dst)
        found = occurrences.occurrences(schedule, start - MINUTE, start + timedelta(hours=23.5))
        assert [f"{each.instant:%H:%M}" for each in found] == expected, dst


def test_a_daily_campaign_keeps_its_local_hour_across_both_changes() -> None:
    daily = Schedule(cron="0 9 * * *", timezone="Europe/Berlin")
    assert fired(daily, "2026-03-28", "2026-03-30") == [
        "28 09:00 = 28 08:00Z",
        "29 09:00 = 29 07:00Z",
    ]
    assert fired(daily, "2026-10-24", "2026-10-26") == [
        "24 09:00 = 24 07:00Z",
        "25 09:00 = 25 08:00Z",
    ]


def test_a_day_that_a_country_leaves_out_fires_a_daily_campaign_once_the_day_after() -> None:
    daily = Schedule(cron="0 9 * * *", timezone="Pacific/Apia")
    assert fired(daily, "2011-12-29", "2012-01-01") == [
        "29 09:00 = 29 19:00Z",
        "31 09:00 = 30 19:00Z",  # 30 December's, too
        "01 09:00 = 31 19:00Z",
    ]
    skipping = Schedule(cron="0 9 30,31 12 *", timezone="Pacific/Apia", dst=Dst.SKIP)
    assert fired(skipping, "2011-12-29", "2012-01-01") == ["31 09:00 = 30 19:00Z"]


def test_a_shifted_time_that_falls_on_another_fires_once_and_shows_the_one_that_exists() -> None:
    hourly = Schedule(cron="30 2,3 * * *", timezone="Europe/Berlin", dst=Dst.SHIFT)
    assert fired(hourly, "2026-03-29T00:00", "2026-03-29T12:00") == ["29 03:30 = 29 01:30Z"]


def test_times_in_a_gap_come_in_order_among_those_after_it() -> None:
    often = Schedule(cron="*/20 1-3 * * *", timezone="Europe/Berlin")
    assert fired(often, "2026-03-29T00:30", "2026-03-29T01:45") == [
        "29 01:40 = 29 00:40Z",
        "29 03:00 = 29 01:00Z",
        "29 03:20 = 29 01:20Z",
        "29 03:40 = 29 01:40Z",
    ]
    apart = Schedule(cron="20,50 2,3 * * *", timezone="Europe/Berlin", dst=Dst.SKIP)
    assert fired(apart, "2026-03-29T00:30", "2026-03-29T03:00") == [
        "29 03:20 = 29 01:20Z",
        "29 03:50 = 29 01:50Z",
    ]


def test_what_was_shifted_is_found_also_when_asked_for_after_the_change() -> None:
    nightly = Schedule(cron="30 2 * * *", timezone="Europe/Berlin")
    assert fired(nightly, "2026-03-29T01:29", "2026-03-29T02:00") == ["29 02:30 = 29 01:30Z"]
    assert fired(nightly, "2026-03-29T01:30", "2026-03-29T02:00") == []
    yearly = Schedule(cron="0 23 30 12 *", timezone="Pacific/Apia")
    assert fired(yearly, "2011-12-31T08:59", "2012-01-01") == ["30 23:00 = 31 09:00Z"]


@pytest.mark.parametrize("dst", Dst)
def test_a_moment_fires_once_at_its_local_time(dst: Dst) -> None:
    launch = Schedule(at=local("2026-07-01T09:30"), timezone="America/New_York", dst=dst)
    assert fired(launch, "2026-01-01", "2027-01-01") == ["01 09:30 = 01 13:30Z"]
    assert fired(launch, "2026-07-01T13:29", "2026-07-01T13:30") == ["01 09:30 = 01 13:30Z"]
    assert fired(launch, "2026-07-01T13:30", "2027-01-01") == []


def test_a_moment_that_exists_twice_fires_as_its_policy_says() -> None:
    twice = local("2026-10-25T02:30")
    shift = Schedule(at=twice, timezone="Europe/Berlin", dst=Dst.SHIFT)
    assert fired(shift, "2026-10-01", "2026-11-01") == [
        "25 02:30 = 25 00:30Z",
        "25 02:30 = 25 01:30Z",
    ]
    once = Schedule(at=twice, timezone="Europe/Berlin")
    assert fired(once, "2026-10-01", "2026-11-01") == ["25 02:30 = 25 00:30Z"]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"cron": "0 9 * *"}, "has 4 fields: write five"),
        ({"cron": "0 0 9 * * *"}, "has 6 fields: write five"),
        ({"cron": "@daily"}, "has 1 fields: write five"),
        ({"cron": "0 25 * * *"}, "has a bad hour: write minute"),
        ({"cron": "0 9 * * FOO"}, "has a bad day-of-week"),
        ({"cron": "0 9 30 2 *"}, "has a bad day-of-month"),
        ({"cron": "30 2 * 3 7L", "dst": Dst.SKIP}, "never fires in Europe/Berlin with dst: skip"),
        ({"cron": "0 9 * * *", "timezone": "Europe/Belin"}, "such as Europe/Berlin"),
        ({"cron": "0 9 * * *", "timezone": "Europe"}, "'Europe' is unknown"),
        ({"cron": "0 9 * * *", "timezone": "../etc"}, "is unknown: write an IANA name"),
        ({"cron": "0 9 * * *", "timezone": ""}, "'' is unknown"),
        ({}, "either `at` or `cron`"),
        ({"cron": "0 9 * * *", "at": local("2026-07-01")}, "either `at` or `cron`"),
        ({"at": local("2026-07-01T09:00+02:00")}, "has an offset"),
        ({"at": local("2026-07-01T09:00:30")}, "write a whole minute"),
        ({"at": local("0026-07-01")}, "write its four digits"),
        ({"at": local("2026-03-29T02:30"), "dst": Dst.SKIP}, "does not exist in Europe/Berlin"),
    ],
)
def test_a_schedule_that_cannot_work_says_what_to_write(
    wrong: dict[str, object], says: str
) -> None:
    with pytest.raises(BadSchedule) as caught:
        Schedule(**({"timezone": "Europe/Berlin"} | wrong))
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [({"within": timedelta(0)}, "missed.within"), ({"at_most": 0}, "missed.at_most is 0")],
)
def test_a_policy_for_late_ones_that_cannot_work_says_what_to_write(
    wrong: dict[str, object], says: str
) -> None:
    with pytest.raises(BadSchedule, match=says):
        Missed(**wrong)


def test_the_next_one_is_found_however_rare() -> None:
    leap = Schedule(cron="0 9 * 2 MON#5", timezone="Europe/Berlin")
    found = occurrences.next_after(leap, utc("2026-01-01"))
    assert found == Occurrence(instant=utc("2044-02-29T08:00"), local=local("2044-02-29T09:00"))
    past = Schedule(at=local("2020-01-01"), timezone="Europe/Berlin")
    assert occurrences.next_after(past, utc("2026-01-01")) is None


def test_the_key_is_the_campaign_and_the_instant_in_utc() -> None:
    due = Occurrence(instant=utc("2026-03-29T01:30"), local=local("2026-03-29T02:30"))
    assert occurrences.key("news", due) == "news/2026-03-29T01:30:00Z"


def test_twenty_years_of_a_daily_campaign_take_well_below_100_ms() -> None:
    daily = Schedule(cron="0 9 * * *", timezone="Europe/Berlin")
    started = process_time()
    count = sum(1 for _ in occurrences.occurrences(daily, utc("2008-01-01"), utc("2028-01-01")))
    assert count == 7305
    assert process_time() - started < 0.1


# Where clocks are set by an hour, half an hour or a day, and where they are not.
ZONES = ("Europe/Berlin", "Australia/Lord_Howe", "Pacific/Apia", "Asia/Kathmandu", "Asia/Beirut")
CHANGES = tuple(map(utc, ("2011-12-30T10:00", "2026-03-29T01:00", "2026-10-25T01:00",
                          "2026-04-04T15:00", "2026-10-03T15:30", "2026-03-28T22:00")))  # fmt: skip
CRONS = ("*/15 * * * *", "0 */3 * * *", "30 0-3 * * *", "10 2 * * *", "40 1,14 29-31 * *")
schedules = st.builds(
    Schedule, timezone=st.sampled_from(ZONES), cron=st.sampled_from(CRONS), dst=st.sampled_from(Dst)
)
instants = st.builds(
    lambda change, seconds: change + timedelta(seconds=seconds),
    st.sampled_from(CHANGES),
    st.integers(-100_000, 100_000) | st.integers(-120, 120).map(lambda minutes: 60 * minutes),
)


@given(schedule=schedules, after=instants, length=st.integers(0, 300_000), share=st.floats(0, 1))
def test_a_span_may_be_cut_at_any_instant(
    schedule: Schedule, after: datetime, length: int, share: float
) -> None:
    until = after + timedelta(seconds=length)
    cut = after + timedelta(seconds=int(length * share))
    whole = list(occurrences.occurrences(schedule, after, until))
    parts = [
        *occurrences.occurrences(schedule, after, cut),
        *occurrences.occurrences(schedule, cut, until),
    ]
    assert parts == whole
    found = [each.instant for each in whole]
    assert found == sorted(set(found))
    assert all(after < instant <= until for instant in found)


@given(schedule=schedules, now=instants)
def test_the_next_one_is_the_first_of_those_after_now(schedule: Schedule, now: datetime) -> None:
    found = occurrences.next_after(schedule, now)
    assert found is not None
    assert list(occurrences.occurrences(schedule, now, found.instant)) == [found]
