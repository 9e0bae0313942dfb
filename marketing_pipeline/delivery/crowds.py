"""Campaigns page by page: a million people are counted in little memory."""

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection

from marketing_pipeline.domain import audience, plan, rules, stencil
from marketing_pipeline.domain.audience import LeftOut, Why
from marketing_pipeline.domain.event import Event
from marketing_pipeline.domain.person import NOTHING, LeadFact, Member
from marketing_pipeline.domain.rules import Rules
from marketing_pipeline.domain.stencil import Stencil
from marketing_pipeline.event_log import people
from marketing_pipeline.event_log.approvals import Approval
from marketing_pipeline.event_log.cuts import Cut
from marketing_pipeline.event_log.planning import Plan

SLICE = 100  # people between two looks at the loop's other work: about a millisecond
EPOCH = 0  # the first; a new one is only ever asked for by name


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Some people of the log: who is mailed in a step, and who is not."""

    step: Stencil
    members: Sequence[Member]
    left_out: Sequence[LeftOut]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """What a plan of a campaign follows from, and nothing else."""

    event: Event
    rules: Rules
    epoch: int
    cut: Cut
    version: int = plan.VERSION
    starts_at: datetime | None = None  # None: when the event is due
    only: str | None = None  # one of its steps

    def steps(self) -> list[Stencil]:
        """Raises Unplannable where the event names what the rules do not have."""
        steps = stencil.stencils(self.event, self.rules, self.epoch, self.version, self.starts_at)
        return [step for step in steps if self.only in {None, step.route.step}]


@dataclass(slots=True)
class Tally:
    """What a plan comes to."""

    many: int = 0
    excluded: Counter[Why] = field(default_factory=Counter)
    _total: "hashlib._Hash" = field(default_factory=hashlib.sha256)

    @property
    def digest(self) -> str:
        return self._total.hexdigest()

    async def add(self, page: Page) -> None:
        self.many += len(page.members)
        self.excluded.update(one.why for one in page.left_out)
        for at in range(0, len(page.members), SLICE):
            self._total.update(page.step.rows(page.members[at : at + SLICE]).lines)
            await asyncio.sleep(0)


async def count(conn: AsyncConnection, of: Sending, stopping: asyncio.Event) -> Plan | None:
    """What a campaign's plan promises; None: told to stop."""
    tally = Tally()
    pages = crowd(conn, of)
    page = await anext(pages, None)
    while page is not None:
        if stopping.is_set():
            return None
        page, _ = await at_once(anext(pages, None), tally.add(page))
    return Plan(
        event=of.event,
        epoch=of.epoch,
        cut=of.cut,
        config_digest=of.rules.digest,
        plan_version=of.version,
        count=tally.many,
        digest=tally.digest,
        inserted=0,
        starts_at=of.starts_at,
        excluded={str(why): many for why, many in sorted(tally.excluded.items())},
    )


async def at_once(*work: Awaitable[Any]) -> list[Any]:
    """What each came to, once all have ended: nobody is left at work on a connection."""
    found = await asyncio.gather(*work, return_exceptions=True)
    for one in found:
        if isinstance(one, BaseException):
            raise one
    return found


async def crowd(conn: AsyncConnection, of: Sending) -> AsyncIterator[Page]:
    """The people of the log up to the cut, step by step and by recipient: pages, in bounded memory.

    Where only the newest are wanted, the log is read once more before, to find where they begin.

    Raises:
        Unplannable: the event names what the rules do not have.
    """
    steps = of.steps()
    newest = rules.campaign_of(of.event, of.rules).audience.newest if steps else None
    since = 0.0
    if newest is not None:
        found = audience.Newest(newest)
        async for facts in people.people_up_to(conn, of.cut.seq):
            chosen, _ = await _sift(conn, of, facts)
            found.add(chosen)
            await asyncio.sleep(0)
        since = found.since
    for step in steps:
        async for facts in people.people_up_to(conn, of.cut.seq):
            chosen, left = await _sift(conn, of, facts)
            if newest is not None:
                left += [
                    LeftOut(one.recipient_id, Why.NOT_NEWEST, str(newest))
                    for one in chosen
                    if one.seq < since
                ]
                chosen = [one for one in chosen if one.seq >= since]
            yield await _page(conn, of, step, chosen, left)


async def _sift(
    conn: AsyncConnection, of: Sending, facts: Sequence[LeadFact]
) -> tuple[list[Member], list[LeftOut]]:
    chosen = rules.campaign_of(of.event, of.rules).audience
    known = NOTHING
    if of.version >= plan.SIFTED:
        known = await people.traits(conn, facts, chosen.behaviours, of.cut.seq)
    return audience.sift(facts, chosen, known, of.cut.at)


async def _page(
    conn: AsyncConnection,
    of: Sending,
    step: Stencil,
    chosen: Sequence[Member],
    left: list[LeftOut],
) -> Page:
    """Without those who are held out, and those who have had what `once` grants."""
    mailed = step.mailed(chosen)
    if len(mailed) < len(chosen):
        drawn = {one.recipient_id for one in mailed}
        left += [
            LeftOut(one.recipient_id, Why.HOLDOUT, "")
            for one in chosen
            if one.recipient_id not in drawn
        ]
    once = step.route.once
    if once is not None and mailed and of.version >= plan.SIFTED:
        keys = {one.recipient_id: step.once_key(one.recipient_id) for one in mailed}
        taken = await people.sent_once(
            conn, list(keys.values()), of.cut.seq, within=once.within, starts_at=step.starts_at
        )
        had = {person for person, key in keys.items() if key in taken}
        left += [LeftOut(person, Why.ALREADY_SENT, step.route.step) for person in sorted(had)]
        mailed = [one for one in mailed if one.recipient_id not in had]
    return Page(step=step, members=mailed, left_out=left)


def sending(promised: Plan, by: Rules) -> Sending:
    """What a plan on record follows from."""
    return Sending(
        event=promised.event,
        rules=by,
        epoch=promised.epoch,
        cut=promised.cut,
        version=promised.plan_version,
        starts_at=promised.starts_at,
    )


def approved(event: Event, by: Rules, approval: Approval) -> Sending:
    """What an approved plan follows from; it comes due no earlier than it was approved."""
    of = approval.proposal
    return Sending(
        event=event,
        rules=by,
        epoch=of.epoch,
        cut=of.cut,
        version=of.plan_version,
        starts_at=max(event.scheduled_at, approval.created_at),
    )
