"""Campaigns to many people: planned page by page, and verified page by page."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import AsyncConnection

from marketing_pipeline.campaigns import meaning
from marketing_pipeline.delivery import campaigns, planner, replay
from marketing_pipeline.delivery.writing_out import CHUNK
from marketing_pipeline.domain import audience, plan
from marketing_pipeline.domain.rules import Rules
from marketing_pipeline.domain.template import Template
from marketing_pipeline.event_log import history, intake, people, queries, versions
from marketing_pipeline_tests.pipeline import campaign

NOW = datetime.now(UTC)
MANY = 5500
NEWS = Template(hash="b" * 64, name="news", subject="s", html="<p>{{ number }}</p>")
LEADS = """
with people as (
    insert into recipients (id, address, created_at)
    select md5('p' || n)::uuid, 'p' || n || '@example.com', now() from generate_series(1, %s) n
    returning id, address
)
insert into marketing_events (id, idempotency_key, type, payload, source, origin, fingerprint,
    recipient_id, scheduled_at, created_at, status, updated_at)
select md5(address || n)::uuid, address || n, 'LEAD_CAPTURE',
       jsonb_build_object('number', address, 'turn', n), 'web', 'history', repeat('a', 64), id,
       now(), now(), 'COMPLETED', now()
from people, generate_series(1, %s) n"""


def body(*steps: Mapping[str, Any], newest: int | None = None) -> dict[str, Any]:
    """The stored form of a file whose campaign takes these steps."""
    mail: dict[str, Any] = {"step": "mail", "provider": "mail", "kind": "email", "properties": {}}
    bulk = mail | {"priority": "bulk", "template": None}
    return {
        "sender": {"email": "us@example.com", "name": "Us"},
        "audiences": {"all": {"sources": [], "where": {}, "newest": newest}},
        "campaigns": {"everybody": {"audience": "all", "template": "news"}},
        "providers": {"mail": {"adapter": "resend", "options": {}}},
        "templates": {"news": {"hash": NEWS.hash, "reads": ["number"]}},
        "routes": {"CAMPAIGN_TRIGGER": [bulk | dict(step) for step in steps or ({},)]},
    }


@dataclass(frozen=True, kw_only=True)
class Log:
    """A log that holds a crowd and a campaign to it."""

    conn: AsyncConnection
    rules: Rules

    async def ask(self, query: str) -> list[tuple[Any, ...]]:
        return await (await self.conn.execute(query.encode())).fetchall()

    async def plan(self) -> int:
        return await campaigns.plan_next(self.conn, self.rules, datetime.now(UTC), asyncio.Event())

    async def write(self) -> int:
        now = datetime.now(UTC)
        return await campaigns.write_unfinished(self.conn, now, asyncio.Event(), self.rules)

    async def differences(self) -> tuple[str, ...]:
        return (await replay.verify(self.conn, datetime.now(UTC).date())).differences


@asynccontextmanager
async def crowded(
    database: str, stored: dict[str, Any], *, persons: int = MANY, facts: int = 1
) -> AsyncIterator[Log]:
    async with await AsyncConnection.connect(database, autocommit=True) as conn:
        await conn.execute(LEADS, (persons, facts))
        meant = meaning.of(stored)
        await versions.keep_template(conn, NEWS, NOW)
        await versions.keep_config(conn, meant.rules.digest, meant.body, NOW)
        async with conn.transaction():
            await intake.record(conn, [campaign("everybody", "c")], NOW)
        yield Log(conn=conn, rules=meant.rules)


TWO = ({"step": "mail"}, {"step": "again", "once": {"within": None}})


@pytest.mark.parametrize("steps", [(), TWO])
def test_a_large_campaign_is_planned_aside_and_then_whole(
    database: str, steps: tuple[Mapping[str, Any], ...]
) -> None:
    async def run() -> None:
        async with crowded(database, body(*steps)) as log:
            done = await planner.plan_due(log.conn, log.rules, datetime.now(UTC))
            assert (done.events, done.campaigns) == (0, True)
            assert await log.ask("select count(*) from plans") == [(0,)], "nobody waits for it"
            many = MANY * (len(steps) or 1)
            assert await log.write() == 1 + many
            assert await log.ask("select count, inserted from plans") == [(many, many)]
            assert await log.ask("select count(*), count(distinct id) from effects") == [
                (many, many)
            ]
            assert await log.ask("select status from marketing_events where status <> 'COMPLETED'")
            assert await log.differences() == ()
            assert await log.write() == 0

    asyncio.run(run())


def test_a_campaign_of_two_steps_that_was_interrupted_in_the_second_is_finished(
    database: str,
) -> None:
    async def run() -> None:
        async with crowded(database, body(*TWO)) as log:
            await log.plan()
            await log.conn.execute(
                f"""create function die() returns trigger language plpgsql as $$
                    begin perform pg_terminate_backend(pg_backend_pid()); return new; end $$;
                    create trigger dies before update of inserted on plans
                    for each row when (new.inserted > {MANY + CHUNK}) execute function die()
                """.encode()
            )
            async with await AsyncConnection.connect(database, autocommit=True) as dies:
                with pytest.raises(psycopg.OperationalError):
                    await Log(conn=dies, rules=log.rules).write()
            [(inserted,)] = await log.ask("select inserted from plans")
            assert inserted == MANY + CHUNK
            assert await log.ask("select count(*) from effects") == [(inserted,)]
            assert await log.differences() == (), "what is still to be written is no loss"
            await log.conn.execute("drop trigger dies on plans")
            assert await log.write() == 2 * MANY - inserted
            assert await log.differences() == ()

    asyncio.run(run())


def test_page_by_page_and_at_once_are_the_same_plan(database: str) -> None:
    async def run() -> None:
        async with crowded(database, body(newest=MANY // 2)) as log:
            await log.plan()
            [(digest, count, cut)] = await log.ask("select digest, count, cut_seq from plans")
            pages = people.people_up_to(log.conn, cut)
            facts = [fact async for page in pages for fact in page]
            members = audience.members(facts, log.rules.campaigns["everybody"].audience)
            async with log.conn.transaction():
                today = datetime.now(UTC).date()
                [promised] = [one async for one in history.plans_of_day(log.conn, today)]
            whole = list(plan.effects(promised.event, log.rules, 0, members))
            assert count == len(whole) == MANY // 2
            assert digest == planner.plan_digest(whole)
            await log.write()
            assert await log.differences() == ()

    asyncio.run(run())


def test_a_person_of_whom_much_is_known_is_one_person(database: str) -> None:
    async def run() -> None:
        facts = 2 * people.PAGE + 1
        async with crowded(database, body(), persons=3, facts=facts) as log:
            pages = [page async for page in people.people_up_to(log.conn, 10**9)]
            persons = [{fact.recipient_id for fact in page} for page in pages]
            assert sum(map(len, persons)) == 3, "no page begins within a person"
            every = [fact for page in pages for fact in page]
            assert every == sorted(every, key=lambda one: (one.recipient_id, one.seq))
            assert len(every) == 3 * facts
            await log.plan()
            await log.write()
            assert await log.ask("select count from plans") == [(3,)]

    asyncio.run(run())


def test_a_cut_bounds_every_page(database: str) -> None:
    async def run() -> None:
        async with crowded(database, body(), persons=10) as log:
            facts = [fact async for page in people.people_up_to(log.conn, 4) for fact in page]
            assert sorted(fact.seq for fact in facts) == [1, 2, 3, 4]

    asyncio.run(run())


def test_a_large_campaign_that_cannot_be_planned_fails_alone(database: str) -> None:
    async def run() -> None:
        async with crowded(database, body()) as log:
            async with log.conn.transaction():
                await intake.record(log.conn, [campaign("nobody", "n")], NOW)
            while await log.write():
                pass
            found = dict(
                await log.ask(
                    """select payload ->> 'campaign', last_error from marketing_events
                       where type = 'CAMPAIGN_TRIGGER'"""
                )
            )
            assert found["everybody"] is None
            assert "no campaign 'nobody'" in found["nobody"]

    asyncio.run(run())


def test_two_who_plan_a_large_campaign_at_once_promise_it_once(database: str) -> None:
    async def run() -> None:
        async with (
            crowded(database, body()) as log,
            await AsyncConnection.connect(database, autocommit=True) as other,
        ):
            rival = Log(conn=other, rules=log.rules)
            written = await asyncio.gather(log.write(), rival.write())
            while await log.write():
                pass
            assert sum(written) <= 2 * (1 + MANY)
            assert await log.ask("select count(*), max(inserted) from plans") == [(1, MANY)]
            assert await log.differences() == ()

    asyncio.run(run())


DAMAGES = {
    "planned and not in the ledger": """
        delete from effects where id = (select id from effects limit 1)""",
    "in the ledger and never planned": """
        update effects set id = gen_random_uuid() where id = (select id from effects limit 1)""",
    "its plan comes out differently": "update plans set digest = repeat('0', 64)",
    "its bytes come out differently": """
        insert into attempts (effect_id, number, purpose, claim_id, provider, started_at,
                              request_sha256)
        select id, 1, 'send', id, provider, now(), repeat('0', 64) from effects limit 1""",
}


@pytest.mark.parametrize("told", DAMAGES)
def test_a_replay_tells_what_differs(database: str, told: str) -> None:
    async def run() -> None:
        async with crowded(database, body()) as log:
            await log.plan()
            await log.write()
            assert await log.differences() == ()
            await log.conn.execute(DAMAGES[told].encode())
            assert any(told in one for one in await log.differences())

    asyncio.run(run())


def test_a_replay_of_a_plan_of_version_1_plans_as_that_did(database: str) -> None:
    async def run() -> None:
        async with crowded(database, body(), persons=3) as log:
            await log.plan()
            await log.conn.execute("update plans set plan_version = 1")
            assert await log.differences() == (), "a campaign's plan is the same under both"

    asyncio.run(run())


def test_pages_of_people_are_read_from_an_index(database: str) -> None:
    """A page costs the same wherever it begins: neither a whole table nor all the rest is read."""

    async def run() -> None:
        async with crowded(database, body(), persons=30_000) as log:
            await log.conn.execute("vacuum analyze marketing_events")
            plan = await _page_plan(log)
            assert "marketing_events_recipient" in plan, plan
            assert "Seq Scan" not in plan, plan
            await log.conn.execute("drop index marketing_events_recipient")
            plan = await _page_plan(log)
            assert "marketing_events_recipient" not in plan, "the known-bad case"

    asyncio.run(run())


async def _page_plan(log: Log) -> str:
    query = b"explain " + queries.load("people.sql")["people up to"].encode()
    values = {"cut": 10**6, "person": str(UUID(int=0)), "seq": -1, "limit": people.PAGE}
    found = await log.conn.execute(query, values)
    return "\n".join(row[0] for row in await found.fetchall())
