"""The ledger against a real PostgreSQL: claims, settlements, leases, order, suppression, ends."""

import asyncio
import secrets
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from psycopg import AsyncConnection, DataError
from psycopg.rows import dict_row

from benchmarks import protocol
from marketing_pipeline.delivery import planner, settling
from marketing_pipeline.domain import event
from marketing_pipeline.domain.effect import EffectKind, EffectState
from marketing_pipeline.domain.event import EventType, NewEvent
from marketing_pipeline.domain.rules import Priority, Route, Rules, TemplateRef
from marketing_pipeline.domain.template import Template
from marketing_pipeline.event_log import intake, ledger, queries, versions
from marketing_pipeline.event_log.ledger import Candidate, Closed, Purpose, Settlement
from marketing_pipeline_tests.attempting import attempts, settle_openly
from marketing_pipeline_tests.patience import until_true

CRM, MAIL = "crm", "mail"
WELCOME = Template(hash="b" * 64, name="welcome", subject="s", html="h")
RULES = Rules(
    digest="a" * 64,
    routes={
        EventType.LEAD_CAPTURE: (
            Route(step="contact", provider=CRM, kind=EffectKind.CONTACT, priority=Priority.NORMAL),
            Route(
                step="welcome",
                provider=MAIL,
                kind=EffectKind.EMAIL,
                priority=Priority.URGENT,
                template=TemplateRef(hash=WELCOME.hash, reads=()),
            ),
        )
    },
    campaigns={},
)
LEASE = timedelta(seconds=30)
DELAY = timedelta(seconds=45)
SQL = queries.load("ledger.sql")
HOLDS_UP = """select exists (
    select from pg_locks where not granted and pg_backend_pid() = any(pg_blocking_pids(pid)))"""
THESE = "select set_config('marketing.ended', %s::uuid[]::text, true)"  # what `lock events` leaves


def lead(key: str, address: str = "ada@example.com") -> NewEvent:
    return event.new(
        type=EventType.LEAD_CAPTURE,
        payload={"email": address},
        source="web",
        key=key,
        now=datetime.now(UTC),
    )


@asynccontextmanager
async def planned(database: str, events: Sequence[NewEvent]) -> AsyncIterator[AsyncConnection]:
    """A connection in autocommit mode to a log whose events are planned by RULES."""
    async with await AsyncConnection.connect(database, autocommit=True) as conn:
        now = datetime.now(UTC)
        await versions.keep_template(conn, WELCOME, now)
        await versions.keep_config(conn, RULES.digest, {}, now)
        for one in events:
            await intake.record(conn, [one], now)
        await planner.plan_due(conn, RULES, now + timedelta(seconds=1))
        yield conn


async def lock_and_claim(
    conn: AsyncConnection,
    provider: str,
    limit: int = 10,
    *,
    ago: timedelta = timedelta(),
    purpose: Purpose = Purpose.SEND,
) -> tuple[uuid.UUID, list[Candidate]]:
    """Claim as the engine does; `ago` makes the claim look so much older."""
    claim_id = uuid.uuid4()
    async with conn.transaction():
        found = await ledger.lock_due(conn, provider, limit)
        sha256 = "c" * 64 if purpose is Purpose.SEND else None
        said = {"purpose": purpose, "request_sha256": sha256, "request_body": b"bytes"}
        now = datetime.now(UTC) - ago
        if found:
            await ledger.claim(conn, provider, claim_id, attempts(found, LEASE, **said), now)
    return claim_id, found


def answer(one: Candidate, claim_id: uuid.UUID, **said: Any) -> Settlement:
    """An Accepted for this claim, unless something else is said."""
    usual: dict[str, Any] = {
        "effect_id": one.id,
        "claim_id": claim_id,
        "number": one.calls + 1,
        "outcome": "ACCEPTED",
        "status_code": 200,
        "latency": timedelta(milliseconds=20),
        "reason": None,
        "state": EffectState.SENT,
        "due_at": None,
        "given_back": False,
        "in_doubt": False,
        "reference": f"ref-{one.calls + 1}",
    }
    return Settlement(**(usual | said))


def unreached(one: Candidate, claim_id: uuid.UUID) -> Settlement:
    return answer(
        one,
        claim_id,
        outcome="UNREACHED",
        status_code=None,
        reason="connection refused",
        state=EffectState.PLANNED,
        due_at=datetime.now(UTC),
        reference=None,
    )


def refused(one: Candidate, claim_id: uuid.UUID) -> Settlement:
    return answer(
        one,
        claim_id,
        outcome="REFUSED",
        status_code=400,
        reason="no such person",
        state=EffectState.FAILED,
        reference=None,
    )


def doubtful(one: Candidate, claim_id: uuid.UUID, **said: Any) -> Settlement:
    """An answer that leaves it open whether the call arrived; a repeat is due at once."""
    doubt = {"outcome": "AMBIGUOUS", "state": EffectState.DOUBT, "in_doubt": True}
    return answer(one, claim_id, **doubt | {"due_at": datetime.now(UTC), "reference": None} | said)


async def settle(conn: AsyncConnection, *settlements: Settlement) -> list[str]:
    return [one.state for one in await ledger.settle(conn, settlements, datetime.now(UTC))]


async def row(conn: AsyncConnection, query: str, *values: object) -> dict[str, Any]:
    async with conn.cursor(row_factory=dict_row) as cursor:
        found = await (await cursor.execute(query.encode(), values)).fetchone()
    assert found is not None
    return found


async def effect(conn: AsyncConnection, one: Candidate) -> dict[str, Any]:
    return await row(conn, "select * from effects where id = %s", one.id)


async def due_again(conn: AsyncConnection) -> None:
    await conn.execute("update effects set due_at = now() where state in ('PLANNED', 'DOUBT')")


async def status(conn: AsyncConnection) -> str:
    return str((await row(conn, "select status from marketing_events"))["status"])


async def attempt(conn: AsyncConnection, one: Candidate, number: int) -> dict[str, Any]:
    query = "select * from attempts where effect_id = %s and number = %s"
    return await row(conn, query, one.id, number)


def test_a_claim_leases_and_writes_its_attempt_before_any_call(database: str) -> None:
    async def run() -> None:
        async with planned(database, [lead("1")]) as conn:
            claim_id, [one] = await lock_and_claim(conn, MAIL)
            found = await effect(conn, one)
            assert (found["state"], found["claim_id"], found["calls"]) == ("SENDING", claim_id, 1)
            assert found["lease_until"] - found["last_attempt_at"] == LEASE
            written = await attempt(conn, one, 1)
            assert (written["claim_id"], written["outcome"]) == (claim_id, None)
            assert await lock_and_claim(conn, MAIL) != (claim_id, [one])
            assert await settle(conn, answer(one, claim_id)) == ["SENT"]
            assert (await effect(conn, one))["provider_ref"] == "ref-1"
            assert (await attempt(conn, one, 1))["outcome"] == "ACCEPTED"

    asyncio.run(run())


def test_the_protocol_without_attempts_that_benchmarks_compare_with_still_works(
    database: str,
) -> None:
    """It is cut from ledger.sql, which changes: benchmarks themselves are no part of the tests."""

    async def run() -> None:
        async with planned(database, [lead("1")]) as conn:
            with protocol.attempts(recorded=False):
                claim_id, [one] = await lock_and_claim(conn, MAIL)
                assert (await effect(conn, one))["state"] == "SENDING"
                assert await settle(conn, answer(one, claim_id)) == ["SENT"]
            assert await row(conn, "select count(*) from attempts") == {"count": 0}

    asyncio.run(run())


def test_an_expired_lease_is_in_doubt_until_the_settle_delay_has_passed(database: str) -> None:
    async def run() -> None:
        async with planned(database, [lead("1"), lead("2", "bob@example.com")]) as conn:
            _, [dead] = await lock_and_claim(conn, MAIL, 1, ago=LEASE * 2)
            _, [alive] = await lock_and_claim(conn, MAIL, 1)
            before = await effect(conn, dead)
            assert await ledger.sweep(conn, CRM, DELAY) == 0, "another provider's"
            assert await ledger.sweep(conn, MAIL, DELAY) == 1
            after = await effect(conn, dead)
            assert (after["state"], after["lease_until"]) == ("DOUBT", None)
            assert after["due_at"] == before["lease_until"] + DELAY
            assert after["doubt_since"] == before["last_attempt_at"]
            ended = await attempt(conn, dead, 1)
            assert (ended["outcome"], ended["finished_at"] is None) == ("AMBIGUOUS", False)
            assert (await effect(conn, alive))["state"] == "SENDING"
            assert (await attempt(conn, alive, 1))["outcome"] is None

    asyncio.run(run())


def test_a_sweep_of_what_ran_out_lately_leaves_the_rest_to_one_of_all(database: str) -> None:
    async def run() -> None:
        async with planned(database, [lead("1"), lead("2", "bob@example.com")]) as conn:
            await lock_and_claim(conn, MAIL, 1, ago=LEASE + timedelta(hours=1))
            await lock_and_claim(conn, MAIL, 1, ago=LEASE + timedelta(seconds=1))
            assert await ledger.sweep(conn, MAIL, DELAY, timedelta(minutes=1)) == 1
            assert await ledger.sweep(conn, MAIL, DELAY, timedelta(minutes=1)) == 0
            assert await ledger.sweep(conn, MAIL, DELAY) == 1

    asyncio.run(run())


@pytest.mark.parametrize("late", [unreached, refused])
def test_a_lost_claim_settles_nothing(
    database: str, late: Callable[[Candidate, uuid.UUID], Settlement]
) -> None:
    async def run() -> None:
        async with planned(database, [lead("1")]) as conn:
            lost, [one] = await lock_and_claim(conn, MAIL, ago=LEASE * 2)
            await ledger.sweep(conn, MAIL, DELAY)
            await due_again(conn)
            held, [again] = await lock_and_claim(conn, MAIL)
            before = await effect(conn, one), await attempt(conn, one, 1)
            assert await settle(conn, late(one, lost)) == []
            assert (await effect(conn, one), await attempt(conn, one, 1)) == before
            assert await settle(conn, answer(again, held)) == ["SENT"], "who holds it settles"

    asyncio.run(run())


def test_a_late_accepted_settles_whoever_holds_the_claim(database: str) -> None:
    async def run() -> None:
        async with planned(database, [lead("1")]) as conn:
            lost, [one] = await lock_and_claim(conn, MAIL, ago=LEASE * 2)
            await ledger.sweep(conn, MAIL, DELAY)
            await due_again(conn)
            held, [again] = await lock_and_claim(conn, MAIL)
            assert await settle(conn, answer(one, lost)) == ["SENT"]
            assert (await attempt(conn, one, 1))["outcome"] == "ACCEPTED"
            assert await settle(conn, refused(again, held)) == [], "it stays sent"
            found = await effect(conn, one)
            assert (found["state"], found["provider_ref"]) == ("SENT", "ref-1")
            assert found["doubt_since"] is None

    asyncio.run(run())


async def kept_bodies(conn: AsyncConnection) -> list[int]:
    query = "select number from attempts where request_body is not null order by number"
    return [row[0] for row in await (await conn.execute(query)).fetchall()]


def test_bytes_are_kept_while_a_repeat_might_need_them_and_no_longer(database: str) -> None:
    async def run() -> None:
        async with planned(database, [lead("1")]) as conn:
            for number in (1, 2):
                claim_id, [one] = await lock_and_claim(conn, MAIL)
                await settle(conn, doubtful(one, claim_id))
                assert await kept_bodies(conn) == [*range(1, number + 1)]
            claim_id, [one] = await lock_and_claim(conn, MAIL)
            await settle(conn, answer(one, claim_id))
            assert await kept_bodies(conn) == []

    asyncio.run(run())


@pytest.mark.parametrize("late", [answer, refused, unreached])
def test_of_an_attempt_that_a_sweep_had_ended_a_late_answer_leaves_no_bytes(
    database: str, late: Callable[[Candidate, uuid.UUID], Settlement]
) -> None:
    async def run() -> None:
        async with planned(database, [lead("1")]) as conn:
            claim_id, [one] = await lock_and_claim(conn, MAIL, ago=LEASE * 2)
            await ledger.sweep(conn, MAIL, DELAY)
            assert await kept_bodies(conn) == [1]
            wanted = late(one, claim_id)
            assert await settle(conn, wanted) == [wanted.state]
            assert await kept_bodies(conn) == []

    asyncio.run(run())


def test_an_answer_that_waits_for_a_claim_leaves_no_bytes_of_it(database: str) -> None:
    """A late Accepted comes while the effect is claimed again, by a claim that ends in doubt."""

    async def run() -> None:
        async with (
            planned(database, [lead("1")]) as conn,
            await AsyncConnection.connect(database, autocommit=True) as other,
        ):
            lost, [one] = await lock_and_claim(conn, MAIL, ago=LEASE * 2)
            await ledger.sweep(conn, MAIL, DELAY)
            await due_again(conn)
            async with other.transaction():
                held, [again] = await lock_and_claim(other, MAIL)
                late = asyncio.create_task(settle(conn, answer(one, lost)))
                await until_true(other, HOLDS_UP)
            assert await late == ["SENT"]
            assert await settle(conn, doubtful(again, held)) == []
            assert await kept_bodies(conn) == []

    asyncio.run(run())


def test_an_answer_that_waits_for_a_sweep_leaves_no_bytes(database: str) -> None:
    """The end of a repeat comes while its lease is swept."""

    async def run() -> None:
        async with (
            planned(database, [lead("1")]) as conn,
            await AsyncConnection.connect(database, autocommit=True) as other,
        ):
            claim_id, [one] = await lock_and_claim(conn, MAIL)
            await settle(conn, doubtful(one, claim_id))
            held, [again] = await lock_and_claim(conn, MAIL, ago=LEASE * 2)
            async with other.transaction():
                assert await ledger.sweep(other, MAIL, DELAY) == 1
                gave_up = doubtful(
                    again, held, state=EffectState.UNKNOWN, due_at=None, reason="why"
                )
                late = asyncio.create_task(settle(conn, gave_up))
                await until_true(other, HOLDS_UP)
            assert await late == ["UNKNOWN"]
            assert await kept_bodies(conn) == []

    asyncio.run(run())


def test_what_ends_in_doubt_without_another_call_leaves_no_bytes(database: str) -> None:
    async def run() -> None:
        async with planned(database, [lead("1")]) as conn:
            claim_id, [one] = await lock_and_claim(conn, MAIL)
            await settle(conn, doubtful(one, claim_id))
            assert await kept_bodies(conn) == [1]
            [one] = await ledger.lock_due(conn, MAIL, 1)
            closed = Closed(
                effect_id=one.id,
                event_id=one.event_id,
                state=EffectState.UNKNOWN,
                reason="its key has lapsed",
            )
            await ledger.close_unsent(conn, [closed], datetime.now(UTC))
            assert await kept_bodies(conn) == []

    asyncio.run(run())


@pytest.mark.parametrize(
    ("accepted", "late_first"),
    [
        ("lost", True),
        ("lost", False),
        ("held", False),
        ("held", True),
        ("both", False),
        ("both", True),
    ],
)
def test_two_answers_for_one_effect_in_a_batch_never_hide_that_it_was_sent(
    database: str, accepted: str, late_first: bool
) -> None:
    async def run() -> None:
        async with planned(database, [lead("1")]) as conn:
            lost, [one] = await lock_and_claim(conn, MAIL, ago=LEASE * 2)
            await ledger.sweep(conn, MAIL, DELAY)
            await due_again(conn)
            held, [again] = await lock_and_claim(conn, MAIL)
            batch = [
                (unreached if accepted == "held" else answer)(one, lost),
                (unreached if accepted == "lost" else answer)(again, held),
            ]
            await settle(conn, *(batch if late_first else reversed(batch)))
            assert (await effect(conn, one))["state"] == "SENT"
            said = [(await attempt(conn, one, number))["outcome"] for number in (1, 2)]
            assert said == [
                "ACCEPTED" if accepted in {"lost", "both"} else "AMBIGUOUS",
                "ACCEPTED" if accepted in {"held", "both"} else "UNREACHED",
            ]
            assert await kept_bodies(conn) == []

    asyncio.run(run())


def test_a_reference_that_no_index_takes_looks_like_a_database_that_is_away(
    database: str,
) -> None:
    """Known bad: settling would try it for ever. Delivery keeps the beginning of a reference."""

    async def run() -> None:
        async with planned(database, [lead("1")]) as conn:
            claim_id, [one] = await lock_and_claim(conn, MAIL)
            with pytest.raises(settling.AWAY):
                await settle(conn, answer(one, claim_id, reference=secrets.token_hex(1500)))
            assert await settle(conn, answer(one, claim_id, reference="r" * 200)) == ["SENT"]

    asyncio.run(run())


def test_a_persons_second_contact_write_waits_for_the_first(database: str) -> None:
    async def run() -> None:
        async with planned(database, [lead("1"), lead("2")]) as conn:
            claim_id, [first] = await lock_and_claim(conn, CRM)
            assert await ledger.due(conn, CRM, 10) == (0, False)
            assert (await lock_and_claim(conn, CRM))[1] == [], "while it is SENDING"
            await settle(conn, unreached(first, claim_id))
            assert await ledger.due(conn, CRM, 10) == (1, False)
            claim_id, [same] = await lock_and_claim(conn, CRM)
            assert same.id == first.id, "the older goes first, again"
            await settle(conn, answer(same, claim_id))
            _, [second] = await lock_and_claim(conn, CRM)
            assert second.id != first.id

    asyncio.run(run())


def test_mails_to_one_person_do_not_wait_for_each_other(database: str) -> None:
    """The known-bad case of the test above: without an ordering key both are claimable."""

    async def run() -> None:
        async with planned(database, [lead("1"), lead("2")]) as conn:
            assert len((await lock_and_claim(conn, MAIL))[1]) == 2

    asyncio.run(run())


def test_two_claimers_at_once_never_take_the_same_effect(database: str) -> None:
    async def take_all(conn: AsyncConnection) -> list[uuid.UUID]:
        taken: list[uuid.UUID] = []
        while found := (await lock_and_claim(conn, MAIL, 3))[1]:
            taken += [one.id for one in found]
        return taken

    async def run() -> None:
        events = [lead(str(n), f"p{n}@example.com") for n in range(60)]
        async with (
            planned(database, events) as conn,
            await AsyncConnection.connect(database, autocommit=True) as other,
        ):
            taken = await asyncio.gather(take_all(conn), take_all(other))
            assert all(taken), "both had some"
            assert set(taken[0]).isdisjoint(taken[1])
            assert len(set(taken[0] + taken[1])) == len(taken[0] + taken[1]) == 60

    asyncio.run(run())


def test_a_suppression_waits_for_a_claim_that_came_first(database: str) -> None:
    async def run() -> None:
        async with (
            planned(database, [lead("1")]) as conn,
            await AsyncConnection.connect(database) as writer,
        ):
            [one] = await ledger.lock_due(conn, MAIL, 1)
            assert one.recipient_id is not None
            person, now = one.recipient_id, datetime.now(UTC)
            async with conn.transaction():
                assert (await ledger.reach(conn, [person], (), wait=True)).suppressed == {}
                leaving = asyncio.create_task(
                    ledger.suppress(writer, person, "all", "unsubscribed", now)
                )
                await asyncio.sleep(0.2)
                assert not leaving.done(), "written while a claim was being made"
            await leaving
            await writer.commit()
            assert (await ledger.reach(conn, [person], (), wait=True)).suppressed == {
                (person, "all"): "unsubscribed"
            }

    asyncio.run(run())


def test_a_claim_waits_for_a_suppression_that_came_first_and_sees_it(database: str) -> None:
    async def run() -> None:
        async with (
            planned(database, [lead("1")]) as conn,
            await AsyncConnection.connect(database) as writer,
        ):
            [one] = await ledger.lock_due(conn, MAIL, 1)
            assert one.recipient_id is not None
            person = one.recipient_id
            await ledger.suppress(writer, person, "email", "unsubscribed", datetime.now(UTC))
            async with conn.transaction():
                asking = asyncio.create_task(ledger.reach(conn, [person], (), wait=True))
                await asyncio.sleep(0.2)
                assert not asking.done(), "answered before it could know"
                await writer.commit()
                assert (await asking).suppressed == {(person, "email"): "unsubscribed"}

    asyncio.run(run())


@asynccontextmanager
async def _two_settlers(
    database: str, conn: AsyncConnection
) -> AsyncIterator[tuple[AsyncConnection, AsyncConnection, uuid.UUID]]:
    """Open transactions that have each settled one of an event's two effects, and the event."""
    claims = [await lock_and_claim(conn, provider) for provider in (CRM, MAIL)]
    async with (
        await AsyncConnection.connect(database) as left,
        await AsyncConnection.connect(database) as right,
    ):
        for settler, (claim_id, [one]) in zip((left, right), claims, strict=True):
            await settle_openly(settler, answer(one, claim_id))
        yield left, right, claims[0][1][0].event_id


async def _end(settler: AsyncConnection, event_id: uuid.UUID) -> None:
    """What follows a settlement: its commit, and the completion in a transaction of its own."""
    await settler.commit()
    await settler.set_autocommit(True)
    await settling.finish(settler, [event_id], datetime.now(UTC))


def test_two_settlers_of_an_events_last_effects_complete_it(database: str) -> None:
    async def run() -> None:
        async with (
            planned(database, [lead("1")]) as conn,
            _two_settlers(database, conn) as (left, right, event_id),
        ):
            await asyncio.gather(_end(left, event_id), _end(right, event_id))
            assert await status(conn) == "COMPLETED"

    asyncio.run(run())


def test_completing_with_the_settlement_and_no_lock_would_leave_it_open(database: str) -> None:
    """The known-bad case of the test above, and what the sweep behind it is for."""

    async def run() -> None:
        async with (
            planned(database, [lead("1")]) as conn,
            _two_settlers(database, conn) as (left, right, event_id),
        ):
            now = datetime.now(UTC)
            for settler in (left, right):
                await settler.execute(THESE, [[event_id]])
                await settler.execute(SQL["complete"], {"now": now})
            await left.commit()
            await right.commit()
            assert await status(conn) == "PROCESSING"
            assert await ledger.stranded(conn, now) == [], "not at once"
            later = now + timedelta(minutes=1)
            assert await ledger.stranded(conn, later) == [event_id]
            await settling.finish(conn, [event_id], later)
            assert await status(conn) == "COMPLETED"

    asyncio.run(run())


def test_without_a_transaction_nothing_is_completed(database: str) -> None:
    async def run() -> None:
        async with planned(database, [lead("1")]) as conn:
            for provider in (CRM, MAIL):
                claim_id, [one] = await lock_and_claim(conn, provider)
                await settle(conn, answer(one, claim_id))
            with pytest.raises(DataError, match="malformed array literal"):
                await ledger.complete(conn, [one.event_id], datetime.now(UTC))
            assert await status(conn) == "PROCESSING"

    asyncio.run(run())


@pytest.mark.parametrize("careful", [True, False], ids=["careful", "known-bad"])
def test_what_was_open_when_events_were_locked_is_left_to_who_ends_it(
    database: str, careful: bool
) -> None:
    """Without its lock, work that a resend has just added could be missed."""

    async def run() -> None:
        async with planned(database, [lead("1")]) as conn:
            held = [await lock_and_claim(conn, provider) for provider in (CRM, MAIL)]
            [(first, [contact]), (second, [mail])] = held
            await settle(conn, answer(contact, first))
            values = {"ids": [mail.event_id], "now": datetime.now(UTC)}
            async with (
                await AsyncConnection.connect(database, autocommit=True) as other,
                conn.transaction(),
            ):
                await conn.execute(SQL["lock events"], values)
                await settle(other, answer(mail, second))
                if not careful:
                    await conn.execute(THESE, [[mail.event_id]])
                done = await conn.execute(SQL["complete"], values)
                assert done.rowcount == (0 if careful else 1)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("mail", "ends"),
    [
        ("SENT", "COMPLETED"),
        ("SUPPRESSED", "COMPLETED"),
        ("FAILED", "FAILED"),
        ("UNKNOWN", "PROCESSING"),
        ("DOUBT", "PROCESSING"),
        ("PLANNED", "PROCESSING"),
    ],
)
def test_an_event_ends_as_its_effects_did(database: str, mail: str, ends: str) -> None:
    async def run() -> None:
        async with planned(database, [lead("1")]) as conn:
            claim_id, [contact] = await lock_and_claim(conn, CRM)
            await settle(conn, answer(contact, claim_id))
            if mail == "SUPPRESSED":
                [one] = await ledger.lock_due(conn, MAIL, 1)
                closed = Closed(
                    effect_id=one.id,
                    event_id=one.event_id,
                    state=EffectState.SUPPRESSED,
                    reason="unsubscribed",
                )
                await ledger.close_unsent(conn, [closed], datetime.now(UTC))
            else:
                claim_id, [one] = await lock_and_claim(conn, MAIL)
                said = {
                    "outcome": "ACCEPTED" if mail == "SENT" else "AMBIGUOUS",
                    "state": EffectState(mail),
                    "in_doubt": mail in {"UNKNOWN", "DOUBT"},
                    "reason": None if mail == "SENT" else "why",
                }
                await settle(conn, answer(one, claim_id, **said))
            await settling.finish(conn, [contact.event_id], datetime.now(UTC))
            assert await status(conn) == ends

    asyncio.run(run())


def test_an_event_waits_until_its_whole_plan_is_written(database: str) -> None:
    async def run() -> None:
        async with planned(database, [lead("1")]) as conn:
            for provider in (CRM, MAIL):
                claim_id, [one] = await lock_and_claim(conn, provider)
                await settle(conn, answer(one, claim_id))
            await conn.execute("update plans set count = 3")
            await settling.finish(conn, [one.event_id], datetime.now(UTC))
            assert await status(conn) == "PROCESSING", "a chunk is still to be written"
            await conn.execute("update plans set inserted = 3")
            await settling.finish(conn, [one.event_id], datetime.now(UTC))
            assert await status(conn) == "PROCESSING", "promised, and not in the ledger"
            await conn.execute("update plans set count = 2, inserted = 2")
            await settling.finish(conn, [one.event_id], datetime.now(UTC))
            assert await status(conn) == "COMPLETED"

    asyncio.run(run())


def test_a_late_accepted_mends_an_event_that_had_failed(database: str) -> None:
    async def run() -> None:
        async with planned(database, [lead("1")]) as conn:
            for provider, said in ((CRM, answer), (MAIL, refused)):
                claim_id, [one] = await lock_and_claim(conn, provider)
                await settle(conn, said(one, claim_id))
            await settling.finish(conn, [one.event_id], datetime.now(UTC))
            assert await status(conn) == "FAILED"
            assert await settle(conn, answer(one, claim_id)) == ["SENT"]
            await settling.finish(conn, [one.event_id], datetime.now(UTC))
            assert await status(conn) == "COMPLETED"

    asyncio.run(run())
