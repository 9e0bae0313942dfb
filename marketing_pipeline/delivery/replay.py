"""Recomputes a day's plans and renderings and compares them with the ledger; it cannot send."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from uuid import UUID

from psycopg import AsyncConnection

from marketing_pipeline import telemetry
from marketing_pipeline.campaigns.meaning import Meaning
from marketing_pipeline.campaigns.rendering import TemplateError
from marketing_pipeline.delivery import assembly, crowds, planner, replanning, units, verification
from marketing_pipeline.delivery.contents import Contents
from marketing_pipeline.delivery.units import EVERY, Books, Renderings, Slice, Unit
from marketing_pipeline.delivery.verification import Difference, Findings, Verification, What
from marketing_pipeline.domain import digest
from marketing_pipeline.domain.event import EventType
from marketing_pipeline.domain.plan import PlannedEffect
from marketing_pipeline.domain.rules import Unplannable
from marketing_pipeline.event_log import history, planning
from marketing_pipeline.event_log.history import PastEffect
from marketing_pipeline.event_log.planning import Plan
from marketing_pipeline.providers.protocol import Provider

BATCH = 500  # events asked about at once
ONLY_READ = "set transaction isolation level repeatable read, read only"
NOTHING = "nothing"
UNPLANNABLE = (ValueError, TypeError, KeyError)  # Unplannable, and what poisonous events raise


async def verify(
    conn: AsyncConnection, day: date, types: Sequence[EventType] = EVERY
) -> Verification:
    """Replay a day in one read-only snapshot.

    No adapter built here holds a secret, and no transport exists: there is nothing to send with.
    """
    replayer, found = Replayer(conn), Findings()
    async with conn.transaction():
        await conn.execute(ONLY_READ)
        for unit in await units.of_day(conn, day, types):
            found += await replayer.replay(unit)
    return verification.of_day(day, found)


@dataclass(slots=True)
class Replayer:
    """Replays units, with what it has read of configurations and templates kept for the next."""

    conn: AsyncConnection
    contents: Contents = field(default_factory=Contents)
    providers: dict[str, Mapping[str, Provider]] = field(default_factory=dict)

    async def replay(self, unit: Unit) -> Findings:
        """What was found of it; in the caller's transaction, which sees one snapshot."""
        work = _Work(self, unit.day)
        match unit:
            case Slice():
                await work.slice(unit)
            case Books():
                await work.books(unit)
            case Renderings():
                await work.renderings(unit)
        return work.findings()

    async def meaning(self, config_digest: str) -> Meaning:
        meaning = await self.contents.meaning(self.conn, config_digest)
        if config_digest not in self.providers:
            self.providers[config_digest] = assembly.for_rendering(meaning.body)
        return meaning


@dataclass(slots=True)
class _Work:
    """What one unit has come to so far."""

    by: Replayer
    day: date
    events: int = 0
    effects: int = 0
    rendered: int = 0
    erased: int = 0
    seals: int = 0
    kept: Findings = field(default_factory=Findings)

    async def slice(self, unit: Slice) -> None:
        batch: list[Plan] = []
        async for promised in history.plans_of_day(
            self.by.conn, unit.day, unit.types, unit.since, unit.before
        ):
            if units.has_books(promised.event):
                continue
            batch.append(promised)
            if len(batch) == BATCH:
                await self._batch(batch)
                batch = []
        await self._batch(batch)

    async def _batch(self, batch: Sequence[Plan]) -> None:
        found = await history.effects_of_plans(self.by.conn, batch)
        rules = {
            one.config_digest: (await self.by.meaning(one.config_digest)).rules for one in batch
        }
        known = await replanning.known(self.by.conn, batch, rules)
        self.events += len(batch)
        for promised in batch:
            held = found.get((promised.event.id, promised.epoch), [])
            try:
                effects = replanning.effects(promised, rules, known)
                again = planner.plan_digest(effects)
            except UNPLANNABLE as error:
                self._no_longer(promised, error)
            else:
                self._compare_digest(promised, again)
                self._compare_ids(promised, _described(effects), _described(held))
            await self._compare_renderings(held)

    async def books(self, unit: Books) -> None:
        """A campaign, page by page: plan and ledger are read side by side in the plan's order."""
        conn = self.by.conn
        promised = await planning.plan(conn, unit.event_id, unit.epoch)
        assert promised is not None, "plans are never removed"
        meaning = await self.by.meaning(promised.config_digest)
        sending = crowds.sending(promised, meaning.rules)
        self.events += 1
        try:
            names = [step.route.step for step in sending.steps()]
        except UNPLANNABLE as error:
            self._no_longer(promised, error)
            return
        again, ids = hashlib.sha256(), _SideBySide()
        pages = history.entries_of_campaign(conn, promised, names)
        async for page in crowds.crowd(conn, sending):
            rows = page.step.rows(page.members)
            again.update(rows.lines)
            said = f"{page.step.route.step} by {page.step.route.provider}"
            ids.planned.update(dict.fromkeys(rows.ids, said))
            while ids.behind and (held := await anext(pages, None)):
                ids.held.update(held)
                ids.strike()
            if ids.behind and promised.inserted < promised.count:
                ids.strike()
                ids.planned.clear()  # these are still to be written
        async for held in pages:
            ids.held.update(held)
        self._compare_digest(promised, again.hexdigest())
        self._compare_ids(promised, ids.planned, ids.held)

    async def renderings(self, unit: Renderings) -> None:
        async for held in history.effects_of_campaign(
            self.by.conn, unit.event_id, unit.epoch, unit.first, unit.last
        ):
            await self._compare_renderings(held)

    def _compare_digest(self, promised: Plan, again: str) -> None:
        self.seals += verification.seal_of_plan(promised.event.id, promised.epoch, again)
        if again != promised.digest:
            self._differ(promised.event.id, None, What.PLAN, again, promised.digest)

    def _compare_ids(
        self, promised: Plan, planned: Mapping[str, str], held: Mapping[str, str]
    ) -> None:
        event_id = promised.event.id
        if promised.inserted == promised.count:
            for one in planned.keys() - held.keys():
                self._differ(event_id, UUID(one), What.MISSING, planned[one], NOTHING)
        for one in held.keys() - planned.keys():
            self._differ(event_id, UUID(one), What.UNPLANNED, NOTHING, held[one])

    async def _compare_renderings(self, held: Sequence[PastEffect]) -> None:
        await self.by.contents.prepare(self.by.conn, held)
        for config_digest in {effect.config_digest for effect in held}:
            await self.by.meaning(config_digest)
        for effect in held:
            self._compare_rendering(effect)
        self.effects += len(held)

    def _compare_rendering(self, effect: PastEffect) -> None:
        recorded = effect.sent_sha256
        if recorded is None:
            return
        if effect.erased:  # taken as it was recorded: forgetting somebody changes no digest
            self.erased += 1
            self.seals += verification.seal_of_rendering(effect.id, recorded)
            return
        provider = self.by.providers[effect.config_digest].get(effect.provider)
        if provider is None:
            self._differ(effect.event_id, effect.id, What.PROVIDER, effect.provider, recorded)
            return
        try:
            body = provider.request(effect.id, self.by.contents.of(effect)).read()
        except (TemplateError, ValueError) as error:
            said = telemetry.redact(str(error))
            self._differ(effect.event_id, effect.id, What.UNRENDERABLE, said, recorded)
            return
        again = digest.sha256(body)
        self.seals += verification.seal_of_rendering(effect.id, again)
        self.rendered += 1
        if again != recorded:
            self._differ(effect.event_id, effect.id, What.RENDERING, again, recorded)

    def _no_longer(self, promised: Plan, error: Exception) -> None:
        kind = "" if isinstance(error, Unplannable) else f"{type(error).__name__}: "
        said = telemetry.redact(f"{kind}{error}")
        self._differ(promised.event.id, None, What.UNPLANNABLE, said, promised.digest)

    def _differ(
        self, event_id: UUID, effect_id: UUID | None, what: What, expected: str, recorded: str
    ) -> None:
        one = Difference(
            day=self.day,
            event_id=event_id,
            effect_id=effect_id,
            what=what,
            expected=expected,
            recorded=recorded,
        )
        self.kept += Findings(differences=(one,))

    def findings(self) -> Findings:
        return self.kept + Findings(
            events=self.events,
            effects=self.effects,
            rendered=self.rendered,
            erased=self.erased,
            seals=self.seals,
        )


@dataclass(slots=True)
class _SideBySide:
    """Ids that were met on one side and not yet on the other: few, for both come in one order."""

    planned: dict[str, str] = field(default_factory=dict)  # with what each is
    held: dict[str, str] = field(default_factory=dict)

    @property
    def behind(self) -> bool:
        """Has less of the ledger been read than of the plan?"""
        return len(self.held) < len(self.planned)

    def strike(self) -> None:
        for both in self.planned.keys() & self.held.keys():
            del self.planned[both], self.held[both]


def _described(effects: Sequence[PlannedEffect | PastEffect]) -> dict[str, str]:
    return {str(one.id): f"{one.step} by {one.provider}" for one in effects}
