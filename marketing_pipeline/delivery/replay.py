"""Recomputes a day's plans and renderings and compares them with the ledger; it cannot send."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

from psycopg import AsyncConnection

from marketing_pipeline.campaigns.configuration import Meaning
from marketing_pipeline.campaigns.rendering import TemplateError
from marketing_pipeline.delivery import assembly, crowds, planner
from marketing_pipeline.delivery.contents import Contents
from marketing_pipeline.domain import digest, plan, stencil
from marketing_pipeline.domain.plan import Unplannable
from marketing_pipeline.event_log import history
from marketing_pipeline.event_log.history import PastEffect
from marketing_pipeline.event_log.planning import Plan
from marketing_pipeline.providers.protocol import Provider

SHOWN = 100  # differences told in words; the rest is counted
BATCH = 500  # events asked about at once


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
    work = _Replay(conn)
    async with conn.transaction():
        await conn.execute("set transaction isolation level repeatable read, read only")
        batch: list[Plan] = []
        async for promised in history.plans_of_day(conn, day):
            if plan.needs_audience(promised.event):
                await work.replay_campaign(promised)
                continue
            batch.append(promised)
            if len(batch) == BATCH:
                await work.replay(batch)
                batch = []
        await work.replay(batch)
    return work.verification(day)


@dataclass(slots=True)
class _Replay:
    conn: AsyncConnection
    events: int = 0
    effects: int = 0
    rendered: int = 0
    erased: int = 0
    differences: list[str] = field(default_factory=list)  # the first of them
    more: int = 0
    total: "hashlib._Hash" = field(default_factory=hashlib.sha256)
    contents: Contents = field(default_factory=Contents)
    providers: dict[str, Mapping[str, Provider]] = field(default_factory=dict)

    async def replay(self, batch: Sequence[Plan]) -> None:
        """Events of which each has few effects."""
        found = await history.effects_of_plans(self.conn, batch)
        for promised in batch:
            held = found.get((promised.event.id, promised.epoch), [])
            meaning = await self._meaning(promised)
            try:
                version = promised.plan_version
                made = plan.effects(promised.event, meaning.rules, promised.epoch, (), version)
                effects = list(made)
            except Unplannable as error:
                self._differ(_no_longer(promised, error))
            else:
                self._compare_digest(promised, planner.plan_digest(effects))
                ids = {str(one.id) for one in effects}
                self._compare_ids(promised, ids, {str(one.id) for one in held})
            await self._compare_renderings(promised, held)

    async def replay_campaign(self, promised: Plan) -> None:
        """A campaign, page by page: plan and ledger are read side by side in the plan's order."""
        meaning = await self._meaning(promised)
        event, version = promised.event, promised.plan_version
        try:
            steps = stencil.stencils(event, meaning.rules, promised.epoch, version)
        except Unplannable as error:
            self._differ(_no_longer(promised, error))
            steps = []
        again, ids = hashlib.sha256(), _SideBySide()
        names = [step.route.step for step in steps]
        pages = history.effects_of_campaign(self.conn, promised, names)
        for step in steps:
            async for members in crowds.crowd(self.conn, event, meaning.rules, promised.cut.seq):
                rows = step.rows(members)
                again.update(rows.lines)
                ids.planned.update(rows.ids)
                while ids.behind and (held := await anext(pages, None)):
                    ids.held.update(str(one.id) for one in held)
                    await self._compare_renderings(promised, held)
                    ids.strike()
                if ids.behind and promised.inserted < promised.count:
                    ids.strike()
                    ids.planned.clear()  # these are still to be written
        async for held in pages:
            ids.held.update(str(one.id) for one in held)
            await self._compare_renderings(promised, held)
        if steps:
            self._compare_digest(promised, again.hexdigest())
            self._compare_ids(promised, ids.planned, ids.held)

    async def _meaning(self, promised: Plan) -> Meaning:
        self.events += 1
        meaning = await self.contents.meaning(self.conn, promised.config_digest)
        if promised.config_digest not in self.providers:
            self.providers[promised.config_digest] = assembly.for_rendering(meaning.body)
        return meaning

    def _compare_digest(self, promised: Plan, again: str) -> None:
        self.total.update(again.encode())
        if again != promised.digest:
            self._differ(f"event {promised.event.id}: its plan comes out differently")

    def _compare_ids(self, promised: Plan, planned: set[str], held: set[str]) -> None:
        if promised.inserted == promised.count:
            for one in sorted(planned - held):
                self._differ(f"effect {one}: planned and not in the ledger")
        for one in sorted(held - planned):
            self._differ(f"effect {one}: in the ledger and never planned")

    async def _compare_renderings(self, promised: Plan, held: Sequence[PastEffect]) -> None:
        await self.contents.prepare(self.conn, held)
        for effect in held:
            self._compare_rendering(promised, effect)
        self.effects += len(held)

    def _compare_rendering(self, promised: Plan, effect: PastEffect) -> None:
        if effect.sent_sha256 is None:
            return
        if effect.erased:
            self.erased += 1
            return
        provider = self.providers[promised.config_digest].get(effect.provider)
        if provider is None:
            self._differ(f"effect {effect.id}: its provider is not in its configuration")
            return
        try:
            body = provider.request(effect.id, self.contents.of(effect)).read()
        except (TemplateError, ValueError) as error:
            self._differ(f"effect {effect.id}: can no longer be rendered: {error}")
            return
        again = digest.sha256(body)
        self.total.update(again.encode())
        self.rendered += 1
        if again != effect.sent_sha256:
            self._differ(f"effect {effect.id}: its bytes come out differently")

    def _differ(self, difference: str) -> None:
        if len(self.differences) < SHOWN:
            self.differences.append(difference)
        else:
            self.more += 1

    def verification(self, day: date) -> Verification:
        told = self.differences + ([f"and {self.more} more"] if self.more else [])
        return Verification(
            day=day,
            events=self.events,
            effects=self.effects,
            rendered=self.rendered,
            erased=self.erased,
            digest=self.total.hexdigest(),
            differences=tuple(told),
        )


@dataclass(slots=True)
class _SideBySide:
    """Ids that were met on one side and not yet on the other: few, for both come in one order."""

    planned: set[str] = field(default_factory=set)
    held: set[str] = field(default_factory=set)

    @property
    def behind(self) -> bool:
        """Has less of the ledger been read than of the plan?"""
        return len(self.held) < len(self.planned)

    def strike(self) -> None:
        both = self.planned & self.held
        self.planned -= both
        self.held -= both


def _no_longer(promised: Plan, error: Unplannable) -> str:
    return f"event {promised.event.id}: was planned and no longer can be: {error}"
