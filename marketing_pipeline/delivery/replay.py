"""Recomputes a day's plans and renderings and compares them with the ledger; it cannot send."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

from psycopg import AsyncConnection

from marketing_pipeline.campaigns.rendering import TemplateError
from marketing_pipeline.delivery import assembly, planner
from marketing_pipeline.delivery.contents import Contents
from marketing_pipeline.domain import audience, digest, plan
from marketing_pipeline.domain.audience import LeadFact
from marketing_pipeline.domain.plan import Rules, Unplannable
from marketing_pipeline.event_log import history, planning
from marketing_pipeline.event_log.history import PastEffect
from marketing_pipeline.event_log.planning import Plan
from marketing_pipeline.providers.protocol import Provider

SHOWN = 100  # differences told in words; the rest is counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What a replay of one day found."""

    day: date
    events: int
    effects: int
    rendered: int  # whose bytes could be made again and were compared
    erased: int  # whose person has been forgotten since: nothing to compare with
    digest: str  # over every plan and rendering, the same on any machine
    differences: tuple[str, ...]


async def verify(conn: AsyncConnection, day: date) -> Verification:
    """Replay a day in one read-only snapshot.

    No adapter built here holds a secret, and no transport exists: there is nothing to send with.
    """
    work = _Replay()
    async with conn.transaction():
        await conn.execute("set transaction isolation level repeatable read, read only")
        async for promised in history.plans_of_day(conn, day):
            await work.replay(conn, promised)
    return work.verification(day)


@dataclass(slots=True)
class _Replay:
    events: int = 0
    effects: int = 0
    rendered: int = 0
    erased: int = 0
    differences: list[str] = field(default_factory=list)
    total: "hashlib._Hash" = field(default_factory=hashlib.sha256)
    contents: Contents = field(default_factory=Contents)
    providers: dict[str, Mapping[str, Provider]] = field(default_factory=dict)
    facts: tuple[int, list[LeadFact]] = (0, [])  # of the last cut: campaigns often share one

    async def replay(self, conn: AsyncConnection, promised: Plan) -> None:
        held = await history.effects_of_plan(conn, promised)
        await self.contents.prepare(conn, held)
        meaning = await self.contents.meaning(conn, promised.config_digest)
        if promised.config_digest not in self.providers:
            self.providers[promised.config_digest] = assembly.for_rendering(meaning.body)
        if plan.needs_audience(promised.event) and self.facts[0] != promised.cut.seq:
            facts = [fact async for fact in planning.leads_up_to(conn, promised.cut.seq)]
            self.facts = (promised.cut.seq, facts)
        self._compare_plan(promised, meaning.rules, held)
        for effect in held:
            self._compare_rendering(promised, effect)
        self.events += 1
        self.effects += len(held)

    def _compare_plan(self, promised: Plan, rules: Rules, held: Sequence[PastEffect]) -> None:
        event = promised.event
        members = []
        try:
            if plan.needs_audience(event):
                chosen = plan.campaign_of(event, rules).audience
                members = audience.members(self.facts[1], chosen)
            effects = list(plan.effects(event, rules, promised.epoch, members))
        except Unplannable as error:
            self.differences.append(f"event {event.id}: was planned and no longer can be: {error}")
            return
        again = planner.plan_digest(effects)
        self.total.update(again.encode())
        if again != promised.digest:
            self.differences.append(f"event {event.id}: its plan comes out differently")
        missing = {one.id for one in effects} - {one.id for one in held}
        beyond = {one.id for one in held} - {one.id for one in effects}
        if promised.inserted == promised.count:
            self.differences += [f"effect {one}: planned and not in the ledger" for one in missing]
        self.differences += [f"effect {one}: in the ledger and never planned" for one in beyond]

    def _compare_rendering(self, promised: Plan, effect: PastEffect) -> None:
        if effect.sent_sha256 is None:
            return
        if effect.erased:
            self.erased += 1
            return
        provider = self.providers[promised.config_digest].get(effect.provider)
        if provider is None:
            self.differences.append(f"effect {effect.id}: its provider is not in its configuration")
            return
        try:
            body = provider.request(effect.id, self.contents.of(effect)).read()
        except (TemplateError, ValueError) as error:
            self.differences.append(f"effect {effect.id}: can no longer be rendered: {error}")
            return
        again = digest.sha256(body)
        self.total.update(again.encode())
        self.rendered += 1
        if again != effect.sent_sha256:
            self.differences.append(f"effect {effect.id}: its bytes come out differently")

    def verification(self, day: date) -> Verification:
        told = self.differences[:SHOWN]
        if len(self.differences) > SHOWN:
            told.append(f"and {len(self.differences) - SHOWN} more")
        return Verification(
            day=day,
            events=self.events,
            effects=self.effects,
            rendered=self.rendered,
            erased=self.erased,
            digest=self.total.hexdigest(),
            differences=tuple(told),
        )
