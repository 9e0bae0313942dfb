"""How the log takes events, from one writer and from many at once."""

import asyncio
import random
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection, errors

from marketing_pipeline.domain import digest, event
from marketing_pipeline.domain.event import EventType, InvalidEvent, NewEvent
from marketing_pipeline.event_log import intake, schema
from marketing_pipeline.event_log.intake import Recorded, Verdict

NOW = datetime(2026, 3, 1, 9, tzinfo=UTC)
ACCEPTED, DUPLICATE, CONFLICT = Verdict
PATIENCE = timedelta(seconds=10)  # more than anything here takes
AT_THE_COMMIT = """
create table seen (synchronous_commit text, statement_timeout text);
create function at_the_commit() returns trigger language plpgsql as $$ begin
    if new.payload->>'text' = 'bad' then raise exception 'refused at the commit'; end if;
    insert into seen values
        (current_setting('synchronous_commit'), current_setting('statement_timeout'));
    return null;
end $$;
create constraint trigger at_the_commit after insert on marketing_events
    deferrable initially deferred for each row execute function at_the_commit();
"""


def lead(address: str = "ada@example.com", key: str | None = None, **said: Any) -> NewEvent:
    usual: dict[str, Any] = {
        "type": EventType.LEAD_CAPTURE,
        "payload": {"email": address, "name": "Ada"},
        "source": "web",
        "key": key or str(uuid.uuid4()),
        "now": NOW,
    }
    return event.new(**(usual | said))


def post(key: str | None = None, text: str = "hello", **said: Any) -> NewEvent:
    return lead(key=key, type=EventType.CONTENT_PUBLISH, payload={"text": text}, **said)


async def recorded(
    conn: AsyncConnection[Any], events: Sequence[NewEvent], now: datetime = NOW
) -> list[Recorded]:
    return await intake.commit(conn, events, now, PATIENCE)


def record(database: str, *calls: Sequence[NewEvent]) -> list[list[Verdict]]:
    async def run() -> list[list[Verdict]]:
        async with await AsyncConnection.connect(database, autocommit=True) as conn:
            return [[one.verdict for one in await recorded(conn, events)] for events in calls]

    return asyncio.run(run())


def rows(database: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(database) as conn:
        return conn.execute(query.encode()).fetchall()


def test_a_new_event_is_stored_with_all_its_facts(database: str) -> None:
    one = lead(scheduled_at=NOW + timedelta(days=1), traceparent="00-" + "a" * 32)
    assert record(database, [one]) == [[ACCEPTED]]
    assert rows(
        database,
        """select m.id, idempotency_key, type, payload, source, origin, fingerprint, address,
                  scheduled_at, m.created_at, traceparent, status
           from marketing_events m join recipients r on r.id = recipient_id""",
    ) == [
        (
            one.id,
            one.idempotency_key,
            "LEAD_CAPTURE",
            {"name": "Ada"},
            "web",
            "live",
            one.fingerprint,
            "ada@example.com",
            NOW + timedelta(days=1),
            NOW,
            one.traceparent,
            "PENDING",
        )
    ]


def test_a_repeat_changes_nothing_and_names_the_first(database: str) -> None:
    first, repeat = lead(key="k"), lead(key="k", now=NOW + timedelta(hours=1))

    async def run() -> list[Recorded]:
        async with await AsyncConnection.connect(database, autocommit=True) as conn:
            [before] = await recorded(conn, [first])
            [after] = await recorded(conn, [repeat], NOW + timedelta(hours=1))
            return [before, after]

    assert asyncio.run(run()) == [
        Recorded(event_id=first.id, verdict=ACCEPTED),
        Recorded(event_id=first.id, verdict=DUPLICATE),
    ]
    assert rows(database, "select created_at, scheduled_at from marketing_events") == [(NOW, NOW)]


@pytest.mark.parametrize(
    ("other", "verdict"),
    [
        (post("00000000-0000-4000-8000-000000000001"), DUPLICATE),
        (post("00000000-0000-4000-8000-000000000001", text="bye"), CONFLICT),
        (post("00000000-0000-4000-8000-000000000001", source="crm"), CONFLICT),
        (
            lead(
                key="00000000-0000-4000-8000-000000000001",
                type=EventType.CAMPAIGN_TRIGGER,
                payload={"text": "hello", "campaign": "spring"},
            ),
            CONFLICT,
        ),
        (post("00000000-0000-4000-8000-000000000001", scheduled_at=NOW), DUPLICATE),
        (
            post("00000000-0000-4000-8000-000000000001", scheduled_at=NOW + timedelta(days=1)),
            CONFLICT,
        ),
    ],
)
def test_the_same_key_is_a_repeat_only_for_the_same_event(
    database: str, other: NewEvent, verdict: Verdict
) -> None:
    first = post("00000000-0000-4000-8000-000000000001")
    assert record(database, [first], [other]) == [[ACCEPTED], [verdict]]


def test_a_repeat_without_its_time_is_still_a_repeat(database: str) -> None:
    timed = post("k", scheduled_at=NOW + timedelta(days=1))
    assert record(database, [timed], [post("k")]) == [[ACCEPTED], [DUPLICATE]]


def test_one_key_twice_in_a_call_is_accepted_once(database: str) -> None:
    events = [post("k"), post("other"), post("k"), post("k", text="bye")]
    assert record(database, events) == [[ACCEPTED, ACCEPTED, DUPLICATE, CONFLICT]]
    assert rows(database, "select count(*) from marketing_events") == [(2,)]


def test_of_two_events_with_one_key_in_a_call_the_first_stays(database: str) -> None:
    assert record(database, [post("k", text="first"), post("k", text="second")]) == [
        [ACCEPTED, CONFLICT]
    ]
    assert rows(database, "select payload ->> 'text' from marketing_events") == [("first",)]


def test_events_of_a_call_are_numbered_in_the_order_they_came(database: str) -> None:
    events = [post(text=str(number)) for number in range(50)]
    record(database, events)
    assert rows(
        database,
        "select array_agg((payload ->> 'text')::int order by seq) from marketing_events",
    ) == [(list(range(50)),)]


def test_leads_of_one_person_share_a_recipient(database: str) -> None:
    record(database, [lead(), lead("ADA@example.com"), lead("bob@example.com")], [lead()])
    assert rows(
        database,
        """select address, count(*) from marketing_events m join recipients r on r.id = recipient_id
           group by address order by address""",
    ) == [("ada@example.com", 3), ("bob@example.com", 1)]
    versions = rows(database, "select distinct substr(id::text, 15, 1) from recipients")
    assert versions == [("4",)], "a recipient's id must not be derived from anything"


def test_no_events_make_no_query(database: str) -> None:
    assert record(database, []) == [[]]


def test_listeners_are_told_once_a_call_and_only_of_new_events(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as listener:
        listener.execute("listen marketing_events")
        events = [post(str(number)) for number in range(20)]
        record(database, events, events)
        record(database, [post("one more")])
        told = [n.payload for n in listener.notifies(timeout=1)]
    assert told == ["", ""]


def test_a_call_that_is_rolled_back_leaves_nothing(database: str) -> None:
    async def run() -> None:
        async with await AsyncConnection.connect(database, autocommit=True) as conn:
            async with conn.transaction(force_rollback=True):
                await intake.record(conn, [lead()], NOW)
            assert [r.verdict for r in await recorded(conn, [lead()])] == [ACCEPTED]

    asyncio.run(run())
    assert rows(database, "select count(*) from marketing_events") == [(1,)]


def test_a_call_works_within_a_transaction_of_somebody_else_s_too(database: str) -> None:
    async def run() -> list[Recorded]:
        async with await AsyncConnection.connect(database) as conn:
            return await intake.record(conn, [post("k"), post("k")], NOW)

    assert [one.verdict for one in asyncio.run(run())] == [ACCEPTED, DUPLICATE]


def test_what_the_schema_refuses_is_an_error_of_the_data(database: str) -> None:
    bad = replace(post(), fingerprint="no digest")
    with pytest.raises(errors.CheckViolation):
        record(database, [post(), bad])
    assert rows(database, "select count(*) from marketing_events") == [(0,)]


def test_one_key_over_two_connections_at_once_is_accepted_once(database: str) -> None:
    async def run() -> list[list[Verdict]]:
        async with AsyncExitStack() as stack:
            conns = [
                await stack.enter_async_context(
                    await AsyncConnection.connect(database, autocommit=True)
                )
                for _ in range(2)
            ]
            verdicts = []
            for _ in range(200):
                one = post()
                both = await asyncio.gather(*(recorded(conn, [one]) for conn in conns))
                verdicts.append(sorted(r.verdict for [r] in both))
            return verdicts

    assert asyncio.run(run()) == [[ACCEPTED, DUPLICATE]] * 200


def test_a_writer_waits_for_another_that_has_not_committed(database: str) -> None:
    async def run() -> tuple[list[Recorded], list[Recorded]]:
        first = await AsyncConnection.connect(database)
        async with first, await AsyncConnection.connect(database, autocommit=True) as second:
            one = await intake.record(first, [post("k")], NOW)
            waiting = asyncio.create_task(recorded(second, [post("k")]))
            await asyncio.sleep(0.2)
            assert not waiting.done(), "answered before it could know"
            await first.commit()
            return one, await waiting

    [one], [other] = asyncio.run(run())
    assert (one.verdict, other.verdict) == (ACCEPTED, DUPLICATE)


def test_concurrent_calls_with_the_same_keys_in_any_order_do_not_deadlock(database: str) -> None:
    async def writer(number: int, rounds: Sequence[Sequence[NewEvent]]) -> Counter[Verdict]:
        order = random.Random(number)  # noqa: S311 (only a shuffle)
        total: Counter[Verdict] = Counter()
        async with await AsyncConnection.connect(database, autocommit=True) as conn:
            for events in rounds:
                mixed = order.sample(events, len(events))
                total.update(r.verdict for r in await recorded(conn, mixed))
        return total

    async def run() -> Counter[Verdict]:
        rounds = [
            [post() for _ in range(20)] + [lead(f"p{i}-{j}@example.com") for j in range(20)]
            for i in range(25)
        ]
        totals = await asyncio.gather(*(writer(number, rounds) for number in range(8)))
        return sum(totals, Counter())

    assert asyncio.run(run()) == {ACCEPTED: 25 * 40, DUPLICATE: 7 * 25 * 40}


def test_two_calls_in_one_transaction_can_deadlock(database: str) -> None:
    """Known bad: shows that the order of locking is what keeps the writers above apart."""

    async def twice(conn: AsyncConnection[Any], one: str, other: str) -> None:
        async with conn.transaction():
            await intake.record(conn, [post(one)], NOW)
            await asyncio.sleep(0.2)
            await intake.record(conn, [post(other)], NOW)

    async def run() -> Sequence[BaseException | None]:
        first = await AsyncConnection.connect(database, autocommit=True)
        async with first, await AsyncConnection.connect(database, autocommit=True) as second:
            return await asyncio.gather(
                twice(first, "a", "b"), twice(second, "b", "a"), return_exceptions=True
            )

    assert [type(e) for e in asyncio.run(run()) if e] == [errors.DeadlockDetected]


async def two_statements(conn: AsyncConnection[Any], events: Sequence[NewEvent]) -> None:
    """Known bad: the same without a pipeline, so that each commits alone."""
    await intake.record(conn, events, NOW)


async def one_commit(conn: AsyncConnection[Any], events: Sequence[NewEvent]) -> None:
    await recorded(conn, events)


@pytest.mark.parametrize(
    ("way", "transactions"), [(one_commit, 1), (two_statements, 2)], ids=["", "known-bad"]
)
def test_people_and_events_are_one_transaction(
    database: str, way: Callable[..., Awaitable[None]], transactions: int
) -> None:
    async def run() -> None:
        async with await AsyncConnection.connect(database, autocommit=True) as conn:
            await way(conn, [lead(), post(), lead("bo@example.com")])

    asyncio.run(run())
    found = rows(database, "select xmin from recipients union select xmin from marketing_events")
    assert len(found) == transactions


def test_what_is_refused_at_the_commit_is_an_error_and_the_next_is_taken(database: str) -> None:
    async def run() -> list[Recorded]:
        async with await AsyncConnection.connect(database, autocommit=True) as conn:
            await conn.execute(AT_THE_COMMIT)
            with pytest.raises(errors.RaiseException, match="refused at the commit"):
                await recorded(conn, [lead(), post(text="bad")])
            assert await (await conn.execute("select from recipients")).fetchall() == []
            return await recorded(conn, [lead(), post()])

    assert [one.verdict for one in asyncio.run(run())] == [ACCEPTED, ACCEPTED]


def test_a_commit_is_guarded_to_its_end_and_no_further(database: str) -> None:
    async def run() -> None:
        async with await AsyncConnection.connect(database, autocommit=True) as conn:
            await conn.execute(AT_THE_COMMIT)
            await conn.execute("set synchronous_commit = off")
            await intake.commit(conn, [post()], NOW, timedelta(milliseconds=1500))
            await intake.record(conn, [post()], NOW)

    asyncio.run(run())
    assert rows(database, "table seen") == [("on", "1500ms"), ("off", "0")]


def test_a_commit_that_waits_for_a_lock_ends_with_its_patience(database: str) -> None:
    async def run() -> None:
        first = await AsyncConnection.connect(database)
        async with first, await AsyncConnection.connect(database, autocommit=True) as second:
            await intake.record(first, [post("k")], NOW)
            with pytest.raises(errors.QueryCanceled):
                await intake.commit(second, [post("k"), lead()], NOW, timedelta(milliseconds=100))

    asyncio.run(run())
    assert rows(database, "select from recipients") == []


def test_the_guard_ends_with_its_transaction(database: str) -> None:
    names = "current_setting('statement_timeout'), current_setting('synchronous_commit')"

    async def run() -> list[Any]:
        async with await AsyncConnection.connect(database, autocommit=True) as conn:
            await conn.execute("set synchronous_commit = off")
            async with conn.transaction():
                await intake.guard(conn, timedelta(milliseconds=1500))
                within = await (await conn.execute(f"select {names}")).fetchone()
            after = await (await conn.execute(f"select {names}")).fetchone()
        return [within, after]

    assert asyncio.run(run()) == [("1500ms", "on"), ("0", "off")]


def test_the_revision_is_the_newest_of_a_migrated_database_and_none_of_an_empty_one(
    database: str,
) -> None:
    async def revision() -> str | None:
        async with await AsyncConnection.connect(database) as conn:
            return await intake.revision(conn)

    assert asyncio.run(revision()) == schema.newest()
    with psycopg.connect(database) as conn:
        conn.execute("drop table alembic_version")
    assert asyncio.run(revision()) is None


def test_only_the_hash_of_a_keys_secret_is_kept(database: str) -> None:
    async def run() -> tuple[str, Any]:
        async with await AsyncConnection.connect(database) as conn:
            key = await intake.create_key(conn, "web", NOW)
            return key, await intake.active_keys(conn)

    key, active = asyncio.run(run())
    prefix, key_id, secret = key.split("_", 2)
    assert prefix == "mk"
    assert active == {key_id: ("web", digest.sha256(secret.encode()))}


def test_a_revoked_key_is_listed_and_no_longer_active(database: str) -> None:
    later = NOW + timedelta(hours=1)

    async def run() -> tuple[list[bool], Any, Any]:
        async with await AsyncConnection.connect(database) as conn:
            ids = [(await intake.create_key(conn, s, NOW)).split("_")[1] for s in ("web", "crm")]
            ended = [await intake.revoke_key(conn, ids[0], later) for _ in range(2)]
            ended.append(await intake.revoke_key(conn, "nobody", later))
            return ended, await intake.list_keys(conn), await intake.active_keys(conn)

    ended, listed, active = asyncio.run(run())
    assert ended == [True, False, False]
    assert {(key.source, key.revoked_at) for key in listed} == {("web", later), ("crm", None)}
    assert [source for source, _ in active.values()] == ["crm"]


def test_a_key_for_no_source_is_refused(database: str) -> None:
    async def run() -> None:
        async with await AsyncConnection.connect(database) as conn:
            await intake.create_key(conn, " ", NOW)

    with pytest.raises(InvalidEvent, match="source"):
        asyncio.run(run())
