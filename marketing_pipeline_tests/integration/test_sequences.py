"""Sequences: each step follows the one before, once, and stops when its condition holds."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

import psycopg
from psycopg import AsyncConnection

from marketing_pipeline.campaigns import meaning
from marketing_pipeline.delivery import planner
from marketing_pipeline.domain import event
from marketing_pipeline.domain.event import EventType, NewEvent
from marketing_pipeline.domain.rules import Rules
from marketing_pipeline.domain.template import Template
from marketing_pipeline.event_log import intake, ledger, versions

NOW = datetime.now(UTC) - timedelta(days=1)
TIPS, OFFER = (
    Template(hash=letter * 64, name=name, subject="s", html="<p>Hi {{ first_name }}</p>")
    for letter, name in (("a", "tips"), ("b", "offer"))
)


def body(*, audience: dict[str, Any] | None = None) -> dict[str, Any]:
    everybody: dict[str, Any] = {"sources": [], "where": {}, "newest": None}
    mail = {"step": "mail", "provider": "mail", "kind": "email", "properties": {}}
    contact = {"step": "crm", "provider": "crm", "kind": "contact", "properties": {}}
    plain = {"priority": "normal", "template": None}
    return {
        "sender": {"email": "us@example.com", "name": "Us"},
        "audiences": {
            "all": everybody | (audience or {}),
            "customers": everybody | {"where": {"customer": True}},
        },
        "campaigns": {},
        "providers": {
            "mail": {"adapter": "resend", "options": {}},
            "crm": {"adapter": "hubspot", "options": {}},
        },
        "templates": {
            one.name: {"hash": one.hash, "reads": ["first_name"]} for one in (TIPS, OFFER)
        },
        "routes": {"CAMPAIGN_TRIGGER": [mail | plain], "LEAD_CAPTURE": [contact | plain]},
        "sequences": {
            "onboarding": {
                "on": "LEAD_CAPTURE",
                "audience": "all",
                "stop_when": "customers",
                "steps": [
                    {"step": "tips", "after": 60.0, "template": "tips"},
                    {"step": "offer", "after": 3600.0, "template": "offer"},
                ],
                "priority": None,
            }
        },
    }


def lead(key: str, **said: Any) -> NewEvent:
    return event.new(
        type=EventType.LEAD_CAPTURE,
        payload={"email": "ada@example.com", "first_name": "Ada"} | said,
        source="web",
        key=key,
        now=NOW,
    )


@asynccontextmanager
async def log(
    database: str, stored: dict[str, Any]
) -> AsyncIterator[tuple[AsyncConnection, Rules]]:
    async with await AsyncConnection.connect(database, autocommit=True) as conn:
        meant = meaning.of(stored)
        for template in (TIPS, OFFER):
            await versions.keep_template(conn, template, NOW)
        await versions.keep_config(conn, meant.rules.digest, meant.body, NOW)
        yield conn, meant.rules


async def record(conn: AsyncConnection, *events: NewEvent) -> None:
    async with conn.transaction():
        await intake.record(conn, events, NOW)


async def plan(conn: AsyncConnection, rules: Rules, at: datetime) -> None:
    while (await planner.plan_due(conn, rules, at)).events:
        pass


async def steps(conn: AsyncConnection) -> list[tuple[str, str, int | None, Any]]:
    """Each recorded step, with its event's status, and what its plan came to."""
    query: LiteralString = """
        select m.payload ->> 'step', m.status, p.count, p.excluded
        from marketing_events m left join plans p on p.event_id = m.id
        where m.source = 'sequence' order by m.seq"""
    return await (await conn.execute(query)).fetchall()


def test_each_step_comes_in_its_time_and_once(database: str) -> None:
    async def run() -> None:
        async with log(database, body()) as (conn, rules):
            await record(conn, lead("1"))
            await plan(conn, rules, NOW)
            assert await steps(conn) == [("tips", "PENDING", None, None)]
            await plan(conn, rules, NOW + timedelta(seconds=59))
            assert len(await steps(conn)) == 1, "too early"
            for _ in range(2):
                await plan(conn, rules, NOW + timedelta(seconds=60))
                await conn.execute("update marketing_events set status = 'PENDING'")
            assert [one[0] for one in await steps(conn)] == ["tips", "offer"]
            await plan(conn, rules, NOW + timedelta(seconds=3660))
            found = await (
                await conn.execute(
                    """select step, template, variables ->> 'first_name', due_at
                       from effects where kind = 'email' order by due_at"""
                )
            ).fetchall()
            assert found == [
                ("mail", TIPS.hash, "Ada", NOW + timedelta(seconds=60)),
                ("mail", OFFER.hash, "Ada", NOW + timedelta(seconds=3660)),
            ]
            assert len(await steps(conn)) == 2, "it ends with its last step"

    asyncio.run(run())


def test_two_planners_at_once_record_a_step_once(database: str) -> None:
    async def run() -> None:
        async with (
            log(database, body()) as (conn, rules),
            await AsyncConnection.connect(database, autocommit=True) as other,
        ):
            await record(conn, *(lead(str(n), email=f"p{n}@example.com") for n in range(40)))
            await asyncio.gather(*(plan(one, rules, NOW) for one in (conn, other)))
            assert len(await steps(conn)) == 40

    asyncio.run(run())


def test_a_sequence_stops_when_its_condition_holds(database: str) -> None:
    async def run() -> None:
        async with log(database, body()) as (conn, rules):
            await record(conn, lead("1"))
            await plan(conn, rules, NOW + timedelta(seconds=60))
            await record(conn, lead("2", customer=True))  # begins one of its own, and ends both
            await plan(conn, rules, NOW + timedelta(seconds=3660))
            assert await steps(conn) == [
                ("tips", "PROCESSING", 1, {}),
                ("offer", "COMPLETED", 0, {"stopped": 1}),
                ("tips", "COMPLETED", 0, {"stopped": 1}),
            ]

    asyncio.run(run())


def test_who_has_unsubscribed_gets_no_further_step(database: str) -> None:
    async def run() -> None:
        async with log(database, body()) as (conn, rules):
            await record(conn, lead("1"))
            await plan(conn, rules, NOW)
            person = await ledger.recipient(conn, "ada@example.com")
            assert person is not None
            async with conn.transaction():
                await ledger.suppress(conn, person, "email", "left", NOW)
            await plan(conn, rules, NOW + timedelta(days=1))
            assert await steps(conn) == [("tips", "COMPLETED", 0, {"suppressed": 1})]

    asyncio.run(run())


def test_behaviour_is_read_as_of_the_steps_own_cut(database: str) -> None:
    """What is committed while the step is planned is above its cut, and counts for the next."""

    async def run() -> None:
        stored = body(audience={"did_not": {"mailed": None}})
        async with (
            log(database, stored) as (conn, rules),
            await psycopg.AsyncConnection.connect(database) as sender,
        ):
            await record(conn, lead("1"))
            await plan(conn, rules, NOW + timedelta(seconds=60))
            assert [(one[0], one[2]) for one in await steps(conn)] == [("tips", 1), ("offer", None)]
            await sender.execute(
                """update effects set state = 'SENT', provider_ref = 'm', calls = 1, attempts = 1,
                          settled_at = now(), sent_seq = nextval('fact_seq'),
                          claim_id = id, first_attempt_at = now(), last_attempt_at = now()
                   where kind = 'email'"""
            )
            late = asyncio.create_task(plan(conn, rules, NOW + timedelta(seconds=3660)))
            await asyncio.sleep(0.1)
            assert not late.done(), "the cut waits for whoever is writing a fact"
            await sender.commit()
            await late
            assert [(one[0], one[2], one[3]) for one in await steps(conn)] == [
                ("tips", 1, {}),
                ("offer", 0, {"filtered": 1}),
            ]

    asyncio.run(run())


def test_an_edited_sequence_goes_on_with_its_present_steps(database: str) -> None:
    async def run() -> None:
        async with log(database, body()) as (conn, rules):
            await record(conn, lead("1"))
            await plan(conn, rules, NOW)
            stored = body()
            stored["sequences"]["onboarding"]["steps"][1]["step"] = "last_word"
            edited = meaning.of(stored).rules
            await versions.keep_config(conn, edited.digest, stored, NOW)
            await plan(conn, edited, NOW + timedelta(seconds=60))
            assert [one[0] for one in await steps(conn)] == ["tips", "last_word"]

    asyncio.run(run())


def test_a_step_that_the_file_no_longer_has_fails_with_the_reason(database: str) -> None:
    async def run() -> None:
        async with log(database, body()) as (conn, rules):
            await record(conn, lead("1"))
            await plan(conn, rules, NOW)
            stored = body()
            del stored["sequences"]["onboarding"]["steps"][0]
            edited = meaning.of(stored).rules
            await versions.keep_config(conn, edited.digest, stored, NOW)
            await plan(conn, edited, NOW + timedelta(seconds=60))
            [(_, status, _, _)] = await steps(conn)
            assert status == "FAILED"
            [(reason,)] = await (
                await conn.execute(
                    "select last_error from marketing_events where status = 'FAILED'"
                )
            ).fetchall()
            assert reason == "payload.step: no step 'tips'; the file has: offer"

    asyncio.run(run())
