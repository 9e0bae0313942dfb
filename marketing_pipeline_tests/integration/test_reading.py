"""Balances against a count in Python, and the days that are told to have changed."""

import asyncio
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, LiteralString
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg import AsyncConnection, Rollback

from marketing_pipeline import embedded
from marketing_pipeline.event_log import ledger, reading
from marketing_pipeline.event_log.reading import Balance

TODAY = datetime.now(UTC).date()
FIRST = TODAY - timedelta(days=2)
CLOSED = ("SENT", "FAILED", "SUPPRESSED", "UNKNOWN")
OPEN = ("PLANNED", "SENDING", "DOUBT")
HASH = "a" * 64
small = settings(max_examples=30, deadline=None)  # each example is some tens of statements


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """An event, and what was promised and is held of it."""

    day: date
    status: str
    promised: int | None  # None: there is no plan
    states: tuple[str, ...]  # of its effects, all of which the plan counts as written


@st.composite
def stories(draw: st.DrawFn) -> Story:
    day = FIRST + timedelta(days=draw(st.integers(0, 3)))
    if draw(st.booleans()):
        status = draw(st.sampled_from(("PENDING", "FAILED")))  # FAILED: it could not be planned
        return Story(day=day, status=status, promised=None, states=())
    states = tuple(draw(st.lists(st.sampled_from(CLOSED + OPEN), max_size=4)))
    promised = len(states) + draw(st.integers(0, 2))
    status = draw(st.sampled_from(("PENDING", "PROCESSING", "COMPLETED")))
    return Story(day=day, status=status, promised=promised, states=states)


@pytest.fixture(scope="module")
def shared(servers: embedded.Servers, template: str) -> Iterator[str]:
    """One database for the tests of this module that roll back what they do."""
    name = f"shared_{uuid.uuid4().hex}"
    with psycopg.connect(servers.database_url, autocommit=True) as admin:
        admin.execute(f'create database "{name}" template "{template}"')
        yield urlunsplit(urlsplit(servers.database_url)._replace(path=f"/{name}"))
        admin.execute(f'drop database "{name}" with (force)')


def using(database: str, act: Callable[[AsyncConnection], Awaitable[None]]) -> None:
    """Act in a transaction that is rolled back, so that every example finds an empty log."""

    async def run() -> None:
        async with (
            await AsyncConnection.connect(database, autocommit=True) as conn,
            conn.transaction() as whole,
        ):
            await conn.execute(
                "insert into configs (digest, body, created_at) values (%s, '{}', now())", (HASH,)
            )
            await act(conn)
            raise Rollback(whole)

    asyncio.run(run())


async def write_event(
    conn: AsyncConnection, day: date, status: str = "PENDING", seq: int | None = None
) -> uuid.UUID:
    event_id = uuid.uuid4()
    await conn.execute(
        """insert into marketing_events (id, seq, idempotency_key, type, payload, source,
               fingerprint, scheduled_at, created_at, status, updated_at)
           values (%(id)s, coalesce(%(seq)s, nextval('fact_seq')), %(id)s::text, 'CONTENT_PUBLISH',
                   '{}', 'web', repeat('a', 64), %(due)s, now(), %(status)s, now())""",
        {
            "id": event_id,
            "seq": seq,
            "due": datetime.combine(day, time(12, tzinfo=UTC)),
            "status": status,
        },
    )
    return event_id


async def write_plan(conn: AsyncConnection, event_id: uuid.UUID, count: int, inserted: int) -> None:
    await conn.execute(
        """insert into plans (event_id, day, cut_seq, cut_at, config_digest, plan_version, count,
               digest, inserted, created_at)
           select id, day, seq, now(), %s, 1, %s, repeat('b', 64), %s, now()
           from marketing_events where id = %s""",
        (HASH, count, inserted, event_id),
    )


async def write_effects(conn: AsyncConnection, event_id: uuid.UUID, states: Sequence[str]) -> None:
    await conn.execute(
        """insert into effects (id, event_id, epoch, day, event_seq, route, step, provider, kind,
               state, priority, attempts, calls, due_at, claim_id, lease_until, first_attempt_at,
               last_attempt_at, doubt_since, provider_ref, last_error, created_at, updated_at,
               settled_at)
           select gen_random_uuid(), m.id, 0, m.day, m.seq, m.type, 'post', 'site', 'post',
                  state, 1, tried::int, tried::int, now(), case state when 'SENDING' then m.id end,
                  case state when 'SENDING' then now() end, case when tried then now() end,
                  case when tried then now() end,
                  case when state in ('DOUBT', 'UNKNOWN') then now() end,
                  case state when 'SENT' then 'ref' end,
                  case when state in ('FAILED', 'SUPPRESSED', 'UNKNOWN') then 'why' end,
                  now(), now(), case when state = any(%(closed)s) then now() end
           from marketing_events m
           cross join lateral (select state, state not in ('PLANNED', 'SUPPRESSED') as tried
                               from unnest(%(states)s::text[]) as state) as held
           where m.id = %(id)s""",
        {"id": event_id, "states": list(states), "closed": list(CLOSED)},
    )


async def write(conn: AsyncConnection, story: Story) -> None:
    event_id = await write_event(conn, story.day, story.status)
    if story.promised is not None:
        await write_plan(conn, event_id, story.promised, len(story.states))
        await write_effects(conn, event_id, story.states)


def counted(told: Sequence[Story], from_day: date, to_day: date) -> list[Balance]:
    """What the balances must be, counted without SQL."""
    found = []
    for day in sorted({story.day for story in told}):
        own = [story for story in told if story.day == day]
        waiting = sum(story.status == "PENDING" for story in own)
        planned = [story for story in own if story.promised is not None]
        held = Counter(state for story in own for state in story.states)
        to_write = sum((story.promised or 0) - len(story.states) for story in planned)
        if (waiting or planned) and from_day <= day <= to_day:
            found.append(
                Balance(
                    day=day,
                    planned=sum(story.promised or 0 for story in planned),
                    sent=held["SENT"],
                    failed=held["FAILED"],
                    suppressed=held["SUPPRESSED"],
                    unknown=held["UNKNOWN"],
                    open=sum(held[state] for state in OPEN) + to_write,
                    unplanned=waiting,
                    missing=0,
                )
            )
    return found


def test_balances_are_what_a_count_says(shared: str) -> None:
    @small
    @given(st.lists(stories(), max_size=6), st.integers(-1, 3), st.integers(0, 4))
    def holds(told: list[Story], begin: int, length: int) -> None:
        from_day = FIRST + timedelta(days=begin)
        to_day = from_day + timedelta(days=length)

        async def act(conn: AsyncConnection) -> None:
            for story in told:
                await write(conn, story)
            found = await reading.conservation(conn, from_day, to_day)
            assert found == counted(told, from_day, to_day)
            for one in found:
                ended = one.sent + one.failed + one.suppressed + one.unknown
                assert one.planned == ended + one.open + one.missing
            days = [story.day for story in told]
            assert await reading.balances(conn, days) == counted(told, date.min, date.max)

        using(shared, act)

    holds()


TAMPERING: list[tuple[LiteralString, dict[int, int]]] = [
    ("delete from effects where state = 'SUPPRESSED'", {0: 1}),  # lost
    (
        """insert into effects (id, event_id, epoch, day, event_seq, route, step, provider, kind,
               state, priority, due_at, created_at, updated_at)
           select gen_random_uuid(), event_id, epoch, day, event_seq, route, 'more', provider, kind,
                  'PLANNED', 1, now(), now(), now() from effects where state = 'SUPPRESSED'""",
        {0: -1},  # never promised
    ),
    ("update effects set day = day + 1 where state = 'SUPPRESSED'", {0: 1, 1: -1}),
    ("update plans set count = count + 2, inserted = inserted + 2", {0: 2}),
    ("update plans set day = day + 1", {0: -2, 1: 2}),
    ("delete from effects", {0: 2}),
]


@pytest.mark.parametrize(("tamper", "missing"), TAMPERING)
def test_a_ledger_that_does_not_hold_what_was_planned_is_found_out(
    shared: str, tamper: LiteralString, missing: dict[int, int]
) -> None:
    async def act(conn: AsyncConnection) -> None:
        story = Story(day=FIRST, status="PROCESSING", promised=3, states=("SUPPRESSED", "PLANNED"))
        await write(conn, story)
        [balanced] = await reading.conservation(conn, FIRST, TODAY)
        assert balanced.missing == 0
        await conn.execute(tamper)
        found = await reading.conservation(conn, FIRST, TODAY)
        assert {(one.day - FIRST).days: one.missing for one in found} == missing

    using(shared, act)


async def snapshot(conn: AsyncConnection) -> dict[date, tuple[Any, Any]]:
    """All that views read of each day up to today."""
    rows = await (
        await conn.execute(
            """select m.day, array_agg((m.id, m.fingerprint, m.status)::text order by m.id),
                      (select array_agg((e.id, e.state, e.attempts)::text order by e.id)
                       from effects e where e.day = m.day)
               from marketing_events m where m.day <= %s group by m.day""",
            (TODAY,),
        )
    ).fetchall()
    return {day: (facts, held) for day, facts, held in rows}


async def _capture(conn: AsyncConnection, day: date) -> None:
    await write_event(conn, day)


async def _plan(conn: AsyncConnection, day: date) -> None:
    found = await conn.execute(
        """update marketing_events set status = 'PROCESSING' where id = (
               select id from marketing_events where day = %s and status = 'PENDING' limit 1)
           returning id""",
        (day,),
    )
    for (event_id,) in await found.fetchall():
        await write_plan(conn, event_id, 1, 1)
        await write_effects(conn, event_id, ["PLANNED"])


async def _try(conn: AsyncConnection, day: date) -> None:
    await conn.execute(
        """update effects set attempts = attempts + 1, calls = calls + 1, state = 'DOUBT',
               first_attempt_at = now(), last_attempt_at = now(), doubt_since = now()
           where day = %s and state = 'PLANNED'""",
        (day,),
    )


async def _end(conn: AsyncConnection, day: date, state: str) -> None:
    found = await conn.execute(
        """update effects set state = %s, provider_ref = 'ref', last_error = 'why',
               settled_at = now(), doubt_since = null, calls = calls + 1
           where day = %s and state in ('PLANNED', 'DOUBT') returning event_id""",
        (state, day),
    )
    ended = [row[0] for row in await found.fetchall()]
    await ledger.complete(conn, ended, datetime.now(UTC))


async def _send(conn: AsyncConnection, day: date) -> None:
    await _end(conn, day, "SENT")


async def _fail(conn: AsyncConnection, day: date) -> None:
    await _end(conn, day, "FAILED")


STEPS = (_capture, _plan, _try, _send, _fail)
days = st.integers(0, 3).map(lambda number: FIRST + timedelta(days=number))  # one is tomorrow


def test_just_the_days_that_changed_are_told_and_only_once(shared: str) -> None:
    @small
    @given(st.lists(st.lists(st.tuples(st.sampled_from(STEPS), days), max_size=5), max_size=5))
    def holds(rounds: list[list[tuple[Any, date]]]) -> None:
        async def act(conn: AsyncConnection) -> None:
            told = await snapshot(conn)
            for steps in rounds:
                for step, day in steps:
                    await step(conn, day)
                now = await snapshot(conn)
                changed = {day for day, content in now.items() if told.get(day) != content}
                assert set(await reading.observe_changed(conn)) == changed
                assert await reading.observe_changed(conn) == {}
                told = now

        using(shared, act)

    holds()


async def _settled(conn: AsyncConnection, end: Any) -> dict[date, str]:
    """A day that is at its end, and what was told of it."""
    await _capture(conn, FIRST)
    await _plan(conn, FIRST)
    await end(conn, FIRST)
    told = await reading.observe_changed(conn)
    assert set(told) == {FIRST}
    assert await reading.observe_changed(conn) == {}
    return told


async def _late_accepted(conn: AsyncConnection) -> None:
    await conn.execute("update effects set state = 'SENT', provider_ref = 'ref', last_error = null")
    rows = await (await conn.execute("select event_id from effects")).fetchall()
    await ledger.complete(conn, [row[0] for row in rows], datetime.now(UTC))


async def _redriven_and_sent(conn: AsyncConnection) -> None:
    await conn.execute(
        "update effects set state = 'PLANNED', redrives = 1, attempts = 0, settled_at = null"
    )
    await conn.execute("update marketing_events set status = 'PROCESSING'")
    await _send(conn, FIRST)


async def _late_commit(conn: AsyncConnection) -> None:
    """An event whose number was drawn before those that were observed, delivered at once."""
    event_id = await write_event(conn, FIRST, seq=1)
    await write_plan(conn, event_id, 1, 1)
    await conn.execute(
        "update marketing_events set status = 'PROCESSING' where id = %s", (event_id,)
    )
    await write_effects(conn, event_id, ["PLANNED"])
    await _send(conn, FIRST)


@pytest.mark.parametrize(
    "change",
    [
        _late_accepted,
        _redriven_and_sent,
        _late_commit,
    ],
)
def test_a_day_that_was_at_its_end_and_moved_again_is_told(
    shared: str, change: Callable[[AsyncConnection], Awaitable[None]]
) -> None:
    async def act(conn: AsyncConnection) -> None:
        await conn.execute("select setval('fact_seq', 10)")
        before = await _settled(conn, _fail)
        await change(conn)
        after = await reading.observe_changed(conn)
        assert set(after) == {FIRST}
        assert after != before
        assert await reading.observe_changed(conn) == {}

    using(shared, act)


def test_what_is_due_tomorrow_is_told_tomorrow(shared: str) -> None:
    async def act(conn: AsyncConnection) -> None:
        await _capture(conn, TODAY + timedelta(days=1))
        assert await reading.observe_changed(conn) == {}
        assert set(await reading.changed_days(conn, TODAY + timedelta(days=1))) == {
            TODAY + timedelta(days=1)
        }

    using(shared, act)


def test_a_version_says_where_a_day_stands(shared: str) -> None:
    async def act(conn: AsyncConnection) -> None:
        await _capture(conn, FIRST)
        await _plan(conn, FIRST)
        [under_way] = (await reading.observe_changed(conn)).values()
        await _send(conn, FIRST)
        [ended] = (await reading.observe_changed(conn)).values()
        assert under_way.endswith(".open")
        assert ended.endswith(".settled")
        assert under_way.split(".")[0] != ended.split(".")[0]
        await conn.execute("update effects set last_error = 'no view reads this'")
        assert (await reading.day_versions(conn, [FIRST]))[FIRST] == ended

    using(shared, act)
