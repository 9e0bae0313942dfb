"""Cuts, plans and `once` against a real PostgreSQL: open transactions, deaths, and rivals."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import AsyncConnection
from psycopg.rows import dict_row

from marketing_pipeline.campaigns import meaning
from marketing_pipeline.delivery import campaigns, planner
from marketing_pipeline.delivery.writing_out import CHUNK
from marketing_pipeline.domain import audience, event, plan
from marketing_pipeline.domain.event import EventType, NewEvent
from marketing_pipeline.domain.rules import Rules
from marketing_pipeline.domain.template import Template
from marketing_pipeline.event_log import cuts, intake, ledger, people, versions
from marketing_pipeline.event_log.cuts import Cut, CutTimeout
from marketing_pipeline_tests.pipeline import campaign

NOW = datetime.now(UTC)
MONTH = timedelta(days=30)
PATIENCE = timedelta(seconds=10)  # for what is expected to end
IMPATIENCE = timedelta(seconds=0.2)  # for what is not
MANY = 5000  # people: two chunks and a half
WELCOME = Template(hash="b" * 64, name="welcome", subject="s", html="h")


def body(once: timedelta | None = None, *, for_ever: bool = False, **step: Any) -> dict[str, Any]:
    """The stored form of a file in which every lead gets one mail, and `everybody` another."""
    mail = {"step": "mail", "provider": "mail", "kind": "email", "properties": {}}
    welcome = mail | {"priority": "urgent", "template": "welcome"} | step
    if once or for_ever:
        welcome["once"] = {"within": once.total_seconds() if once else None}
    return {
        "sender": {"email": "us@example.com", "name": "Us"},
        "audiences": {"all": {"sources": [], "where": {}, "newest": None}},
        "campaigns": {"everybody": {"audience": "all", "template": "welcome"}},
        "providers": {"mail": {"adapter": "resend", "options": {}}},
        "templates": {"welcome": {"hash": WELCOME.hash, "reads": ["number"]}},
        "routes": {
            "LEAD_CAPTURE": [welcome],
            "CAMPAIGN_TRIGGER": [mail | {"priority": "bulk", "template": None}],
        },
    }


def lead(key: str, address: str = "ada@example.com", at: datetime | None = None) -> NewEvent:
    return event.new(
        type=EventType.LEAD_CAPTURE,
        payload={"email": address, "number": key},
        source="web",
        key=key,
        now=NOW,
        scheduled_at=at,
    )


async def record(conn: AsyncConnection, *events: NewEvent) -> None:
    async with conn.transaction():
        await intake.record(conn, events, NOW)


@asynccontextmanager
async def log(database: str, *events: NewEvent) -> AsyncIterator[AsyncConnection]:
    """A connection in autocommit mode to a log that holds these events."""
    async with await AsyncConnection.connect(database, autocommit=True) as conn:
        await record(conn, *events)
        yield conn


async def keep(conn: AsyncConnection, stored: dict[str, Any]) -> Rules:
    meant = meaning.of(stored)
    await versions.keep_template(conn, WELCOME, NOW)
    await versions.keep_config(conn, meant.rules.digest, meant.body, NOW)
    return meant.rules


async def plan_all(conn: AsyncConnection, rules: Rules) -> None:
    while (done := await planner.plan_due(conn, rules, datetime.now(UTC))).events or done.campaigns:
        if not done.events and not await campaigns.plan_next(
            conn, rules, datetime.now(UTC), asyncio.Event()
        ):
            break
    await write_out(conn)


async def write_out(conn: AsyncConnection) -> int:
    """Finish the plans that were begun; how many effects were written."""
    return await campaigns.write_unfinished(conn, NOW, asyncio.Event())


async def rows(
    conn: AsyncConnection, query: LiteralString, *values: object
) -> list[dict[str, Any]]:
    async with conn.cursor(row_factory=dict_row) as cursor:
        return await (await cursor.execute(query, values)).fetchall()


async def effects(conn: AsyncConnection) -> dict[str, str]:
    """The state of each lead's effect, by the lead's key."""
    query = """select m.payload ->> 'number' as key, e.state
               from effects e join marketing_events m on m.id = e.event_id"""
    return {row["key"]: row["state"] for row in await rows(conn, query)}


async def statuses(conn: AsyncConnection) -> dict[str, str]:
    query = "select payload ->> 'number' as key, status from marketing_events"
    return {row["key"]: row["status"] for row in await rows(conn, query)}


async def under(conn: AsyncConnection, cut: Cut) -> set[int]:
    """The facts that a plan made by this cut reads."""
    query = """select seq from marketing_events where seq <= %s
               union select seq from suppressions where seq <= %s"""
    return {row["seq"] for row in await rows(conn, query, cut.seq, cut.seq)}


async def write_lead(writer: AsyncConnection) -> None:
    await intake.record(writer, [lead("late", "late@example.com")], NOW)


async def write_suppression(writer: AsyncConnection) -> None:
    [person] = await rows(writer, "select id from recipients")
    await ledger.suppress(writer, person["id"], "all", "unsubscribed", NOW)


async def draw_a_number(writer: AsyncConnection) -> None:
    """What a writer may do that numbers a fact first and writes it later."""
    await writer.execute("select set_config('test.seq', nextval('fact_seq')::text, true)")


async def write_under_the_number(writer: AsyncConnection) -> None:
    await writer.execute(
        """insert into marketing_events (id, seq, idempotency_key, type, payload, source,
                                         fingerprint, scheduled_at, created_at, updated_at)
           values (gen_random_uuid(), current_setting('test.seq')::bigint, 'late',
                   'CONTENT_PUBLISH', '{}', 'web', repeat('a', 64), now(), now(), now())"""
    )


async def nothing_more(_: AsyncConnection) -> None:
    """It wrote all it had to before the cut was asked for."""


WRITERS = [
    pytest.param(write_lead, nothing_more, id="event"),
    pytest.param(write_suppression, nothing_more, id="suppression"),
    pytest.param(
        draw_a_number,
        write_under_the_number,
        id="number",
    ),
]


@pytest.mark.parametrize(("before", "after"), WRITERS)
def test_a_cut_waits_for_whoever_has_drawn_a_number(database: str, before: Any, after: Any) -> None:
    async def run() -> None:
        async with (
            log(database, lead("1")) as conn,
            await AsyncConnection.connect(database) as writer,
        ):
            await before(writer)
            taking = asyncio.create_task(cuts.take(conn, NOW, PATIENCE))
            await asyncio.sleep(0.1)
            assert not taking.done(), "taken while a number below it was still to be committed"
            await after(writer)
            await writer.commit()
            cut = await taking
            assert len(await under(conn, cut)) == 2

    asyncio.run(run())


@pytest.mark.parametrize(("before", "after"), WRITERS)
def test_a_cut_is_refused_when_a_writer_stays_open(database: str, before: Any, after: Any) -> None:
    async def run() -> None:
        async with (
            log(database, lead("1")) as conn,
            await AsyncConnection.connect(database) as writer,
        ):
            await before(writer)
            with pytest.raises(CutTimeout, match="has been open for over"):
                await cuts.take(conn, NOW, IMPATIENCE)
            await after(writer)
            await writer.commit()
            cut = await cuts.take(conn, NOW, PATIENCE)
            assert len(await under(conn, cut)) == 2, "the connection is as good as before"

    asyncio.run(run())


def test_the_highest_number_alone_would_let_a_late_fact_slip_under(database: str) -> None:
    """The known-bad case of the cuts above: what waiting is for."""

    async def run() -> None:
        async with (
            log(database, lead("1")) as conn,
            await AsyncConnection.connect(database) as writer,
        ):
            await write_lead(writer)
            [highest] = await rows(conn, "select last_value from fact_seq")
            cut = Cut(seq=highest["last_value"], at=NOW)
            before = await under(conn, cut)
            await writer.commit()
            assert await under(conn, cut) > before

    asyncio.run(run())


def test_new_writers_neither_wait_for_a_cut_nor_come_under_it(database: str) -> None:
    async def run() -> None:
        async with (
            log(database, lead("1")) as conn,
            await AsyncConnection.connect(database) as slow,
            await AsyncConnection.connect(database) as quick,
        ):
            await write_lead(slow)
            taking = asyncio.create_task(cuts.take(conn, NOW, PATIENCE))
            await asyncio.sleep(0.05)
            await asyncio.wait_for(
                intake.record(quick, [lead("new", "new@example.com")], NOW), timeout=2
            )
            await slow.commit()
            cut = await taking  # though `quick` is still open
            seen = await under(conn, cut)
            await quick.commit()
            assert len(seen) == 2
            assert await under(conn, cut) == seen

    asyncio.run(run())


def test_whoever_only_reads_holds_no_cut_back(database: str) -> None:
    async def run() -> None:
        async with (
            log(database, lead("1")) as conn,
            await AsyncConnection.connect(database) as reader,
        ):
            await rows(reader, "select * from marketing_events, suppressions for share")
            await rows(reader, "select last_value from fact_seq")
            await cuts.take(conn, NOW, IMPATIENCE)

    asyncio.run(run())


def test_an_empty_log_has_an_empty_cut(database: str) -> None:
    async def run() -> None:
        async with log(database) as conn:
            assert (await cuts.take(conn, NOW, IMPATIENCE)).seq == 0

    asyncio.run(run())


def test_a_campaign_waits_for_an_open_writer_and_leads_do_not(database: str) -> None:
    async def run() -> None:
        async with (
            log(database, lead("1"), campaign("everybody", "c")) as conn,
            await AsyncConnection.connect(database) as writer,
        ):
            rules = await keep(conn, body())
            await write_lead(writer)
            await planner.plan_due(conn, rules, datetime.now(UTC))
            assert await statuses(conn) == {"1": "PROCESSING", None: "PENDING"}
            await writer.commit()
            await plan_all(conn, rules)
            [promised] = await rows(conn, "select max(count) as count from plans")
            assert promised["count"] == 2, "it reads the late lead too"

    asyncio.run(run())


def test_planning_twice_writes_one_plan(database: str) -> None:
    async def run() -> None:
        async with log(database, lead("1"), campaign("everybody", "c")) as conn:
            rules = await keep(conn, body())
            await plan_all(conn, rules)
            query: LiteralString = (
                "select to_jsonb(p) as p, (select count(*) from effects) from plans p"
            )
            before = await rows(conn, query)
            assert len(before) == 2
            await conn.execute("update marketing_events set status = 'PENDING'")
            await record(conn, lead("2", "eve@example.com"))  # the audience has grown meanwhile
            await conn.execute(
                "update marketing_events set status = 'COMPLETED' where payload ->> 'number' = '2'"
            )
            await plan_all(conn, rules)
            assert await rows(conn, query) == before
            assert set((await statuses(conn)).values()) == {"PROCESSING", "COMPLETED"}

    asyncio.run(run())


def test_planners_at_once_plan_every_event_once(database: str) -> None:
    async def run() -> None:
        many = 2 * planner.BATCH + 50
        events = [lead(str(n), f"p{n}@example.com") for n in range(many)]
        async with (
            log(database, *events) as conn,
            await AsyncConnection.connect(database, autocommit=True) as other,
        ):
            rules = await keep(conn, body())
            both = await asyncio.gather(
                *(planner.plan_due(one, rules, NOW + timedelta(seconds=1)) for one in (conn, other))
            )
            assert [one.events for one in both] == [planner.BATCH] * 2
            await asyncio.gather(*(plan_all(one, rules) for one in (conn, other)))
            assert (await rows(conn, "select count(*) from plans"))[0]["count"] == many
            assert len(await effects(conn)) == many

    asyncio.run(run())


@asynccontextmanager
async def _half_written(
    database: str, rules_body: dict[str, Any]
) -> AsyncIterator[AsyncConnection]:
    """A campaign to many of which the first chunk is written."""
    crowd = [lead(str(n), f"p{n}@example.com") for n in range(MANY)]
    async with log(database, *crowd) as conn:
        rules = await keep(conn, rules_body)
        await conn.execute("update marketing_events set status = 'COMPLETED'")
        await record(conn, campaign("everybody", "c"))
        now = datetime.now(UTC)
        assert await campaigns.plan_next(conn, rules, now, asyncio.Event()) == 1
        await _write_first_chunk(database)
        assert await _written(conn) == (CHUNK, CHUNK)
        yield conn


async def _write_first_chunk(database: str) -> None:
    """As far as somebody comes who dies after it."""
    async with await AsyncConnection.connect(database, autocommit=True) as dies:
        await dies.execute(
            f"""create function die_early() returns trigger language plpgsql as $$
                begin perform pg_terminate_backend(pg_backend_pid()); return new; end $$;
                create trigger dies_early before update of inserted on plans
                for each row when (new.inserted > {CHUNK}) execute function die_early()""".encode()
        )
        with pytest.raises(psycopg.OperationalError):
            await write_out(dies)
    async with await AsyncConnection.connect(database, autocommit=True) as conn:
        await conn.execute("drop trigger dies_early on plans")


async def _written(conn: AsyncConnection) -> tuple[int, int]:
    """What the plan counts as written, and what there is."""
    [one] = await rows(conn, "select inserted, (select count(*) from effects) as held from plans")
    return one["inserted"], one["held"]


async def _is_whole(conn: AsyncConnection, rules: Rules) -> None:
    """The ledger holds just what the plan promised: its digest is taken again from the log."""
    assert await _written(conn) == (MANY, MANY)
    [stored] = await rows(
        conn,
        """select p.event_id, p.epoch, p.cut_seq, p.digest, p.config_digest, m.payload,
                  m.scheduled_at, m.seq
           from plans p join marketing_events m on m.id = p.event_id""",
    )
    async with conn.transaction():
        pages = people.people_up_to(conn, stored["cut_seq"])
        facts = [fact async for page in pages for fact in page]
    whole = list(
        plan.effects(
            event.Event(
                id=stored["event_id"],
                seq=stored["seq"],
                type=EventType.CAMPAIGN_TRIGGER,
                payload=stored["payload"],
                source="demo",
                origin=event.Origin.LIVE,
                scheduled_at=stored["scheduled_at"],
                recipient_id=None,
            ),
            rules,
            stored["epoch"],
            audience.members(facts, rules.campaigns["everybody"].audience),
        )
    )
    assert planner.plan_digest(whole) == stored["digest"]
    held = {row["id"] for row in await rows(conn, "select id from effects")}
    assert held == {one.id for one in whole}


def test_a_plan_that_was_interrupted_between_chunks_is_finished(database: str) -> None:
    async def run() -> None:
        async with _half_written(database, body()) as conn:
            await conn.execute(
                """create function die() returns trigger language plpgsql as $$
                   begin perform pg_terminate_backend(pg_backend_pid()); return new; end $$;
                   create trigger dies before update of inserted on plans
                   for each row when (new.inserted = new.count) execute function die()"""
            )
            async with await AsyncConnection.connect(database, autocommit=True) as dies:
                with pytest.raises(psycopg.OperationalError):
                    await write_out(dies)
            assert await _written(conn) == (2 * CHUNK, 2 * CHUNK)
            await conn.execute("drop trigger dies on plans")
            stopping = asyncio.Event()
            stopping.set()
            assert await campaigns.write_unfinished(conn, NOW, stopping) == 0, "told to stop"
            await record(conn, lead("new", "new@example.com"))  # above the cut: not in this plan
            assert await write_out(conn) == MANY - 2 * CHUNK
            await _is_whole(conn, meaning.of(body()).rules)
            assert await write_out(conn) == 0

    asyncio.run(run())


def test_two_who_finish_a_plan_at_once_write_each_effect_once(database: str) -> None:
    async def run() -> None:
        async with (
            _half_written(database, body()) as conn,
            await AsyncConnection.connect(database, autocommit=True) as other,
        ):
            written = await asyncio.gather(*(write_out(one) for one in (conn, other)))
            while await write_out(conn):
                pass
            assert sum(written) <= MANY - CHUNK
            await _is_whole(conn, meaning.of(body()).rules)

    asyncio.run(run())


def test_a_plan_is_finished_by_the_rules_it_names_whatever_the_file_says_now(database: str) -> None:
    async def run() -> None:
        old = body(provider="elsewhere")  # a step of leads: another digest, the same campaign
        async with _half_written(database, old) as conn:
            await keep(conn, body())
            await write_out(conn)
            await _is_whole(conn, meaning.of(old).rules)

    asyncio.run(run())


async def _planned_in_turn(
    database: str, stored: dict[str, Any], *rounds: Sequence[NewEvent]
) -> tuple[dict[str, str], dict[str, str]]:
    """States of effects and statuses of events after each round was recorded and planned."""
    async with log(database) as conn:
        rules = await keep(conn, stored)
        for events in rounds:
            await record(conn, *events)
            await plan_all(conn, rules)
        return await effects(conn), await statuses(conn)


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize(
    ("stored", "later", "second"),
    [
        (body(for_ever=True), timedelta(0), "SUPPRESSED"),
        (body(for_ever=True), 12 * MONTH, "SUPPRESSED"),
        (body(MONTH), MONTH - timedelta(seconds=1), "SUPPRESSED"),
        (body(), timedelta(0), "PLANNED"),  # the known-bad case: without `once` both are sent
    ],
)
def test_once_keeps_a_second_mail_from_a_person(
    database: str, stored: dict[str, Any], later: timedelta, second: str, together: bool
) -> None:
    first, again = lead("1", at=NOW - 13 * MONTH), lead("2", at=NOW - 13 * MONTH + later)
    in_turn = [[first, again]] if together else [[first], [again]]
    found, ends = asyncio.run(_planned_in_turn(database, stored, *in_turn))
    assert sorted(found.values()) == sorted(["PLANNED", second])
    refused = {key for key, state in found.items() if state == "SUPPRESSED"}
    assert {key for key, status in ends.items() if status == "COMPLETED"} == refused


@pytest.mark.parametrize("together", [False, True])
def test_after_the_span_of_once_a_person_is_reached_again(database: str, together: bool) -> None:
    first, again = lead("1", at=NOW - 2 * MONTH), lead("2", at=NOW - MONTH)
    in_turn = [[first, again]] if together else [[first], [again]]
    found, _ = asyncio.run(_planned_in_turn(database, body(MONTH), *in_turn))
    assert found == {"1": "PLANNED", "2": "PLANNED"}


def test_a_refused_mail_says_why(database: str) -> None:
    async def run() -> None:
        async with log(database, lead("1"), lead("2")) as conn:
            await plan_all(conn, await keep(conn, body(for_ever=True)))
            [refused] = await rows(conn, "select * from effects where state = 'SUPPRESSED'")
            assert refused["last_error"] == "once: another effect has reached this person, or will"
            assert (refused["calls"], refused["doubt_since"]) == (0, None)

    asyncio.run(run())


def test_once_is_of_one_person(database: str) -> None:
    events = [lead(str(n), f"p{n}@example.com") for n in range(5)]
    found, _ = asyncio.run(_planned_in_turn(database, body(for_ever=True), events))
    assert set(found.values()) == {"PLANNED"}


@pytest.mark.parametrize(
    ("way", "second"),
    [
        (["FAILED"], "PLANNED"),
        (["SUPPRESSED"], "PLANNED"),
        ([], "SUPPRESSED"),
        (["SENT"], "SUPPRESSED"),
        (["DOUBT"], "SUPPRESSED"),
        (["DOUBT", "UNKNOWN"], "SUPPRESSED"),
    ],
)
def test_only_what_certainly_was_not_sent_frees_its_key(
    database: str, way: list[str], second: str
) -> None:
    async def run() -> None:
        async with log(database, lead("1")) as conn:
            rules = await keep(conn, body(for_ever=True))
            await plan_all(conn, rules)
            for state in way:
                await conn.execute(
                    """update effects set state = %(state)s, calls = 1, provider_ref = 'r',
                           last_error = 'e', first_attempt_at = due_at, last_attempt_at = due_at,
                           settled_at = case when %(state)s <> 'DOUBT' then due_at end,
                           doubt_since = case when %(state)s in ('DOUBT', 'UNKNOWN')
                                              then due_at end""",
                    {"state": state},
                )
            await record(conn, lead("2"))
            await plan_all(conn, rules)
            assert (await effects(conn))["2"] == second

    asyncio.run(run())


@pytest.mark.parametrize(
    ("first_ends", "second"), [("commit", "SUPPRESSED"), ("rollback", "PLANNED")]
)
def test_of_two_planners_at_once_one_reaches_the_person(
    database: str, first_ends: str, second: str
) -> None:
    async def run() -> None:
        async with (
            log(database, lead("1")) as conn,
            await AsyncConnection.connect(database) as first,
        ):
            rules = await keep(conn, body(for_ever=True))
            now = NOW + timedelta(seconds=1)
            await first.execute("select")  # so that its transaction stays open
            await planner.plan_due(first, rules, now)
            await record(conn, lead("2"))
            planning_too = asyncio.create_task(planner.plan_due(conn, rules, now))
            await asyncio.sleep(0.1)
            assert not planning_too.done(), "planned before it could know"
            await (first.commit() if first_ends == "commit" else first.rollback())
            assert (await planning_too).events == 1
            assert (await effects(conn))["2"] == second
            await plan_all(conn, rules)
            assert sorted((await effects(conn)).values()) == ["PLANNED", "SUPPRESSED"]

    asyncio.run(run())


@pytest.mark.parametrize("age", [None, timedelta(hours=24)])
def test_an_effect_expires_so_long_after_it_was_due(database: str, age: timedelta | None) -> None:
    async def run() -> None:
        due = NOW - timedelta(hours=1)
        async with log(database, lead("1", at=due)) as conn:
            spoken: dict[str, Any] = {} if age is None else {"max_age": age.total_seconds()}
            await plan_all(conn, await keep(conn, body(**spoken)))
            [one] = await rows(conn, "select due_at, expires_at from effects")
            assert one == {"due_at": due, "expires_at": age and due + age}

    asyncio.run(run())


def test_what_was_due_before_an_adoption_starts_in_doubt(database: str) -> None:
    async def run() -> None:
        adopted = NOW - timedelta(hours=1)
        old, new = adopted - timedelta(minutes=1), adopted + timedelta(minutes=1)
        events = [lead("old", at=old), lead("new", "eve@example.com", at=new)]
        async with log(database, *events) as conn:
            await conn.execute(
                """update installation set adopted_at = %(at)s, look_at = %(at)s,
                   adopted_why = 'restored'""",
                {"at": adopted},
            )
            rules = await keep(conn, body(for_ever=True))
            await plan_all(conn, rules)
            await record(conn, lead("refused", at=old))
            await plan_all(conn, rules)
            states = {"old": "DOUBT", "new": "PLANNED", "refused": "SUPPRESSED"}
            assert await effects(conn) == states
            [one] = await rows(conn, "select * from effects where state = 'DOUBT'")
            assert one["doubt_since"] == one["first_attempt_at"] == one["last_attempt_at"] == old
            assert (one["attempts"], one["calls"]) == (0, 0)

    asyncio.run(run())
