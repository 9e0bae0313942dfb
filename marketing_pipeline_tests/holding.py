"""A campaign under way that a test pauses, resumes and cancels, with the engine's part by hand."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection

from marketing_pipeline.campaigns import meaning
from marketing_pipeline.delivery import campaigns, planner
from marketing_pipeline.delivery.holding import Report, control
from marketing_pipeline.delivery.settling import finish
from marketing_pipeline.domain.effect import EffectState
from marketing_pipeline.domain.event import NewEvent
from marketing_pipeline.domain.rules import Rules
from marketing_pipeline.domain.template import Template
from marketing_pipeline.event_log import intake, ledger, versions
from marketing_pipeline.event_log.holding import Action, Said
from marketing_pipeline.event_log.ledger import Candidate, Settlement
from marketing_pipeline_tests.attempting import attempts
from marketing_pipeline_tests.pipeline import campaign

MAIL = "mail"
LEASE = timedelta(seconds=30)
NEWS = Template(hash="b" * 64, name="news", subject="s", html="<p>news</p>")
BY_ADA = Said(why="a typo in the subject", who="ada")
LEADS = """
with people as (
    insert into recipients (id, address, created_at)
    select md5('p' || n)::uuid, 'p' || n || '@example.com', now() from generate_series(1, %s) n
    returning id, address
)
insert into marketing_events (id, idempotency_key, type, payload, source, origin, fingerprint,
    recipient_id, scheduled_at, created_at, status, updated_at)
select md5(address)::uuid, address, 'LEAD_CAPTURE', jsonb_build_object('email', address), 'demo',
       'history', repeat('a', 64), id, now(), now(), 'COMPLETED', now()
from people"""
# Takes a row's connection away in the middle of a chunk that is not the first.
DIE = """create function die() returns trigger language plpgsql as $$
         begin perform pg_terminate_backend(pg_backend_pid()); return new; end $$"""


def body(provider: str = MAIL) -> dict[str, Any]:
    """The stored form of a file whose campaign mails everybody, within a day."""
    mail = {"step": "mail", "provider": provider, "kind": "email", "properties": {}}
    route = mail | {"priority": "bulk", "template": None, "max_age": 86400.0}
    return {
        "sender": {"email": "us@example.com", "name": "Us"},
        "audiences": {"all": {"sources": [], "where": {}, "newest": None}},
        "campaigns": {"everybody": {"audience": "all", "template": "news"}},
        "providers": {provider: {"adapter": "resend", "options": {}}},
        "templates": {"news": {"hash": NEWS.hash, "reads": []}},
        "routes": {"CAMPAIGN_TRIGGER": [route]},
    }


@dataclass(frozen=True, kw_only=True)
class Log:
    """A log that holds a crowd and a campaign to it."""

    url: str
    conn: AsyncConnection
    rules: Rules
    event_id: UUID

    async def ask(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        return await (await self.conn.execute(query.encode(), values)).fetchall()

    async def value(self, query: str, *values: object) -> Any:
        [(found,)] = await self.ask(query, *values)
        return found

    async def record(self, *events: NewEvent) -> None:
        async with self.conn.transaction():
            await intake.record(self.conn, events, datetime.now(UTC))

    async def plan(self) -> None:
        """Plan and write out what is due."""
        now = datetime.now(UTC)
        await planner.plan_due(self.conn, self.rules, now)
        await campaigns.write_unfinished(self.conn, now, asyncio.Event(), self.rules)

    async def do(self, action: Action, what: str | None = None) -> Report:
        return await control(self.conn, action, what or str(self.event_id), BY_ADA, lambda _: None)

    async def states(self) -> dict[str, int]:
        return dict(
            await self.ask(
                "select state, count(*)::int from effects where event_id = %s group by 1",
                self.event_id,
            )
        )

    async def status(self) -> str:
        found = await self.value("select status from marketing_events where id = %s", self.event_id)
        return str(found)

    async def balanced(self) -> bool:
        """Planned = sent + failed + suppressed + unknown + open, and nothing in between."""
        missing = "select coalesce(bool_and(missing = 0), true) from conservation(%s, %s)"
        day = datetime.now(UTC).date()
        return bool(await self.value(missing, day - timedelta(days=3), day))


@asynccontextmanager
async def crowded(database: str, *, persons: int, plan: bool = True) -> AsyncIterator[Log]:
    """A campaign to so many people: planned and written out, unless it is only to be due."""
    async with await AsyncConnection.connect(database, autocommit=True) as conn:
        now = datetime.now(UTC)
        await conn.execute(LEADS.encode(), (persons,))
        meant = meaning.of(body())
        await versions.keep_template(conn, NEWS, now)
        await versions.keep_config(conn, meant.rules.digest, meant.body, now)
        trigger = campaign("everybody", "c")
        log = Log(url=database, conn=conn, rules=meant.rules, event_id=trigger.id)
        await log.record(trigger)
        if plan:
            await log.plan()
        yield log


@dataclass(frozen=True, kw_only=True)
class Claimed:
    """What one claim took."""

    id: UUID
    candidates: Sequence[Candidate]


async def claim(conn: AsyncConnection, limit: int = 10, lock: Any = ledger.lock_due) -> Claimed:
    """Claim as the engine does, with its commit where `conn` is in autocommit mode."""
    claim_id = uuid.uuid4()
    async with conn.transaction():
        found = await lock(conn, MAIL, limit)
        if found:
            await ledger.claim(conn, MAIL, claim_id, attempts(found, LEASE), found[0].now)
    return Claimed(id=claim_id, candidates=found)


async def settle(conn: AsyncConnection, of: Claimed, **said: Any) -> None:
    """Every one of them was Accepted, unless something else is said; events are completed."""
    now = datetime.now(UTC)
    usual: dict[str, Any] = {
        "outcome": "ACCEPTED",
        "status_code": 200,
        "latency": timedelta(milliseconds=20),
        "reason": None,
        "state": EffectState.SENT,
        "due_at": None,
        "given_back": False,
        "in_doubt": False,
        "reference": "ref",
    }
    batch = [
        Settlement(effect_id=one.id, claim_id=of.id, number=one.calls + 1, **(usual | said))
        for one in of.candidates
    ]
    settled = await ledger.settle(conn, batch, now)
    await finish(conn, (one.event_id for one in settled), now)


THROTTLED: dict[str, Any] = {
    "outcome": "THROTTLED",
    "status_code": 429,
    "reason": "429",
    "state": EffectState.PLANNED,
    "given_back": True,
    "reference": None,
}
AMBIGUOUS: dict[str, Any] = {
    "outcome": "AMBIGUOUS",
    "status_code": None,
    "reason": "no answer",
    "state": EffectState.DOUBT,
    "in_doubt": True,
    "reference": None,
}
