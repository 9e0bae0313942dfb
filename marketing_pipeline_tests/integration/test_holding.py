"""Campaigns paused, resumed and cancelled on a real PostgreSQL: races, deaths, and the books."""

import asyncio
import json
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import AsyncConnection
from psycopg.rows import class_row

from marketing_pipeline import settings
from marketing_pipeline.cli import next_steps
from marketing_pipeline.defs.holding import control_campaign
from marketing_pipeline.defs.resources import EventLog
from marketing_pipeline.delivery import campaigns
from marketing_pipeline.delivery.holding import control, tend
from marketing_pipeline.domain import event
from marketing_pipeline.domain.event import EventType, NewEvent
from marketing_pipeline.event_log import (
    approvals,
    holding,
    installation,
    ledger,
    parking,
    queries,
    reading,
    redriving,
    resolving,
    status,
    story,
)
from marketing_pipeline.event_log.holding import Action, CannotHold, Said
from marketing_pipeline.event_log.ledger import Candidate
from marketing_pipeline.event_log.redriving import Standards
from marketing_pipeline_tests.fresh_settings import forget_settings
from marketing_pipeline_tests.holding import (
    AMBIGUOUS,
    BY_ADA,
    DIE,
    LEADS,
    MAIL,
    THROTTLED,
    Claimed,
    Log,
    claim,
    crowded,
    settle,
)
from marketing_pipeline_tests.pipeline import (
    Sandbox,
    campaign,
    campaign_name,
    record,
    run,
    states,
    statuses,
)

FAR = datetime(9000, 1, 1, tzinfo=UTC)
MANY = 2 * parking.CHUNK + 500
FEW = 20
DAY = timedelta(days=1)
SOON = 0.3  # seconds in which something would have happened that must not


def one_line(error: BaseException) -> bool:
    return "\n" not in str(error) and (";" in str(error) or ":" in str(error))


def test_from_a_pause_on_nothing_of_a_campaign_is_due_or_claimed(database: str) -> None:
    async def run() -> None:
        async with crowded(database, persons=FEW) as log:
            assert await ledger.due(log.conn, MAIL, 100) == (FEW, False)
            assert await holding.pause(log.conn, log.event_id, "a typo", "ada")
            assert await ledger.due(log.conn, MAIL, 100) == (0, False), "before anything is parked"
            assert (await claim(log.conn)).candidates == []
            assert await ledger.next_due(log.conn, MAIL) is None
            work = await reading.due_work(log.conn, [MAIL])
            assert (work.events, work.plans, work.effects, work.earliest) == (0, 0, 0, None)
            [held] = await holding.holds(log.conn)
            assert (held.campaign, held.state, held.reason) == ("everybody", "paused", "a typo")

    asyncio.run(run())


def test_pausing_twice_writes_one_row_and_says_so(database: str) -> None:
    async def run() -> None:
        async with crowded(database, persons=FEW) as log:
            reports = [await log.do(Action.PAUSE) for _ in range(2)]
            assert [one.again for report in reports for one in report.events] == [False, True]
            assert await log.value("select count(*) from interventions") == 1
            assert await log.ask("select action, why, who from interventions") == [
                ("pause", BY_ADA.why, BY_ADA.who)
            ]

    asyncio.run(run())


async def complete(log: Log) -> None:
    await settle(log.conn, await claim(log.conn, FEW))
    assert await log.status() == "COMPLETED"


async def cancel(log: Log) -> None:
    await log.do(Action.CANCEL)


async def approve_first(log: Log) -> None:
    await approvals.hold(log.conn, log.event_id, "its plan waits", datetime.now(UTC))


async def begin_to_resume(log: Log) -> None:
    await log.do(Action.PAUSE)
    await holding.begin_resuming(log.conn, log.event_id, "mended", "ada")


async def nothing(_: Log) -> None:
    """As it is."""


@pytest.mark.parametrize(
    ("before", "action", "said"),
    [
        (complete, Action.PAUSE, "is COMPLETED: nothing of it is left to pause; "),
        (complete, Action.CANCEL, "is COMPLETED: nothing of it is left to cancel; "),
        (complete, Action.RESUME, "is not paused: nothing to resume; "),
        (cancel, Action.PAUSE, r"was cancelled \(a typo.*final.*trigger the campaign anew"),
        (cancel, Action.RESUME, r"was cancelled \(a typo.*final.*trigger the campaign anew"),
        (nothing, Action.RESUME, "is not paused: nothing to resume; `marketing-pipeline explain"),
        (approve_first, Action.RESUME, "waits for approval .*`marketing-pipeline approve`"),
        (begin_to_resume, Action.PAUSE, "is being resumed: `marketing-pipeline campaign resume"),
    ],
)
def test_what_cannot_be_held_is_refused_in_a_line_with_its_remedy(
    database: str, before: Callable[[Log], Awaitable[None]], action: Action, said: str
) -> None:
    async def run() -> None:
        async with crowded(database, persons=FEW) as log:
            await before(log)
            held = await log.ask("select * from holds"), await log.ask("select * from effects")
            with pytest.raises(CannotHold, match=said) as refused:
                await log.do(action)
            assert one_line(refused.value)
            assert held == (await log.ask("select * from holds"), await log.ask("table effects"))

    asyncio.run(run())


@pytest.mark.parametrize("action", Action)
def test_only_campaigns_that_there_are_can_be_held(database: str, action: Action) -> None:
    async def run() -> None:
        async with crowded(database, persons=1) as log:
            lead = await log.value("select id from marketing_events where type = 'LEAD_CAPTURE'")
            for what, said in (
                (str(lead), "is a LEAD_CAPTURE, and only a CAMPAIGN_TRIGGER can be held; "),
                (str(UUID(int=7)), f"there is no event {UUID(int=7)}; "),
                ("nobody", "no event of a campaign 'nobody' is under way, due or held; "),
            ):
                with pytest.raises(CannotHold, match=said) as refused:
                    await log.do(action, what)
                assert one_line(refused.value)

    asyncio.run(run())


@pytest.mark.parametrize("why", ["", "  ", "a\0b"])
def test_a_reason_is_asked_for_in_words(why: str) -> None:
    with pytest.raises(CannotHold, match="why: is empty or cannot be stored; write it in words"):
        Said(why=why, who="ada")


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[AsyncConnection]:
    """A connection whose transaction is open: what is done on it is not committed by itself."""
    async with await AsyncConnection.connect(url) as conn:
        await conn.execute("select")
        yield conn


async def unguarded(conn: AsyncConnection, provider: str, limit: int) -> list[Candidate]:
    """The known-bad variant of `lock_due`: it takes no lock that whoever pauses would wait for."""
    async with conn.cursor(row_factory=class_row(Candidate)) as cursor:
        query = queries.load("ledger.sql")["lock due"]
        values = {"provider": provider, "limit": limit, "passed": [], "since": ledger.ALWAYS}
        await cursor.execute(query, values)
        return await cursor.fetchall()


GUARDED = [
    pytest.param(ledger.lock_due, True, id="claims"),
    pytest.param(unguarded, False, id="known-bad"),
]


@pytest.mark.parametrize("action", [Action.PAUSE, Action.CANCEL])
@pytest.mark.parametrize(("lock", "strict"), GUARDED)
def test_who_holds_a_campaign_waits_for_a_claim_that_has_begun(
    database: str, lock: Any, strict: bool, action: Action
) -> None:
    async def run() -> None:
        async with (
            crowded(database, persons=FEW) as log,
            opened(database) as claimer,
        ):
            taken = await claim(claimer, 5, lock)  # and no commit
            write = getattr(holding, str(action))
            writing = asyncio.create_task(write(log.conn, log.event_id, "a typo", "ada"))
            await asyncio.sleep(SOON)
            assert writing.done() is not strict, "an attempt would be committed after the hold"
            await claimer.commit()
            await writing
            assert (await log.states())["SENDING"] == 5, "what was begun goes"
            before = "select bool_and(a.started_at < h.since) from attempts a, holds h"
            assert await log.value(before)
            await settle(log.conn, taken)
            assert (await claim(log.conn)).candidates == []

    asyncio.run(run())


@pytest.mark.parametrize("action", [Action.PAUSE, Action.CANCEL])
@pytest.mark.parametrize(("lock", "strict"), GUARDED)
def test_a_claim_waits_for_who_is_holding_its_campaign_and_then_sees_it(
    database: str, lock: Any, strict: bool, action: Action
) -> None:
    async def run() -> None:
        async with (
            crowded(database, persons=FEW) as log,
            opened(database) as writer,
            opened(database) as claimer,
        ):
            write = getattr(holding, str(action))
            await write(writer, log.event_id, "a typo", "ada")  # and no commit
            claiming = asyncio.create_task(claim(claimer, 5, lock))
            await asyncio.sleep(SOON)
            assert claiming.done() is not strict
            await writer.commit()
            taken = await claiming
            await claimer.commit()
            late = "select count(*) from attempts"
            assert (await log.value(late) == 0) is strict, "an attempt started after the hold"
            assert (taken.candidates == []) is strict

    asyncio.run(run())


def test_a_hold_that_is_taken_back_holds_nothing(database: str) -> None:
    async def run() -> None:
        async with (
            crowded(database, persons=FEW) as log,
            opened(database) as writer,
        ):
            await holding.pause(writer, log.event_id, "a typo", "ada")
            claiming = asyncio.create_task(claim(log.conn, FEW))
            await asyncio.sleep(SOON)
            await writer.rollback()
            assert len((await claiming).candidates) == FEW

    asyncio.run(run())


def test_claims_do_not_wait_for_one_another(database: str) -> None:
    async def run() -> None:
        async with (
            crowded(database, persons=FEW) as log,
            opened(database) as other,
        ):
            await claim(other, 5)  # and no commit
            async with asyncio.timeout(2):
                assert len((await claim(log.conn, FEW)).candidates) == FEW - 5

    asyncio.run(run())


def test_what_is_paused_is_parked_and_put_back_later_by_the_length_of_the_pause(
    database: str,
) -> None:
    async def run() -> None:
        async with crowded(database, persons=MANY) as log:
            await spread(log)
            before = await schedule(log)
            moved: list[int] = []
            await control(log.conn, Action.PAUSE, str(log.event_id), BY_ADA, moved.append)
            assert sum(moved) == MANY
            assert await log.ask("select distinct due_at from effects") == [(FAR,)]
            assert dict(await log.ask("select id, held_due_at from effects")) == {
                key: due for key, (due, _) in before.items()
            }
            await longer_ago(log, 2 * DAY)
            await log.do(Action.RESUME)
            [shift] = await shifts(log, before)
            assert 2 * DAY < shift < 2 * DAY + timedelta(seconds=60)
            assert await log.ask("table holds") == []
            assert (
                await log.value("select count(*) from effects where held_due_at is not null") == 0
            )
            assert await log.ask("select number, action from interventions order by number") == [
                (1, "pause"),
                (2, "resume"),
            ]

    asyncio.run(run())


async def spread(log: Log) -> None:
    """As a campaign with a pace is: due one after the other."""
    await log.conn.execute(
        """update effects e set due_at = e.due_at + n.at, expires_at = e.expires_at + n.at
           from (select id, row_number() over (order by id) * interval '1 ms' as at from effects) n
           where n.id = e.id"""
    )


async def schedule(log: Log) -> dict[UUID, tuple[datetime, datetime]]:
    """When each effect is due, and when its time is up."""
    rows = await log.ask("select id, due_at, expires_at from effects where state = 'PLANNED'")
    return {key: (due, expires) for key, due, expires in rows}


async def shifts(log: Log, before: dict[UUID, tuple[datetime, datetime]]) -> set[timedelta]:
    """By how much effects have been moved; each as much as the end of its time."""
    after = await schedule(log)
    assert after.keys() == before.keys()
    due = {key: after[key][0] - before[key][0] for key in after}
    expires = {key: after[key][1] - before[key][1] for key in after}
    assert due == expires
    return set(due.values())


async def longer_ago(log: Log, by: timedelta) -> None:
    """As if the pause had begun earlier, and all before it."""
    await log.conn.execute(
        "update holds set since = since - %(by)s, resumed_at = resumed_at - %(by)s", {"by": by}
    )


def test_after_a_pause_of_days_nothing_is_stale(database: str) -> None:
    async def run() -> None:
        async with crowded(database, persons=FEW) as log:
            await log.conn.execute(
                "update effects set due_at = due_at - %(by)s, expires_at = expires_at - %(by)s",
                {"by": 2 * DAY},
            )
            await log.do(Action.PAUSE)
            await longer_ago(log, 2 * DAY)
            await log.do(Action.RESUME)
            found = (await claim(log.conn, FEW)).candidates
            assert len(found) == FEW
            assert all(one.expires_at and one.expires_at > one.now for one in found)

    asyncio.run(run())


def test_what_was_throttled_during_the_pause_waits_no_longer_than_from_then(database: str) -> None:
    async def run() -> None:
        async with crowded(database, persons=FEW) as log:
            taken = await claim(log.conn, 1)
            await log.do(Action.PAUSE)
            await longer_ago(log, DAY)
            again = datetime.now(UTC) + timedelta(minutes=1)
            await settle(log.conn, taken, due_at=again, **THROTTLED)
            await log.do(Action.RESUME)
            due = await log.value(
                "select due_at from effects where id = %s", taken.candidates[0].id
            )
            assert again <= due < again + timedelta(minutes=1)
            assert (await claim(log.conn, FEW)).candidates == [], "the others: later by a day"

    asyncio.run(run())


async def half_written(log: Log) -> None:
    """Its plan is promised, and written up to a death after the first chunk."""
    await campaigns.plan_next(log.conn, log.rules, datetime.now(UTC), asyncio.Event())
    await log.conn.execute(DIE.encode())
    await log.conn.execute(
        f"""create trigger dies before update of inserted on plans for each row
            when (new.inserted > {parking.CHUNK}) execute function die()""".encode()
    )
    async with await AsyncConnection.connect(log.url, autocommit=True) as dies:
        with pytest.raises(psycopg.OperationalError):
            await campaigns.write_unfinished(dies, datetime.now(UTC), asyncio.Event())
    await log.conn.execute("drop trigger dies on plans")
    assert sum((await log.states()).values()) == parking.CHUNK


def test_what_is_written_while_a_campaign_is_paused_is_parked_too(database: str) -> None:
    async def run() -> None:
        async with crowded(database, persons=MANY, plan=False) as log:
            await half_written(log)
            await log.do(Action.PAUSE)
            unparked = "select count(*) from effects where held_due_at is null"
            assert await log.value(unparked) == 0
            await campaigns.write_unfinished(log.conn, datetime.now(UTC), asyncio.Event())
            assert await log.value(unparked) == MANY - parking.CHUNK
            assert (await claim(log.conn)).candidates == [], "correct without parking"
            assert await tend(log.conn, datetime.now(UTC)) == MANY - parking.CHUNK
            assert await log.value(unparked) == 0
            assert await log.value("select parked from holds")
            assert await tend(log.conn, datetime.now(UTC)) == 0

    asyncio.run(run())


@pytest.mark.parametrize(("action", "state"), [("resume", "PLANNED"), ("cancel", "SUPPRESSED")])
def test_a_plan_that_is_half_written_is_written_out_first(
    database: str, action: str, state: str
) -> None:
    async def run() -> None:
        async with crowded(database, persons=MANY, plan=False) as log:
            await half_written(log)
            await log.do(Action.PAUSE)
            await longer_ago(log, 2 * DAY)
            assert await log.balanced()
            await log.do(Action(action))
            assert await log.states() == {state: MANY}
            assert await log.value("select inserted from plans") == MANY
            assert await log.balanced()
            assert await log.value("select count(distinct due_at) from effects") == 1

    asyncio.run(run())


DEATHS = [
    pytest.param(
        "pause",
        """before update on effects for each row
           when (new.held_due_at is not null and new.id >= '{middle}')""",
        id="parking",
    ),
    pytest.param("pause", "after insert on interventions", id="pausing"),
    pytest.param("pause", "after update of parked on holds", id="parked"),
    pytest.param("resume", "after update of resumed_at on holds", id="fixing"),
    pytest.param(
        "resume",
        """before update on effects for each row
           when (new.held_due_at is null and new.id >= '{middle}')""",
        id="putting-back",
    ),
    pytest.param("resume", "after delete on holds", id="releasing"),
    pytest.param("cancel", "after insert on interventions", id="cancelling"),
    pytest.param(
        "cancel",
        """before update on effects for each row
           when (new.state = 'SUPPRESSED' and new.id >= '{middle}')""",
        id="closing",
    ),
    pytest.param("cancel", "before update of status on marketing_events", id="completing"),
]


@pytest.mark.parametrize("later", [timedelta(), 3 * DAY])
@pytest.mark.parametrize(("action", "moment"), DEATHS)
def test_whoever_dies_over_it_is_followed_up_and_nothing_is_done_twice(
    database: str, action: str, moment: str, later: timedelta
) -> None:
    async def run() -> None:
        async with crowded(database, persons=MANY) as log:
            await spread(log)
            before = await schedule(log)
            if action == "resume":
                await log.do(Action.PAUSE)
            middle = sorted(before)[parking.CHUNK + 100]
            await log.conn.execute(DIE.encode())
            when = moment.format(middle=middle)
            await log.conn.execute(f"create trigger dies {when} execute function die()".encode())
            async with await AsyncConnection.connect(database, autocommit=True) as dies:
                with pytest.raises(psycopg.OperationalError):
                    await control(dies, Action(action), str(log.event_id), BY_ADA, lambda _: None)
            [(table,)] = await log.ask(
                "select tgrelid::regclass::text from pg_trigger where tgname = 'dies'"
            )
            await log.conn.execute(f"drop trigger dies on {table}".encode())
            assert await log.balanced()
            if action == "resume":
                assert (await claim(log.conn)).candidates == [], "it is paused still"
            waited = later if await holding.holds(log.conn) else timedelta()
            await longer_ago(log, later)
            await log.do(Action(action))
            assert await log.balanced()
            if action == "cancel":
                assert await log.states() == {"SUPPRESSED": MANY}
                assert await log.status() == "COMPLETED"
                return
            if action == "pause":
                assert await log.ask("select distinct due_at from effects") == [(FAR,)]
                await log.do(Action.RESUME)
            [shift] = await shifts(log, before)
            assert waited <= shift < waited + timedelta(seconds=60)

    asyncio.run(run())


def test_two_who_resume_at_once_move_everything_once(database: str) -> None:
    async def run() -> None:
        async with (
            crowded(database, persons=MANY) as log,
            await AsyncConnection.connect(database, autocommit=True) as other,
        ):
            before = await schedule(log)
            await log.do(Action.PAUSE)
            await longer_ago(log, DAY)
            what = str(log.event_id)
            await asyncio.gather(
                *(
                    control(one, Action.RESUME, what, BY_ADA, lambda _: None)
                    for one in (log.conn, other)
                )
            )
            [shift] = await shifts(log, before)
            assert DAY < shift < DAY + timedelta(seconds=60)
            assert await log.value("select count(*) from interventions") == 2

    asyncio.run(run())


def test_parking_never_moves_what_is_being_put_back(database: str) -> None:
    """An engine that tends the campaign meanwhile would else move it by the pause twice."""

    async def run() -> None:
        async with crowded(database, persons=MANY) as log:
            before = await schedule(log)
            await begin_to_resume(log)
            last, moved = await parking.unpark_some(log.conn, log.event_id, UUID(int=0))
            assert (moved, last) == (parking.CHUNK, sorted(before)[parking.CHUNK - 1])
            assert await tend(log.conn, datetime.now(UTC)) == 0
            assert await parking.park_some(log.conn, log.event_id) == 0
            await log.do(Action.RESUME)
            assert len(await shifts(log, before)) == 1

    asyncio.run(run())


def test_who_cancels_while_it_is_resumed_has_the_last_word(database: str) -> None:
    async def run() -> None:
        async with crowded(database, persons=MANY) as log:
            await begin_to_resume(log)
            await parking.unpark_some(log.conn, log.event_id, UUID(int=0))
            await log.do(Action.CANCEL)
            with pytest.raises(CannotHold, match="final"):
                await holding.end_pause(log.conn, log.event_id)
            assert await log.states() == {"SUPPRESSED": MANY}

    asyncio.run(run())


def test_a_cancelled_campaign_ends_with_what_was_begun(database: str) -> None:
    async def run() -> None:
        async with crowded(database, persons=MANY) as log:
            await settle(log.conn, await claim(log.conn, 10))
            begun = await claim(log.conn, 5)
            await log.do(Action.PAUSE)
            report = await log.do(Action.CANCEL)
            assert await log.states() == {"SENT": 10, "SENDING": 5, "SUPPRESSED": MANY - 15}
            [one] = report.events
            assert (one.tally.sent, one.tally.open, one.tally.parked) == (10, 5, 0)
            assert await log.balanced()
            assert await log.status() == "PROCESSING"
            reasons = "select distinct last_error from effects where state = 'SUPPRESSED'"
            assert await log.ask(reasons) == [(f"cancelled: {BY_ADA.why}",)]
            await settle(log.conn, begun)
            assert await log.status() == "COMPLETED"
            [again] = (await log.do(Action.CANCEL)).events
            assert again.again

    asyncio.run(run())


def test_what_a_call_under_way_leaves_of_a_cancelled_campaign_is_closed(database: str) -> None:
    async def run() -> None:
        async with crowded(database, persons=FEW) as log:
            begun = await claim(log.conn, 3)
            await log.do(Action.CANCEL)
            await settle(log.conn, begun, due_at=datetime.now(UTC), **THROTTLED)
            assert (await log.states())["PLANNED"] == 3
            work = await reading.due_work(log.conn, [MAIL])
            assert work.plans == 1, "a delivery run is started for it"
            assert await tend(log.conn, datetime.now(UTC)) == 3
            assert await log.states() == {"SUPPRESSED": FEW}
            assert await log.status() == "COMPLETED"
            assert (await reading.due_work(log.conn, [MAIL])).plans == 0

    asyncio.run(run())


def test_what_is_in_doubt_of_a_cancelled_campaign_is_never_told_to_be_unsent(database: str) -> None:
    async def run() -> None:
        async with crowded(database, persons=FEW) as log:
            begun = await claim(log.conn, 1)
            await settle(log.conn, begun, due_at=datetime.now(UTC), **AMBIGUOUS)
            await log.do(Action.CANCEL)
            assert await log.states() == {"DOUBT": 1, "SUPPRESSED": FEW - 1}
            async with log.conn.transaction():
                [one] = await ledger.lock_due(log.conn, MAIL, 10)
            assert one.cancelled == BY_ADA.why

    asyncio.run(run())


def test_a_campaign_that_is_cancelled_before_its_plan_never_gets_one(database: str) -> None:
    async def run() -> None:
        async with crowded(database, persons=FEW, plan=False) as log:
            await log.do(Action.CANCEL)
            assert await log.status() == "FAILED"
            assert (
                await log.value(
                    "select last_error from marketing_events where id = %s", log.event_id
                )
                == f"cancelled: {BY_ADA.why}"
            )
            assert await reconcile(log) == ([], [])
            await log.conn.execute(
                "update marketing_events set status = 'PENDING' where id = %s", (log.event_id,)
            )
            await log.plan()
            assert await log.ask("table plans") == []
            await tend(log.conn, datetime.now(UTC))
            assert await log.status() == "FAILED", "whatever somebody pastes"

    asyncio.run(run())


async def reconcile(log: Log) -> tuple[list[str], list[str]]:
    """What the daily job puts back, and what it leaves and why."""
    now = datetime.now(UTC) + timedelta(seconds=1)
    by = Standards(rules=log.rules, providers=[MAIL], since=now - DAY, now=now)
    found = await redriving.reconcile(log.conn, by)
    put_back = [str(one.event_id) for one in (*found.redriven, *found.replanned)]
    return put_back, [one.reason for one in found.left]


@pytest.mark.parametrize("cancelled", [True, False])
def test_the_daily_job_redrives_nothing_that_was_cancelled(database: str, cancelled: bool) -> None:
    async def run() -> None:
        async with crowded(database, persons=1) as log:
            failed = {"outcome": "UNREACHED", "status_code": None, "reason": "refused"}
            begun = await claim(log.conn, 1)
            await settle(log.conn, begun, state="FAILED", reference=None, **failed)
            assert await log.status() == "FAILED"
            if cancelled:
                await log.do(Action.CANCEL)
            put_back, left = await reconcile(log)
            assert put_back == ([] if cancelled else [str(log.event_id)])
            assert left == ([f"cancelled: {BY_ADA.why}"] if cancelled else [])

    asyncio.run(run())


def test_a_person_cannot_send_again_what_was_cancelled(database: str) -> None:
    async def run() -> None:
        async with crowded(database, persons=1) as log:
            begun = await claim(log.conn, 1)
            await settle(log.conn, begun, **(AMBIGUOUS | {"state": "UNKNOWN"}))
            await log.do(Action.CANCEL)
            [one] = begun.candidates
            again = resolving.Resolution(action=resolving.Action.RESEND, why="not there", who="ada")
            with pytest.raises(resolving.CannotResolve, match="was cancelled") as refused:
                await resolving.resolve(log.conn, one.id, again)
            assert one_line(refused.value)
            sent = resolving.Resolution(action=resolving.Action.SENT, why="it is there", who="ada")
            await resolving.resolve(log.conn, one.id, sent)
            assert await log.status() == "COMPLETED"

    asyncio.run(run())


def test_a_late_accepted_settles_what_is_parked(database: str) -> None:
    async def run() -> None:
        async with crowded(database, persons=1) as log:
            begun = await claim(log.conn, 1)
            due = datetime.now(UTC)
            await settle(log.conn, begun, due_at=due, **THROTTLED)
            await log.do(Action.PAUSE)
            assert await log.value("select due_at from effects") == FAR
            await settle(log.conn, begun)
            assert await log.ask("select state, held_due_at from effects") == [("SENT", None)]
            assert await log.value("select due_at < now() from effects")

    asyncio.run(run())


def test_a_restored_log_doubts_what_it_holds_parked(database: str) -> None:
    """In its other life the campaign may have been resumed."""

    async def run() -> None:
        async with crowded(database, persons=FEW) as log:
            await log.do(Action.PAUSE)
            await installation.adopt(log.conn, "restored", timedelta(minutes=1))
            assert await log.states() == {"DOUBT": FEW}
            assert await log.value("select count(*) from effects where held_due_at is null") == FEW
            assert await log.value("select bool_and(doubt_since < now()) from effects")

    asyncio.run(run())


def test_a_name_holds_what_is_under_way_or_due_and_leaves_what_is_to_come(database: str) -> None:
    async def run() -> None:
        async with crowded(database, persons=FEW) as log:
            next_week = triggered("next", at=datetime.now(UTC) + 7 * DAY)
            due = triggered("due", at=datetime.now(UTC))
            await log.record(next_week, due)
            report = await log.do(Action.PAUSE, "everybody")
            assert {one.event_id for one in report.events} == {log.event_id, due.id}
            assert report.later == 1
            await log.do(Action.PAUSE, str(next_week.id))
            report = await log.do(Action.RESUME, "everybody")
            assert {one.event_id for one in report.events} == {log.event_id, due.id, next_week.id}
            assert await holding.holds(log.conn) == []

    asyncio.run(run())


def triggered(key: str, *, at: datetime, **payload: Any) -> NewEvent:
    return event.new(
        type=EventType.CAMPAIGN_TRIGGER,
        payload={"campaign": "everybody", **payload},
        source="demo",
        key=key,
        now=datetime.now(UTC),
        scheduled_at=at,
    )


def test_of_several_events_one_may_be_refused_and_the_others_are_done(database: str) -> None:
    async def run() -> None:
        async with crowded(database, persons=FEW) as log:
            other = triggered("other", at=datetime.now(UTC))
            await log.record(other)
            await log.do(Action.PAUSE, str(other.id))
            report = await log.do(Action.RESUME, "everybody")
            refused = {one.event_id: one.refused is not None for one in report.events}
            assert refused == {log.event_id: True, other.id: False}

    asyncio.run(run())


@pytest.mark.parametrize("single", [False, True])
def test_a_campaign_that_is_paused_before_its_plan_is_planned_when_it_goes_on(
    database: str, single: bool
) -> None:
    async def run() -> None:
        async with crowded(database, persons=FEW) as log:
            person = await log.value("select id::text from recipients limit 1")
            for_one = {"recipient": person, "template": "news"} if single else {}
            due = datetime.now(UTC) - 2 * DAY
            late = triggered("late", at=due, **for_one)
            await log.record(late)
            await log.do(Action.PAUSE, str(late.id))
            await log.plan()
            plans = "select count(*) from plans where event_id = %s"
            assert await log.value(plans, late.id) == 0
            resumed = datetime.now(UTC)
            await log.do(Action.RESUME, str(late.id))
            await log.plan()
            expires = "select min(expires_at), min(due_at) from effects where event_id = %s"
            [(at, due_at)] = await log.ask(expires, late.id)
            assert due_at >= resumed
            assert at == due_at + DAY, "nothing is stale because of the pause"
            starts = "select starts_at from plans where event_id = %s"
            assert await log.value(starts, late.id) == due_at

    asyncio.run(run())


def test_what_waits_for_approval_waits_for_it_after_a_pause_too(database: str) -> None:
    async def run() -> None:
        async with crowded(database, persons=FEW, plan=False) as log:
            await approve_first(log)
            await log.do(Action.PAUSE)
            assert await log.value("select state from holds") == "paused"
            assert await log.status() == "PENDING"
            await log.do(Action.CANCEL)
            assert await log.status() == "FAILED"

    asyncio.run(run())


def test_status_and_explain_say_what_is_held_and_what_to_do(database: str) -> None:
    async def run() -> None:
        async with crowded(database, persons=FEW) as log:
            now = datetime.now(UTC)
            await approve_first(log)
            await log.conn.execute(
                "update marketing_events set status = 'PENDING' where id = %s", (log.event_id,)
            )
            assert "`marketing-pipeline approve`" in await said(log)
            await log.conn.execute(
                "update marketing_events set status = 'PROCESSING' where id = %s", (log.event_id,)
            )
            begun = await claim(log.conn, 1)
            assert begun.candidates == []
            await log.do(Action.PAUSE)
            [held] = (await status.read(log.conn)).holds
            assert (held.campaign, held.state) == ("everybody", "paused")
            assert await said(log) == (
                f"waits because its campaign was paused ({BY_ADA.why}): marketing-pipeline "
                f'campaign resume {log.event_id} --why "..."'
            )
            [told] = (await story.of_event(log.conn, log.event_id)).events
            assert told.effects[0].held_due_at is not None
            assert {next_steps.of_effect(one, now) for one in told.effects} == {await said(log)}
            [entry] = [one for one in told.entries if one.what == "intervention"]
            assert entry.facts == {"action": "pause", "why": BY_ADA.why, "who": "ada"}
            await log.do(Action.CANCEL)
            assert await said(log) == "nothing: its campaign was cancelled"
            assert (await status.read(log.conn)).holds == ()

    asyncio.run(run())


async def said(log: Log) -> str:
    [told] = (await story.of_event(log.conn, log.event_id)).events
    return next_steps.of_event(told, datetime.now(UTC))


class Interleaving:
    """Whatever people and processes do, in an order that chance gives; what must hold is held."""

    def __init__(self, log: Log, chance: random.Random) -> None:
        self.log, self.chance = log, chance
        self.under_way: list[Claimed] = []

    async def held(self) -> str | None:
        found = await self.log.ask("select state from holds")
        return found[0][0] if found else None

    async def step(self) -> None:
        moves = [self.claim, self.settle, self.throttle, self.pause, self.resume, self.tend]
        await self.chance.choice([*moves, self.claim, self.settle])()
        assert await self.log.balanced()

    async def claim(self) -> None:
        taken = await claim(self.log.conn, self.chance.randint(1, 5))
        assert taken.candidates == [] or await self.held() is None, "started while it was held"
        self.under_way.append(taken)

    async def settle(self) -> None:
        if self.under_way:
            await settle(self.log.conn, self.under_way.pop(0))

    async def throttle(self) -> None:
        if self.under_way:
            taken = self.under_way.pop(0)
            await settle(self.log.conn, taken, due_at=datetime.now(UTC), **THROTTLED)

    async def pause(self) -> None:
        if await self.held() is None and await self.log.status() == "PROCESSING":
            parks = self.chance.random() < 0.5
            if parks:
                await self.log.do(Action.PAUSE)
            else:
                await holding.pause(self.log.conn, self.log.event_id, "a typo", "ada")

    async def resume(self) -> None:
        if await self.held() == "paused":
            if self.chance.random() < 0.3:  # and dies over it
                await holding.begin_resuming(self.log.conn, self.log.event_id, "mended", "ada")
                return
            await self.log.do(Action.RESUME)

    async def tend(self) -> None:
        await tend(self.log.conn, datetime.now(UTC))

    async def drain(self) -> None:
        """To the end: all that is open is claimed and settled, or closed."""
        if await self.held() == "paused":
            await self.log.do(Action.RESUME)
        async with asyncio.timeout(20):
            while await self.log.value(
                "select count(*) > 0 from effects where state in ('PLANNED', 'SENDING')"
            ):
                await self.tend()
                await self.claim()
                while self.under_way:
                    await self.settle()
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("cancelled", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_in_any_order_everybody_is_mailed_once_or_certainly_not(
    database: str, seed: int, cancelled: bool
) -> None:
    async def run() -> None:
        async with crowded(database, persons=40) as log:
            some = Interleaving(log, random.Random(seed))  # noqa: S311 - no secret is made of it
            for _ in range(25):
                await some.step()
            open_now = await log.value("select count(*) > 0 from effects where state <> 'SENT'")
            if cancelled and open_now:
                await log.do(Action.CANCEL)
            await some.drain()
            states = await log.states()
            assert sum(states.values()) == 40
            assert states.keys() <= ({"SENT", "SUPPRESSED"} if cancelled else {"SENT"})
            taken = await log.ask(
                """select count(*) filter (where a.outcome = 'ACCEPTED'), e.state
                   from effects e left join attempts a on a.effect_id = e.id group by e.id"""
            )
            assert set(taken) <= {(1, "SENT"), (0, "SUPPRESSED")}
            assert await log.status() == "COMPLETED"

    asyncio.run(run())


CROWD = 300
PACE = 100  # mails a second: the campaign takes three


@pytest.fixture
def slow(used: settings.Settings, home: Path, database: str) -> settings.Settings:
    """An installation whose campaign to a crowd takes long enough to be met in its middle."""
    file = home / "campaigns" / "demo.yaml"
    text = file.read_text().replace("newest: 50", f"newest: {CROWD}")
    before, mailgun = text.split("adapter: mailgun")
    file.write_text(f"{before}adapter: mailgun{mailgun.replace('calls: 200', f'calls: {PACE}', 1)}")
    with psycopg.connect(database) as conn:
        conn.execute(LEADS.encode(), (CROWD,))
    return used


async def met_in_the_middle(conn: AsyncConnection) -> None:
    query = "select count(*) >= 60 from effects where state = 'SENT'"
    async with asyncio.timeout(30):
        while not (await (await conn.execute(query)).fetchall())[0][0]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def calls(conn: AsyncConnection) -> int:
    [(found,)] = await (await conn.execute("select count(*) from attempts")).fetchall()
    return int(found)


def test_an_engine_starts_nothing_while_a_campaign_is_paused_and_then_all_once(
    slow: settings.Settings, database: str, home: Path, sandbox: Sandbox
) -> None:
    name = campaign_name(home)
    record(database, [campaign(name, "c1")])

    async def run_it() -> None:
        async with await AsyncConnection.connect(database, autocommit=True) as conn:
            running = asyncio.create_task(asyncio.to_thread(run, slow, 4.0))
            await met_in_the_middle(conn)
            await control(conn, Action.PAUSE, name, BY_ADA, lambda _: None)
            at_pause = await calls(conn)
            await asyncio.sleep(1.5)
            assert await calls(conn) == at_pause < CROWD
            assert sum(sandbox.acts().values()) <= at_pause
            await control(conn, Action.RESUME, name, BY_ADA, lambda _: None)
            await running

    asyncio.run(run_it())
    assert states(database) == {"SENT": CROWD}
    assert list(sandbox.acts().values()) == [1] * CROWD
    assert statuses(database) == {"COMPLETED": CROWD + 1}


def test_an_engine_ends_a_cancelled_campaign_and_the_books_agree(
    slow: settings.Settings, database: str, home: Path, sandbox: Sandbox
) -> None:
    name = campaign_name(home)
    record(database, [campaign(name, "c1")])

    async def run_it() -> None:
        async with await AsyncConnection.connect(database, autocommit=True) as conn:
            running = asyncio.create_task(asyncio.to_thread(run, slow, 1.0))
            await met_in_the_middle(conn)
            await control(conn, Action.CANCEL, name, BY_ADA, lambda _: None)
            await running
            today = datetime.now(UTC).date()
            [books] = await reading.conservation(conn, today, today)
            assert (books.planned, books.open, books.missing) == (CROWD, 0, 0)

    asyncio.run(run_it())
    found = states(database)
    assert found.keys() == {"SENT", "SUPPRESSED"}
    assert sum(found.values()) == CROWD
    assert list(sandbox.acts().values()) == [1] * found["SENT"]
    assert statuses(database) == {"COMPLETED": CROWD + 1}


def test_the_command_line_does_it_and_says_what_it_did(database: str, tmp_path: Path) -> None:
    def cli(*words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "marketing_pipeline", "campaign", *words],
            env={"MARKETING_DATABASE_URL": database, "MARKETING_HOME": str(tmp_path), **REDIS},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    async def prepared() -> UUID:
        async with crowded(database, persons=FEW) as log:
            await settle(log.conn, await claim(log.conn, 3))
            return log.event_id

    event_id = asyncio.run(prepared())
    paused = cli("pause", "everybody", "--why", "a typo", "--json")
    assert paused.returncode == 0, paused.stderr
    [told] = json.loads(paused.stdout)["events"]
    assert told["event_id"] == str(event_id)
    tally = told["tally"]
    assert (tally["sent"], tally["open"], tally["parked"]) == (3, FEW - 3, FEW - 3)
    resumed = cli("resume", str(event_id), "--why", "mended")
    assert f"is resumed: 3 sent, {FEW - 3} open of {FEW} planned" in resumed.stdout
    cancelled = cli("cancel", "everybody", "--why", "no use", "--who", "eve", "--yes")
    assert f"is cancelled: 3 sent, 0 open, {FEW - 3} suppressed of" in cancelled.stdout
    again = cli("resume", str(event_id), "--why", "after all")
    assert again.returncode == 2
    assert again.stderr.startswith(f"marketing-pipeline: event {event_id} was cancelled (no use)")
    assert again.stderr.count("\n") == 1
    assert cli("pause", "everybody", "--why", " ").returncode == 2


REDIS = {"MARKETING_REDIS_URL": "redis://127.0.0.1:1/0"}  # nobody asks the gate


@pytest.mark.filterwarnings("ignore::dagster.BetaWarning")
def test_the_job_in_dagster_does_the_same(
    database: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for key, value in {"MARKETING_DATABASE_URL": database, **REDIS}.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("MARKETING_HOME", str(tmp_path))
    forget_settings()

    async def run_it() -> None:
        async with crowded(database, persons=FEW) as log:
            for action, parked in (("pause", FEW), ("resume", 0), ("cancel", 0)):
                asked = {"action": action, "campaign": "everybody", "why": "a typo"}
                done = await asyncio.to_thread(
                    control_campaign.execute_in_process,
                    run_config={"ops": {"control": {"config": asked}}},
                    resources={"event_log": EventLog()},
                )
                assert done.success
                assert await log.value("select count(*) from effects where due_at = %s", FAR) == (
                    parked
                )
            assert await log.states() == {"SUPPRESSED": FEW}
            assert await log.value("select max(who) from interventions") == "somebody in Dagster"

    asyncio.run(run_it())
    forget_settings()


@pytest.mark.parametrize("ordered", [True, False], ids=["as it is", "known-bad"])
def test_where_one_campaign_is_the_whole_ledger_a_claim_reads_no_more_than_it_takes(
    database: str, ordered: bool
) -> None:
    """Elsewise all that waits would be read, and then sorted, for each claim."""
    query = queries.load("ledger.sql")["lock due"]

    async def run() -> None:
        async with crowded(database, persons=MANY) as log:
            await log.conn.execute("analyze")
            await log.conn.execute("set random_page_cost = 4")  # as servers have it elsewhere
            if not ordered:
                await log.conn.execute("set enable_indexscan = off")
            values = {"provider": MAIL, "limit": 100, "passed": [], "since": ledger.ALWAYS}
            found = await log.conn.execute(f"explain {query}".encode(), values)
            plan = "\n".join(row[0] for row in await found.fetchall())
            in_order = "Index Scan using effects_due on effects x" in plan and "Key: x" not in plan
            by_key = "Seq Scan on recipients" not in plan
            assert (in_order and by_key) is ordered, plan

    asyncio.run(run())
