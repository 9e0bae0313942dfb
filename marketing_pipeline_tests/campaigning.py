"""An operator's folder with campaigns, and a log of people, for tests of plans."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, LiteralString
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import dict_row

from marketing_pipeline.campaigns import configuration
from marketing_pipeline.campaigns.configuration import Configuration
from marketing_pipeline.delivery import campaigns, planner, triggering
from marketing_pipeline.domain import event
from marketing_pipeline.domain.event import EventType, NewEvent
from marketing_pipeline.event_log import intake, ledger
from marketing_pipeline.providers import registry

FILE = """
version: 1
sender: {email: us@example.com, name: Us}
providers:
  crm: {adapter: hubspot, token: {env: TOKEN}, limits: [{calls: 10, per: 1s}]}
  mail:
    adapter: resend
    api_key: {env: KEY}
    limits: [{calls: 2, per: 1s}]
    price: {per_1000: 0.5, currency: EUR}
routes:
  LEAD_CAPTURE: [{step: contact, provider: crm}]
  CONTENT_PUBLISH: [{step: post, provider: site}]
  CAMPAIGN_TRIGGER: [{step: mail, provider: mail, priority: bulk ROUTE}]
templates:
  a: {subject: "A for {{ first_name | default('you') }}", html: a.html}
  b: {subject: "B", html: b.html}
audiences:
  everybody: {}
  fresh: {did_not: {mailed: 7d}}
  agreed: {consent: news, tags: {none: [pest]}}
campaigns:
  news: {audience: everybody, template: a}
  careful: {audience: everybody, template: a, approve: true}
  fresh: {audience: fresh, template: a}
  agreed: {audience: agreed, template: a, approve: true}
  tried:
    audience: everybody
    split: {holdout: 20%, variants: {one: {template: a, share: 50%}, two: {template: b}}}
    throttle: {calls: 60, per: 1m}
    approve: true
"""
SITE = "  site: {adapter: webhook, url: https://example.com/h, limits: [{calls: 9, per: 1s}]}\n"


def write(folder: Path, *, route: str = "", a: str = "<p>Hi {{ first_name }}</p>") -> Path:
    """An operator's folder; `route` adds to the campaigns' step, `a` is a template's HTML."""
    folder.mkdir(exist_ok=True)
    (folder / "a.html").write_text(a)
    (folder / "b.html").write_text("<p>B</p>")
    path = folder / "pipeline.yaml"
    text = FILE.replace("providers:\n", f"providers:\n{SITE}").replace("ROUTE", route)
    path.write_text(text.lstrip())
    return path


def load(path: Path) -> Configuration:
    return configuration.load(path, registry.KINDS)


def lead(number: int, at: datetime, **said: Any) -> NewEvent:
    return event.new(
        type=EventType.LEAD_CAPTURE,
        payload={"email": f"p{number}@example.com", "first_name": f"P{number}"} | said,
        source="web",
        key=f"{number}/{at.isoformat()}/{sorted(said)}",
        now=at,
    )


@dataclass(kw_only=True)
class Log:
    """A log, and a clock that goes on a second with whatever is done."""

    conn: AsyncConnection
    used: Configuration
    now: datetime = field(default_factory=lambda: datetime.now(UTC) - timedelta(hours=1))

    def later(self, **span: float) -> datetime:
        self.now += timedelta(**span) if span else timedelta(seconds=1)
        return self.now

    async def leads(self, numbers: Sequence[int], **said: Any) -> None:
        at = self.later()
        async with self.conn.transaction():
            await intake.record(self.conn, [lead(number, at, **said) for number in numbers], at)

    async def unsubscribe(self, number: int) -> None:
        person = await self.person(number)
        async with self.conn.transaction():
            await ledger.suppress(self.conn, person, "email", "left", self.later())

    async def person(self, number: int) -> UUID:
        found = await ledger.recipient(self.conn, f"p{number}@example.com")
        assert found is not None
        return found

    async def trigger(self, campaign: str, instant: datetime | None = None) -> UUID:
        at = self.later()
        told = await triggering.trigger(self.conn, campaign, instant or at, at)
        return told.event_id

    async def plan(self) -> None:
        """Plan and write out all that is due."""
        at, by = self.later(), self.used.meaning.rules
        await planner.use(self.conn, self.used, at)
        while (await planner.plan_due(self.conn, by, at)).events:
            pass
        while await campaigns.write_unfinished(self.conn, at, asyncio.Event(), by):
            pass

    async def send(self) -> None:
        """What the ledger says once all that is open has been sent."""
        at = self.later()
        await self.conn.execute(
            """update effects set state = 'SENDING', calls = 1, attempts = 1, claim_id = id,
                      first_attempt_at = %(now)s, last_attempt_at = %(now)s, lease_until = %(now)s
               where state = 'PLANNED'""",
            {"now": at},
        )
        await self.conn.execute(
            """update effects set state = 'SENT', provider_ref = 'm-' || id, lease_until = null,
                      settled_at = %(now)s, sent_seq = nextval('fact_seq')
               where state = 'SENDING'""",
            {"now": at},
        )

    async def rows(self, query: LiteralString, *values: object) -> list[dict[str, Any]]:
        async with self.conn.cursor(row_factory=dict_row) as cursor:
            return await (await cursor.execute(query, values)).fetchall()

    async def mailed(self, event_id: UUID) -> dict[str, str]:
        """Template by person, as the ledger has them."""
        found = await self.rows(
            "select recipient_id::text, template from effects where event_id = %s", event_id
        )
        return {row["recipient_id"]: row["template"] for row in found}


@asynccontextmanager
async def log(database: str, path: Path) -> AsyncIterator[Log]:
    async with await AsyncConnection.connect(database, autocommit=True) as conn:
        yield Log(conn=conn, used=load(path))
