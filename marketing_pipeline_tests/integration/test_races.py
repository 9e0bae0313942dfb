"""The real engine among other sessions: what they hold open, and what they do at the same time."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from psycopg import AsyncConnection
from redis.asyncio import Redis

from marketing_pipeline import settings
from marketing_pipeline.delivery import high_water
from marketing_pipeline.delivery.assembly import assemble, marks
from marketing_pipeline.delivery.run import Report
from marketing_pipeline.domain.event import NewEvent
from marketing_pipeline.event_log import intake, ledger, pauses
from marketing_pipeline.event_log.pauses import Pause
from marketing_pipeline_tests.patience import until_true
from marketing_pipeline_tests.pipeline import (
    Sandbox,
    campaign,
    campaign_name,
    lead,
    post,
    record,
    run,
    sent,
    states,
    statuses,
)

ENOUGH = 0.6  # seconds in which the engine would have done what it must not do


def awake(used: settings.Settings, linger: float = 2.0) -> "asyncio.Task[Report]":
    """An engine at work in a thread of its own."""
    return asyncio.create_task(asyncio.to_thread(run, used, linger))


async def insert(conn: AsyncConnection[Any], events: Sequence[NewEvent]) -> None:
    await intake.record(conn, events, datetime.now(UTC))


async def ask(conn: AsyncConnection[Any], query: str, *values: object) -> list[Any]:
    return await (await conn.execute(query.encode(), values)).fetchall()


async def person(conn: AsyncConnection[Any], number: int) -> UUID:
    query = "select id from recipients where address = %s"
    [(found,)] = await ask(conn, query, f"p{number}@example.com")
    assert isinstance(found, UUID)
    return found


def test_a_lead_whose_insert_was_open_when_a_campaign_came_due_is_mailed(
    used: settings.Settings, database: str, home: Path, sandbox: Sandbox
) -> None:
    """Its number is lower than the campaign's: a cut that did not wait would lose the person."""
    record(database, [lead(n) for n in range(3)])

    async def race() -> None:
        async with (
            await AsyncConnection.connect(database) as writer,
            await AsyncConnection.connect(database, autocommit=True) as conn,
        ):
            await insert(writer, [lead(99)])  # and no commit
            await insert(conn, [campaign(campaign_name(home), "c1"), post(1)])
            running = awake(used)
            await until_true(conn, "select count(*) = 7 from effects where state = 'SENT'")
            await asyncio.sleep(ENOUGH)
            planned = "select count(*) from plans p join marketing_events m on m.id = p.event_id"
            assert await ask(conn, f"{planned} where type = 'CAMPAIGN_TRIGGER'") == [(0,)]
            await writer.commit()
            await running

    asyncio.run(race())
    assert states(database) == {"SENT": 3 * 2 + 1 + 2 + 4}
    assert statuses(database) == {"COMPLETED": 6}
    assert len(sandbox.acts()) == 13


def test_an_effect_that_another_session_has_locked_holds_nobody_else_back(
    used: settings.Settings, database: str, sandbox: Sandbox
) -> None:
    record(database, [post(n) for n in range(20)])
    [site] = [one for one in assemble(used).destinations if one.startswith("site")]

    async def race() -> str:
        async with (
            await AsyncConnection.connect(database) as other,
            await AsyncConnection.connect(database, autocommit=True) as conn,
        ):
            now = datetime.now(UTC)
            held_back = Pause(provider=site, until=now + timedelta(seconds=1.5), reason="a test")
            await pauses.keep(conn, held_back, now)
            running = awake(used)
            await until_true(conn, "select count(*) = 20 from effects")
            held = await ask(other, "select id::text from effects order by id limit 1 for update")
            await until_true(conn, "select count(*) = 1 from effects where state <> 'SENT'")
            await asyncio.sleep(ENOUGH)
            assert await ask(conn, "select id::text from effects where state <> 'SENT'") == held
            await other.rollback()
            await running
            return str(held[0][0])

    held = asyncio.run(race())
    assert held in sent(database)
    assert states(database) == {"SENT": 20}
    assert sorted(sandbox.acts().values()) == [1] * 20
    assert statuses(database) == {"COMPLETED": 20}


def test_while_a_suppression_is_being_written_its_person_is_not_claimed(
    used: settings.Settings, database: str, sandbox: Sandbox
) -> None:
    record(database, [lead(1)])

    async def race() -> None:
        async with (
            await AsyncConnection.connect(database) as writer,
            await AsyncConnection.connect(database, autocommit=True) as conn,
        ):
            await ledger.suppress(
                writer, await person(conn, 1), "email", "unsubscribed", datetime.now(UTC)
            )
            running = awake(used)
            await until_true(conn, "select count(*) = 2 from effects")
            await asyncio.sleep(ENOUGH)
            assert await ask(conn, "select count(*) from attempts") == [(0,)]
            await insert(conn, [post(1)])  # another provider's lane goes on meanwhile
            await until_true(conn, "select count(*) = 1 from effects where state = 'SENT'")
            await writer.commit()
            await running

    asyncio.run(race())
    assert states(database) == {"SENT": 2, "SUPPRESSED": 1}
    assert len(sandbox.acts()) == 2


def test_a_suppression_that_is_taken_back_holds_nobody(
    used: settings.Settings, database: str
) -> None:
    """The known-bad case of the test above: it is the commit that counts."""
    record(database, [lead(1)])

    async def race() -> None:
        async with (
            await AsyncConnection.connect(database) as writer,
            await AsyncConnection.connect(database, autocommit=True) as conn,
        ):
            await ledger.suppress(
                writer, await person(conn, 1), "email", "unsubscribed", datetime.now(UTC)
            )
            running = awake(used)
            await until_true(conn, "select count(*) = 2 from effects")
            await writer.rollback()
            await running

    asyncio.run(race())
    assert states(database) == {"SENT": 2}


def test_once_an_unsubscribe_has_committed_no_attempt_starts_however_close_it_ran_the_claim(
    used: settings.Settings, database: str
) -> None:
    """Sixty unsubscribes, each a little later against the claim of its person's welcome mail.

    The writer holds the lock when it counts attempts, so that none can be under way uncounted.
    """
    attempts = """select count(*) from attempts a join effects e on e.id = a.effect_id
                  where e.recipient_id = %s and e.kind = 'email'"""

    async def race() -> dict[UUID, int]:
        counted = {}
        async with (
            await AsyncConnection.connect(database) as writer,
            await AsyncConnection.connect(database, autocommit=True) as conn,
        ):
            await insert(conn, [post(1)])
            running = awake(used, 3.0)
            await until_true(conn, "select count(*) = 1 from effects where state = 'SENT'")
            for number in range(60):
                await insert(conn, [lead(number)])
                who = await person(conn, number)
                await asyncio.sleep(number / 1000)
                await ledger.suppress(writer, who, "email", "unsubscribed", datetime.now(UTC))
                [(counted[who],)] = await ask(writer, attempts, who)
                await writer.commit()
            await running
        return counted

    counted = asyncio.run(race())
    with psycopg.connect(database) as conn:
        for who, before in counted.items():
            assert conn.execute(attempts, [who]).fetchone() == (before,), "one started after it"
        rows = conn.execute(
            "select recipient_id, state from effects where kind = 'email'"
        ).fetchall()
    assert {state for _, state in rows} == {"SENT", "SUPPRESSED"}, "they did not race"
    for who, state in rows:
        assert state == ("SENT" if counted[who] else "SUPPRESSED")


def test_two_engines_that_settle_an_events_last_two_effects_complete_it(
    used: settings.Settings, database: str, sandbox: Sandbox
) -> None:
    """Both answers take equally long, and the sweep that would mend it comes only after 5 s."""
    kinds: list[dict[str, object]] = [
        {"provider": provider, "kind": "slow", "share": 1.0, "seconds": 0.2}
        for provider in ("hubspot", "resend")
    ]
    sandbox.faults(*kinds)
    record(database, [lead(n) for n in range(60)])

    async def race() -> None:
        await asyncio.gather(awake(used, 0.3), awake(used, 0.3))

    asyncio.run(race())
    assert states(database) == {"SENT": 120}
    assert statuses(database) == {"COMPLETED": 60}
    with psycopg.connect(database) as conn:
        query = """select count(*) from (
                       select e.event_id from effects e join attempts a on a.effect_id = e.id
                       group by 1 having max(a.finished_at) - min(a.finished_at) < '20 ms') as c"""
        row = conn.execute(query).fetchone()
    assert row is not None
    assert row[0] > 5, "hardly any two were settled together"


CLAIMED = """
insert into attempts (effect_id, number, purpose, claim_id, provider, started_at, request_sha256,
                      claim_number)
select effect_id, number + 1, purpose, claim_id, provider, started_at, request_sha256,
       claim_number + 1
from attempts order by number desc limit 1 returning claim_number"""


def test_a_run_that_starts_while_another_claims_is_not_taken_for_a_restored_log(
    used: settings.Settings, database: str
) -> None:
    """The other one claims, and then raises the mark, just before this one reads the mark."""
    record(database, [post(1)])
    run(used, linger=0.1)

    async def race() -> int:
        async with (
            await AsyncConnection.connect(database, autocommit=True) as conn,
            Redis.from_url(used.redis_url or "") as client,
        ):
            other = await high_water.open_mark(conn, marks(used), client)

            class Meanwhile(Redis):
                async def get(self, name: Any) -> Any:
                    [(claim,)] = await ask(conn, CLAIMED)
                    await other.reach(claim, remembered=claim - 1, after=0)
                    return await super().get(name)

            async with Meanwhile.from_url(used.redis_url or "") as late:
                return (await high_water.open_mark(conn, marks(used), late)).seen

    assert asyncio.run(race()) == 2
