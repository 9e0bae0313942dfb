"""Failed work put back: what is safe is delivered once, and the rest is told and left alone."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import AsyncConnection

from marketing_pipeline import settings
from marketing_pipeline.delivery import planner, settling
from marketing_pipeline.delivery.assembly import assemble
from marketing_pipeline.domain import event
from marketing_pipeline.domain.effect import EffectState
from marketing_pipeline.domain.event import EventType, NewEvent
from marketing_pipeline.event_log import ledger, queries, redriving
from marketing_pipeline.event_log.ledger import Settlement
from marketing_pipeline.event_log.redriving import Reconciliation, Standards
from marketing_pipeline_tests.attempting import attempts
from marketing_pipeline_tests.pipeline import (
    Sandbox,
    campaign,
    campaign_name,
    lead,
    record,
    run,
    sent,
    states,
    statuses,
)

LEASE = timedelta(seconds=30)
UNREACHED = "connection refused"


class Log:
    """A log of this test, and the operator's file it is measured by."""

    def __init__(self, used: settings.Settings, conn: AsyncConnection) -> None:
        self.used = used
        self.conn = conn
        self.assembly = assemble(used)
        [self.mail] = [name for name in self.assembly.destinations if name.startswith("resend")]
        [self.crm] = [name for name in self.assembly.destinations if name.startswith("hubspot")]

    async def plan(self) -> None:
        now = datetime.now(UTC)
        used = self.assembly.configuration
        await planner.keep(self.conn, used, now)
        await planner.plan_due(self.conn, used.meaning.rules, now + timedelta(seconds=1))

    async def attempt(self, provider: str) -> list[tuple[UUID, UUID, int]]:
        """Claim what is due as the engine does: effect, claim and number of each attempt."""
        claim_id = uuid4()
        async with self.conn.transaction():
            found = await ledger.lock_due(self.conn, provider, 10)
            now = datetime.now(UTC)
            if found:
                await ledger.claim(self.conn, provider, claim_id, attempts(found, LEASE), now)
        return [(one.id, claim_id, one.calls + 1) for one in found]

    async def answer(self, attempt: tuple[UUID, UUID, int], **said: Any) -> None:
        """Settle an attempt: as finally unreached, unless something else is said."""
        effect_id, claim_id, number = attempt
        usual: dict[str, Any] = {
            "effect_id": effect_id,
            "claim_id": claim_id,
            "number": number,
            "outcome": "UNREACHED",
            "status_code": None,
            "latency": timedelta(milliseconds=1),
            "reason": UNREACHED,
            "state": EffectState.FAILED,
            "due_at": None,
            "given_back": False,
            "in_doubt": False,
            "reference": None,
        }
        settled = await ledger.settle(self.conn, [Settlement(**(usual | said))], datetime.now(UTC))
        await settling.finish(self.conn, [one.event_id for one in settled], datetime.now(UTC))

    async def fail(self, provider: str, **said: Any) -> list[tuple[UUID, UUID, int]]:
        attempts = await self.attempt(provider)
        for attempt in attempts:
            await self.answer(attempt, **said)
        return attempts

    def standards(self) -> Standards:
        now = datetime.now(UTC)
        return Standards(
            rules=assemble(self.used).configuration.meaning.rules,
            providers=set(self.assembly.destinations),
            since=now - timedelta(days=3),
            now=now,
        )

    async def reconcile(self) -> Reconciliation:
        return await redriving.reconcile(self.conn, self.standards())

    async def rows(self, query: str) -> list[Any]:
        return await (await self.conn.execute(query)).fetchall()


@asynccontextmanager
async def opened(used: settings.Settings, leads: int) -> AsyncIterator[Log]:
    """A log with this many planned leads."""
    assert used.database_url is not None
    await asyncio.to_thread(run, used, 0.0)  # from now on this machine knows the log
    async with await AsyncConnection.connect(used.database_url, autocommit=True) as conn:
        log = Log(used, conn)
        await asyncio.to_thread(record, used.database_url, [lead(n) for n in range(leads)])
        await log.plan()
        yield log


@asynccontextmanager
async def beside(log: Log) -> AsyncIterator[Log]:
    """The same log, on another connection."""
    assert log.used.database_url is not None
    async with await AsyncConnection.connect(log.used.database_url, autocommit=True) as conn:
        yield Log(log.used, conn)


def test_what_never_reached_its_provider_is_delivered_once_after_all(
    used: settings.Settings, database: str, sandbox: Sandbox
) -> None:
    async def fail_and_redrive() -> None:
        async with opened(used, 2) as log:
            await log.fail(log.mail)
            before = await redriving.examine(log.conn, log.standards())
            assert states(database) == {"FAILED": 2, "PLANNED": 2}, "looking changes nothing"
            found = await log.reconcile()
            assert [one.reason for one in found.redriven] == [UNREACHED] * 2
            assert found == before
            assert (found.left, found.replanned) == ([], [])
            again = await log.reconcile()
            assert again == Reconciliation(), "nothing is left to put back"

    asyncio.run(fail_and_redrive())
    assert states(database) == {"PLANNED": 4}
    assert statuses(database) == {"PROCESSING": 2}
    run(used)
    assert states(database) == {"SENT": 4}
    assert statuses(database) == {"COMPLETED": 2}
    assert sandbox.acts() == dict.fromkeys(sent(database), 1)


def test_two_who_reconcile_at_once_put_each_effect_back_once(
    used: settings.Settings, database: str
) -> None:
    async def twice() -> list[Reconciliation]:
        async with opened(used, 10) as log, beside(log) as other:
            await log.fail(log.mail)
            return list(await asyncio.gather(log.reconcile(), other.reconcile()))

    found = asyncio.run(twice())
    assert sorted(len(one.redriven) for one in found) == [0, 10]
    with psycopg.connect(database) as conn:
        rows = conn.execute("select state, redrives, count(*) from effects group by 1, 2")
        assert sorted(rows) == [("PLANNED", 0, 10), ("PLANNED", 1, 10)]


def test_nothing_newer_is_claimed_for_a_contact_while_older_work_is_put_back(
    used: settings.Settings,
) -> None:
    async def overlap() -> list[tuple[UUID, UUID, int]]:
        async with opened(used, 1) as log, beside(log) as other:
            await log.fail(log.crm)
            await asyncio.to_thread(record, used.database_url or "", [newer_lead()])
            await log.plan()
            ids = [row[0] for row in await log.rows("select id from effects where state='FAILED'")]
            async with log.conn.transaction():
                await log.conn.execute(queries.load("redriving.sql")["lock effects"], {"ids": ids})
                assert await other.attempt(other.crm) == []
            return await other.attempt(other.crm)

    assert len(asyncio.run(overlap())) == 1, "it was due all the time"


def newer_lead() -> NewEvent:
    """What the first lead says of itself later."""
    return event.new(
        type=EventType.LEAD_CAPTURE,
        payload={"email": "p0@example.com", "first_name": "New"},
        source="demo",
        key="newer",
        now=datetime.now(UTC),
    )


def test_an_event_that_had_failed_is_under_way_again_and_fails_for_good_the_second_time(
    used: settings.Settings, database: str
) -> None:
    async def fail_twice() -> None:
        async with opened(used, 1) as log:
            [contact] = await log.attempt(log.crm)
            await log.answer(contact, outcome="ACCEPTED", state=EffectState.SENT, reference="r")
            await log.fail(log.mail)
            assert statuses(database) == {"FAILED": 1}
            await log.reconcile()
            assert statuses(database) == {"PROCESSING": 1}
            await log.fail(log.mail)
            assert statuses(database) == {"FAILED": 1}
            found = await log.reconcile()
            [told] = found.left
            assert told.reason == f"failed again after it was redriven: {UNREACHED}"
            assert found.redriven == []

    asyncio.run(fail_twice())
    assert states(database) == {"FAILED": 1, "SENT": 1}


def test_a_late_accepted_of_the_attempt_before_settles_what_was_redriven(
    used: settings.Settings, database: str, sandbox: Sandbox
) -> None:
    async def accept_late() -> None:
        async with opened(used, 1) as log:
            [attempt] = await log.fail(log.mail)
            await log.reconcile()
            await log.answer(attempt, outcome="ACCEPTED", state=EffectState.SENT, reference="late")

    asyncio.run(accept_late())
    assert states(database) == {"PLANNED": 1, "SENT": 1}
    run(used)
    assert states(database) == {"SENT": 2}
    assert len(sandbox.acts()) == 1, "the mail is not sent again"


@pytest.mark.parametrize(
    ("spoiled", "reason"),
    [
        ("update attempts set outcome = 'REFUSED'", f"refused: {UNREACHED}"),
        (
            "update effects set expires_at = clock_timestamp() where state = 'FAILED'",
            "stale: its time was up at",
        ),
        (
            "update recipients set address = null, erased_at = clock_timestamp()",
            "erased: the person's address is gone",
        ),
        (
            """insert into suppressions (recipient_id, scope, reason, created_at)
               select id, 'email', 'unsubscribed', clock_timestamp() from recipients""",
            "suppressed: unsubscribed",
        ),
        (
            """update effects set once_key = 'LEAD_CAPTURE/welcome' where state = 'FAILED'""",
            "once: another effect has reached this person, or will",
        ),
        (
            """update installation set adopted_at = clock_timestamp(), look_at = clock_timestamp(),
               adopted_why = 'restored'""",
            "adopted: this log was restored, and may have sent it in its earlier life",
        ),
    ],
)
def test_what_must_not_be_sent_again_is_listed_with_the_reason(
    used: settings.Settings, database: str, spoiled: LiteralString, reason: str
) -> None:
    async def spoil() -> Reconciliation:
        async with opened(used, 1) as log:
            await log.fail(log.mail)
            await log.conn.execute("set session_replication_role = replica")
            await log.conn.execute(spoiled)
            await log.conn.execute("set session_replication_role = origin")
            return await log.reconcile()

    found = asyncio.run(spoil())
    assert found.redriven == []
    [told] = found.left
    assert told.reason.startswith(reason)
    assert told.effect_id is not None
    assert states(database) == {"FAILED": 1, "PLANNED": 1}


def test_a_suppression_of_another_kind_stands_against_nothing(used: settings.Settings) -> None:
    async def suppress() -> Reconciliation:
        async with opened(used, 1) as log:
            await log.fail(log.mail)
            [[person]] = await log.rows("select id from recipients")
            await ledger.suppress(log.conn, person, "contact", "asked", datetime.now(UTC))
            return await log.reconcile()

    assert len(asyncio.run(suppress()).redriven) == 1


def test_older_data_never_replaces_what_a_contact_has_got_since(
    used: settings.Settings, database: str
) -> None:
    async def overtake() -> Reconciliation:
        async with opened(used, 1) as log:
            await log.fail(log.crm)
            await asyncio.to_thread(record, database, [newer_lead()])
            await log.plan()
            [contact] = await log.attempt(log.crm)
            await log.answer(contact, outcome="ACCEPTED", state=EffectState.SENT, reference="r")
            return await log.reconcile()

    [told] = asyncio.run(overtake()).left
    assert told.reason.startswith("superseded: ")


def test_a_campaign_that_the_file_lacked_is_planned_when_the_file_has_it(
    used: settings.Settings, database: str, sandbox: Sandbox
) -> None:
    record(database, [lead(1)])
    run(used)
    name = campaign_name(used.home)
    record(database, [campaign("spring", "c1")])
    run(used)
    assert statuses(database) == {"COMPLETED": 1, "FAILED": 1}

    async def reconcile() -> Reconciliation:
        async with opened(used, 0) as log:
            return await log.reconcile()

    found = asyncio.run(reconcile())
    [told] = found.left
    assert told.reason == f"payload.campaign: no campaign 'spring'; the file has: {name}"
    assert statuses(database) == {"COMPLETED": 1, "FAILED": 1}, "nothing is tried in vain"

    file = used.home / "campaigns" / "demo.yaml"
    file.write_text(file.read_text().replace(f"  {name}: {{aud", "  spring: {aud"))
    found = asyncio.run(reconcile())
    assert [one.event_id for one in found.replanned] == [told.event_id]
    assert statuses(database) == {"COMPLETED": 1, "PENDING": 1}
    run(used)
    assert statuses(database) == {"COMPLETED": 2}
    assert sandbox.acts() == dict.fromkeys(sent(database), 1)


def test_more_than_a_batch_is_put_back(used: settings.Settings, database: str) -> None:
    async def many() -> Reconciliation:
        async with opened(used, 1) as log:
            await log.fail(log.mail)
            await log.conn.execute(
                """insert into effects (id, event_id, epoch, day, event_seq, route, step, provider,
                   kind, recipient_id, template, state, priority, attempts, calls, due_at,
                   first_attempt_at, last_attempt_at, last_error, created_at, updated_at,
                   settled_at)
                   select gen_random_uuid(), event_id, epoch, day, event_seq, route, step, provider,
                   kind, recipient_id, template, state, priority, attempts, calls, due_at,
                   first_attempt_at, last_attempt_at, last_error, created_at, updated_at, settled_at
                   from effects, generate_series(1, 1200) where state = 'FAILED'"""
            )
            await log.conn.execute(
                """insert into attempts (effect_id, number, purpose, claim_id, provider, started_at,
                   request_sha256, finished_at, outcome)
                   select e.id, 1, 'send', gen_random_uuid(), e.provider, e.created_at,
                   repeat('c', 64), e.settled_at, 'UNREACHED' from effects e
                   where state = 'FAILED' and not exists (
                       select from attempts a where a.effect_id = e.id)"""
            )
            return await log.reconcile()

    assert len(asyncio.run(many()).redriven) == 1201
    assert states(database) == {"PLANNED": 1202}
