"""Campaigns on schedules: one event for each occurrence, whoever looks at the clock, and when."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import TypeVar
from uuid import uuid4

import psycopg
import pytest
from psycopg import AsyncConnection

from marketing_pipeline.delivery import triggering
from marketing_pipeline.delivery.triggering import ByHand, Tick
from marketing_pipeline.domain import event
from marketing_pipeline.domain.event import EventType, InvalidEvent
from marketing_pipeline.domain.occurrences import Dst, Late, Missed, Occurrence, Schedule
from marketing_pipeline.event_log import intake, triggers
from marketing_pipeline.event_log.intake import Verdict

T = TypeVar("T")
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
LONG_AGO = NOON - timedelta(days=300)
HOURLY = Schedule(timezone="UTC", cron="0 * * * *")
CATCH_UP = Missed(policy=Late.CATCH_UP, at_most=3)


def hourly(missed: Missed) -> Schedule:
    return Schedule(timezone="UTC", cron="0 * * * *", missed=missed)


def asked(database: str, question: Callable[[AsyncConnection], Awaitable[T]]) -> T:
    async def ask() -> T:
        async with await AsyncConnection.connect(database, autocommit=True) as conn:
            return await question(conn)

    return asyncio.run(ask())


def looked(
    database: str, now: datetime, schedule: Schedule = HOURLY, *, since: datetime = LONG_AGO
) -> Tick:
    return asked(
        database, lambda conn: triggering.tick(conn, "news", schedule, since=since, now=now)
    )


def triggered(
    database: str, instant: datetime, now: datetime = NOON, by_hand: ByHand | None = None
) -> intake.Recorded:
    return asked(database, lambda conn: triggering.trigger(conn, "news", instant, now, by_hand))


def instants(found: Iterable[Occurrence]) -> list[datetime]:
    return [one.instant for one in found]


def logged(database: str) -> list[datetime]:
    with psycopg.connect(database) as conn:
        rows = conn.execute("select scheduled_at from marketing_events order by 1").fetchall()
    return [row[0].astimezone(UTC) for row in rows]


def test_an_occurrence_is_an_event_whose_id_is_known_before(database: str) -> None:
    told = looked(database, NOON, since=NOON - HOUR)
    assert instants(told.recorded) == [NOON]
    assert (told.repeated, told.missed) == ((), ())
    assert told.next is not None
    assert told.next.instant == NOON + HOUR
    with psycopg.connect(database) as conn:
        rows = conn.execute(
            "select id, type, payload, source, scheduled_at, status from marketing_events"
        ).fetchall()
    payload = {"campaign": "news", "occurrence": "2026-03-02T12:00:00Z"}
    [(found, *facts)] = rows
    assert found == triggering.event_id("news", NOON)
    assert facts == ["CAMPAIGN_TRIGGER", payload, "schedule", NOON, "PENDING"]
    assert triggering.event_id("other", NOON) != found != triggering.event_id("news", NOON + HOUR)


def test_whoever_looks_again_records_nothing_more(database: str) -> None:
    looked(database, NOON, since=NOON - HOUR)
    for later in (timedelta(0), timedelta(seconds=30), timedelta(minutes=59)):
        told = looked(database, NOON + later, since=NOON - HOUR)
        assert (told.recorded, told.repeated, told.missed) == ((), (), ())
    assert logged(database) == [NOON]


def racing(database: str, act: Callable[[AsyncConnection], Awaitable[T]], many: int = 4) -> list[T]:
    """The same from several connections at once."""

    async def race() -> list[T]:
        ready = asyncio.Barrier(many)

        async def one() -> T:
            async with await AsyncConnection.connect(database, autocommit=True) as conn:
                await ready.wait()
                return await act(conn)

        return list(await asyncio.gather(*(one() for _ in range(many))))

    return asyncio.run(race())


def test_looks_at_once_record_one_event(database: str) -> None:
    for turn in range(5):
        now = NOON + turn * HOUR

        async def look(conn: AsyncConnection, now: datetime = now) -> Tick:
            return await triggering.tick(conn, "news", HOURLY, since=NOON - HOUR, now=now)

        told = racing(database, look)
        assert [instants(one.recorded) for one in told if one.recorded] == [[now]]
    assert logged(database) == [NOON + turn * HOUR for turn in range(5)]


def test_looks_whose_key_is_not_the_occurrences_would_be_caught(database: str) -> None:
    """The known-bad case: looks that trust what they have read, and draw a key."""
    read = asyncio.Barrier(4)

    async def look(conn: AsyncConnection) -> None:
        found = await triggers.last_look(conn, "news", triggering.SOURCE, NOON)
        await read.wait()
        if found is not None:
            return
        new = event.new(
            type=EventType.CAMPAIGN_TRIGGER,
            payload={"campaign": "news"},
            source=triggering.SOURCE,
            key=str(uuid4()),
            now=NOON,
            scheduled_at=NOON,
        )
        async with conn.transaction():
            await intake.record(conn, [new], NOON)

    racing(database, look, many=4)
    assert len(logged(database)) == 4


def test_a_schedule_switched_on_in_the_afternoon_leaves_the_morning_alone(database: str) -> None:
    daily = Schedule(timezone="UTC", cron="0 9 * * *")
    afternoon = NOON + 3 * HOUR
    told = looked(database, afternoon + HOUR, daily, since=afternoon)
    assert (told.recorded, told.missed) == ((), ())
    tomorrow = (NOON + DAY).replace(hour=9)
    assert instants(looked(database, tomorrow, daily, since=afternoon).recorded) == [tomorrow]


def test_what_was_due_while_a_schedule_was_off_is_left_alone(database: str) -> None:
    looked(database, NOON, since=NOON - HOUR)
    on_again = NOON + 5 * HOUR / 2
    told = looked(database, on_again + timedelta(minutes=1), since=on_again)
    assert (told.recorded, told.missed) == ((), ())
    assert instants(looked(database, NOON + 3 * HOUR, since=on_again).recorded) == [NOON + 3 * HOUR]


@pytest.mark.parametrize("planned", [False, True])
def test_a_clock_that_is_ahead_keeps_nothing_from_the_others(database: str, planned: bool) -> None:
    assert looked(database, NOON + HOUR, since=NOON + HOUR / 2).recorded
    if planned:
        plan(database, triggering.event_id("news", NOON + HOUR))
    assert instants(looked(database, NOON, since=NOON - HOUR).recorded) == [NOON]
    told = looked(database, NOON + HOUR, since=NOON - HOUR)
    assert (told.recorded, told.repeated, told.missed) == ((), (), ())


def test_a_look_that_is_a_little_late_is_on_time_under_every_policy(database: str) -> None:
    for turn, policy in enumerate(Late):
        at = NOON + turn * HOUR
        schedule = hourly(Missed(policy=policy))
        now = at + timedelta(minutes=4)
        assert instants(looked(database, now, schedule, since=at - HOUR).recorded) == [at]


@pytest.mark.parametrize(
    ("missed", "fired", "given_up"),
    [
        (CATCH_UP, [-3, -2, -1], [-4]),
        (Missed(policy=Late.LATEST), [-1], [-4, -3, -2]),
        (Missed(policy=Late.DROP), [], [-4, -3, -2, -1]),
        (Missed(policy=Late.CATCH_UP, within=HOUR), [-1], [-4, -3, -2]),
    ],
)
def test_after_a_silence_the_policy_says_what_is_made_good_once(
    database: str, missed: Missed, fired: list[int], given_up: list[int]
) -> None:
    looked(database, NOON - 5 * HOUR, hourly(missed), since=NOON - 6 * HOUR)
    before = logged(database)
    now = NOON - timedelta(minutes=15)
    told = looked(database, now, hourly(missed))
    assert instants(told.recorded) == [NOON + hours * HOUR for hours in fired]
    assert instants(told.missed) == [NOON + hours * HOUR for hours in given_up]
    again = looked(database, now + timedelta(minutes=1), hourly(missed))
    assert again.recorded == ()
    assert logged(database) == before + instants(told.recorded)
    following = looked(database, NOON, hourly(missed))
    assert instants(following.recorded) == [NOON], "what was given up stays so"


def test_what_is_due_now_goes_before_what_was_missed(database: str) -> None:
    looked(database, NOON - 5 * HOUR, since=NOON - 6 * HOUR)
    assert instants(looked(database, NOON).recorded) == [NOON]


def test_what_was_missed_is_told_for_days_and_then_forgotten(database: str) -> None:
    weekly = Schedule(timezone="UTC", cron="0 12 2 3 *", missed=Missed(policy=Late.DROP))
    assert instants(looked(database, NOON + HOUR, weekly).missed) == [NOON]
    assert instants(looked(database, NOON + 6 * DAY, weekly).missed) == [NOON]
    assert looked(database, NOON + 8 * DAY, weekly).missed == ()


def test_what_a_person_triggers_at_an_occurrence_is_its_event(database: str) -> None:
    by = ByHand(who="ada", why="the fair opens earlier")
    assert triggered(database, NOON, NOON - 2 * HOUR, by).verdict is Verdict.ACCEPTED
    assert triggered(database, NOON, NOON - HOUR, ByHand(who="bob")).verdict is Verdict.DUPLICATE
    told = looked(database, NOON, since=NOON - HOUR)
    assert (instants(told.recorded), instants(told.repeated)) == ([], [NOON])
    assert logged(database) == [NOON]


def test_what_a_person_triggers_ahead_keeps_nothing_else_from_its_time(database: str) -> None:
    minutely = Schedule(timezone="UTC", cron="* * * * *")
    minute = timedelta(minutes=1)
    looked(database, NOON - 2 * minute, minutely, since=NOON - 3 * minute)
    triggered(database, NOON, NOON - 2 * minute, ByHand(who="ada"))
    told = looked(database, NOON + minute, minutely)
    assert instants(told.recorded) == [NOON - minute, NOON + minute]
    assert instants(told.repeated) == [NOON]
    assert told.missed == ()


def test_what_a_person_made_good_is_not_told_as_missed(database: str) -> None:
    drop = hourly(Missed(policy=Late.DROP))
    looked(database, NOON - 3 * HOUR, drop, since=NOON - 4 * HOUR)
    triggered(database, NOON - 2 * HOUR, NOON, ByHand(who="ada"))
    told = looked(database, NOON, drop)
    assert instants(told.missed) == [NOON - HOUR]
    assert instants(told.recorded) == [NOON]


def test_a_campaign_that_could_not_be_planned_is_not_triggered_again(database: str) -> None:
    looked(database, NOON, since=NOON - HOUR)
    with psycopg.connect(database) as conn:
        conn.execute("update marketing_events set status = 'FAILED', last_error = 'gone'")
    told = looked(database, NOON + timedelta(minutes=30), since=NOON - 3 * HOUR)
    assert (told.recorded, told.repeated, told.missed) == ((), (), ())


@pytest.mark.parametrize("planned", [False, True])
def test_an_earlier_time_of_day_in_the_file_does_not_send_todays_again(
    database: str, planned: bool
) -> None:
    noon = Schedule(timezone="UTC", cron="0 12 * * *")
    looked(database, NOON, noon, since=NOON - HOUR)
    if planned:
        plan(database, triggering.event_id("news", NOON))
    earlier = Schedule(timezone="UTC", cron="30 11 * * *")
    told = looked(database, NOON + HOUR, earlier, since=NOON - 2 * HOUR)
    assert (told.recorded, told.missed) == ((), ())


def plan(database: str, event_id: object) -> None:
    """As a delivery run does it, whose people are beside the point."""
    with psycopg.connect(database) as conn:
        conn.execute(
            "insert into configs (digest, body, created_at) values (repeat('c', 64), '{}', now())"
        )
        conn.execute(
            """insert into plans (event_id, epoch, day, cut_seq, cut_at, config_digest,
               plan_version, count, digest, inserted, created_at, campaign)
               select id, 0, day, 0, now(), repeat('c', 64), 2, 0, repeat('d', 64), 0, now(), 'news'
               from marketing_events where id = %s""",
            [event_id],
        )
        conn.execute("update marketing_events set status = 'COMPLETED'")


@pytest.mark.parametrize(
    ("dst", "cron", "day", "expected"),
    [
        (Dst.SKIP, "30 2 * * *", "2026-03-29", []),
        (Dst.SHIFT, "30 2 * * *", "2026-03-29", ["01:30"]),
        (Dst.ONCE, "30 2 * * *", "2026-03-29", ["01:30"]),
        (Dst.SKIP, "30 2 * * *", "2026-10-25", ["00:30"]),
        (Dst.SHIFT, "30 2 * * *", "2026-10-25", ["00:30", "01:30"]),
        (Dst.ONCE, "30 2 * * *", "2026-10-25", ["00:30"]),
    ],
)
def test_on_days_that_clocks_are_set_each_event_is_recorded_as_often_as_it_should(
    database: str, dst: Dst, cron: str, day: str, expected: list[str]
) -> None:
    schedule = Schedule(timezone="Europe/Berlin", cron=cron, dst=dst)
    midnight = datetime.fromisoformat(f"{day}T00:00:00Z")
    for half_hours in range(12):
        for _ in range(2):
            looked(database, midnight + half_hours * HOUR / 2, schedule, since=midnight)
    assert [f"{at:%H:%M}" for at in logged(database)] == expected


def test_an_hour_may_be_missed_and_nothing_fires_twice_however_looks_fall(database: str) -> None:
    """Looks at odd moments, with a crash before some: each occurrence fires once, in order."""
    schedule = Schedule(timezone="UTC", cron="*/7 * * * *", missed=CATCH_UP)
    fired: list[datetime] = []
    now = NOON
    for turn in range(40):
        now += timedelta(minutes=1 + (turn * 5) % 11)
        fired += instants(looked(database, now, schedule, since=NOON).recorded)
    assert fired == sorted(set(fired)) == logged(database)
    every = [NOON + timedelta(minutes=n) for n in range(1, 600) if n % 60 % 7 == 0]
    assert fired == [one for one in every if one <= now], "no silence was long: none is lost"


def test_a_moment_is_counted_in_whole_seconds(database: str) -> None:
    first = triggered(database, NOON.replace(microsecond=1))
    again = triggered(database, NOON.replace(microsecond=999_999))
    assert (first.verdict, again.verdict) == (Verdict.ACCEPTED, Verdict.DUPLICATE)
    assert first.event_id == again.event_id == triggering.event_id("news", NOON)
    assert logged(database) == [NOON]


def test_a_moment_that_the_log_does_not_take_is_refused(database: str) -> None:
    with pytest.raises(InvalidEvent, match="not between 2020-01-01 and 400 days ahead"):
        triggered(database, NOON + timedelta(days=500))
