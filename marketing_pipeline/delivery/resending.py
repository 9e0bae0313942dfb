"""Plans the events of past days once more, in a new epoch: a replay that is meant to send.

Who is mailed is decided by the facts that the first plan read, and what they are mailed by the
file as it stands now: so history is sent again with another template, to the same people. It only
writes plans; a delivery run sends them.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

from psycopg import AsyncConnection

from marketing_pipeline.campaigns.configuration import Configuration
from marketing_pipeline.delivery import crowds, planner, replanning, settling, units
from marketing_pipeline.delivery.replanning import Then
from marketing_pipeline.delivery.replaying import Asked, CannotReplay
from marketing_pipeline.delivery.singles import Known
from marketing_pipeline.domain import digest, plan, rules
from marketing_pipeline.domain.event import Origin
from marketing_pipeline.domain.plan import PlannedEffect
from marketing_pipeline.domain.rules import Rules, Unplannable
from marketing_pipeline.event_log import approvals, history, planning
from marketing_pipeline.event_log.approvals import CannotApprove, Proposal, ProposalKind
from marketing_pipeline.event_log.cuts import Cut
from marketing_pipeline.event_log.planning import Plan

SLICE = 500  # events a transaction
LIFE = timedelta(hours=24)  # of a proposal


@dataclass(frozen=True, slots=True, kw_only=True)
class Resend:
    """What is to be sent again."""

    asked: Asked
    epoch: int


@dataclass(slots=True, kw_only=True)
class Renewed:
    """What the plans of some days come to in the new epoch."""

    events: int = 0
    effects: int = 0
    days: dict[str, str] = field(default_factory=dict)  # their digests
    written: int = 0  # plans that were not there before

    @property
    def digest(self) -> str:
        """Over the digests of the days."""
        return digest.running([day, seal] for day, seal in sorted(self.days.items()))


async def propose(conn: AsyncConnection, used: Configuration, of: Resend, now: datetime) -> Renewed:
    """What sending the days again would come to; kept, so that its digest lets it be done.

    Raises:
        CannotReplay: an event cannot be planned now, or the epoch is none.
    """
    _check_epoch(of.epoch)
    found = Renewed()
    for day in await history.days(conn, of.asked.first, of.asked.last, of.asked.types):
        await _count(conn, used.meaning.rules, of, day.day, found)
    await planner.keep(conn, used, now)
    await approvals.propose(conn, _proposal(used, of, found, now), now)
    return found


async def resend(
    conn: AsyncConnection,
    used: Configuration,
    of: Resend,
    plan_digest: str,
    who: str,
    now: datetime,
) -> Renewed:
    """Write the plans that were proposed, of those of its days that are asked for.

    What is there already stays: it can be called again after a crash, and by several at once.

    Raises:
        CannotReplay: no such plan was proposed, it has lapsed, or it comes out differently now.
    """
    _check_epoch(of.epoch)
    proposal = await _proposed(conn, used, of, plan_digest)
    found = Renewed()
    for day in await history.days(conn, of.asked.first, of.asked.last, of.asked.types):
        await _count(conn, used.meaning.rules, of, day.day, found)
        name = str(day.day)
        if (proposal.days or {}).get(name) != found.days[name]:
            raise CannotReplay(
                f"plan_digest: the plans of {name} come out differently by now; propose it again"
            )
    await planner.keep(conn, used, now)
    for day in await history.days(conn, of.asked.first, of.asked.last, of.asked.types):
        async for batch in _renewed(conn, used.meaning.rules, of, day.day):
            found.written += await _write(conn, batch, now)
    if found.written:
        await approvals.agree(conn, proposal, who=who, why=f"resend in epoch {of.epoch}")
    return found


_Batch = Sequence[tuple[Plan, Sequence[PlannedEffect]]]  # of a campaign no effects: written later


async def _count(conn: AsyncConnection, by: Rules, of: Resend, day: date, found: Renewed) -> None:
    total = hashlib.sha256()
    async for batch in _renewed(conn, by, of, day):
        for promised, _ in batch:
            found.events += 1
            found.effects += promised.count
            total.update(digest.canonical([str(promised.event.id), promised.digest]) + b"\n")
    found.days[str(day)] = total.hexdigest()


async def _renewed(
    conn: AsyncConnection, by: Rules, of: Resend, day: date
) -> AsyncIterator[_Batch]:
    """A day's first plans, made again by the rules of today from the facts of then."""
    cancelled = await history.cancelled(conn, day)
    for since, before in await history.slices(conn, day, of.asked.types, SLICE):
        async with conn.transaction():
            plans = [
                one
                async for one in history.plans_of_day(conn, day, of.asked.types, since, before)
                if one.epoch == crowds.EPOCH and _can_be_sent(one, cancelled)
            ]
        blank = [_blank(one, by, of.epoch) for one in plans]
        known = await replanning.known(conn, blank, {by.digest: by})
        yield [await _again(conn, one, by, known) for one in blank]


def _can_be_sent(first: Plan, cancelled: Set[UUID]) -> bool:
    """Neither history nor what was cancelled ever is; a template's test has no need to be."""
    live = first.event.origin is Origin.LIVE and first.event.id not in cancelled
    return live and rules.given(first.event) is None


def _blank(first: Plan, by: Rules, epoch: int) -> Plan:
    """A plan before it is known what it promises."""
    return replace(
        first,
        epoch=epoch,
        config_digest=by.digest,
        plan_version=plan.VERSION,
        inserted=0,
        starts_at=None,
        excluded={},
    )


async def _again(
    conn: AsyncConnection, blank: Plan, by: Rules, known: Mapping[Then, Known]
) -> tuple[Plan, Sequence[PlannedEffect]]:
    try:
        if units.has_books(blank.event):
            counted = await crowds.count(conn, crowds.sending(blank, by), asyncio.Event())
            assert counted is not None, "nobody stops it"
            return counted, ()
        effects = replanning.effects(blank, {by.digest: by}, known)
    except Unplannable as error:
        raise CannotReplay(f"event {blank.event.id}: cannot be planned today: {error}") from error
    seal = planner.plan_digest(effects)
    return replace(blank, count=len(effects), digest=seal), effects


async def _write(conn: AsyncConnection, batch: _Batch, now: datetime) -> int:
    """Keep the plans that are not there yet; how many.

    Effects come due now, whenever the events were; campaigns are written out by a delivery run.
    """
    dated = [
        (
            replace(promised, starts_at=now, inserted=len(effects)),
            [_due_now(one, promised, now) for one in effects],
        )
        for promised, effects in batch
    ]
    async with conn.transaction():
        there = await planning.standing_plans(conn, [promised for promised, _ in dated])
        fresh = [one for one in dated if one[0].event.id not in there]
        for promised, _ in dated:
            if there.get(promised.event.id, promised.digest) != promised.digest:
                raise CannotReplay(
                    f"epoch: {promised.epoch} was used for another plan of event "
                    f"{promised.event.id}; write a higher one"
                )
        plans = [promised for promised, _ in fresh]
        await planning.promise(conn, plans, [p.event.id for p in plans if p.count], now)
        rows = [(p.event, p.epoch, one) for p, effects in fresh for one in effects]
        refused = await planning.take_once(conn, [effect for _, _, effect in rows])
        await planning.insert_effects(conn, rows, now, refused=refused)
    await settling.finish(conn, [promised.event.id for promised, _ in fresh], now)
    return len(fresh)


def _due_now(effect: PlannedEffect, promised: Plan, now: datetime) -> PlannedEffect:
    """The same, as late as it is sent: what it was too old for is not what was asked for."""
    later = now - promised.event.scheduled_at
    return replace(
        effect,
        due_at=effect.due_at + later,
        expires_at=None if effect.expires_at is None else effect.expires_at + later,
        once_until=None if effect.once_until is None else effect.once_until + later,
    )


async def _proposed(
    conn: AsyncConnection, used: Configuration, of: Resend, plan_digest: str
) -> Proposal:
    try:
        found = await approvals.proposal(conn, plan_digest, ProposalKind.RESEND)
    except CannotApprove as error:
        raise CannotReplay(f"plan_digest: {error}") from error
    asked = of.asked
    assert found.from_day is not None, "a CHECK says so"
    assert found.to_day is not None, "likewise"
    assert found.created_at is not None, "it is of the log"
    if (found.epoch, tuple(found.types or ())) != (of.epoch, tuple(map(str, asked.types))):
        raise CannotReplay("plan_digest: it was proposed for another epoch or other types")
    if not found.from_day <= asked.first <= asked.last <= found.to_day:
        raise CannotReplay(
            f"plan_digest: it was proposed for {found.from_day} to {found.to_day}; keep within them"
        )
    if found.config_digest != used.meaning.rules.digest:
        raise CannotReplay(
            "plan_digest: it lapsed: the file or a template has changed since; propose it again"
        )
    if datetime.now(UTC) - found.created_at > LIFE:
        raise CannotReplay(f"plan_digest: it lapsed after {LIFE}; propose it again")
    return found


def _proposal(used: Configuration, of: Resend, found: Renewed, now: datetime) -> Proposal:
    return Proposal(
        digest=found.digest,
        kind=ProposalKind.RESEND,
        epoch=of.epoch,
        cut=Cut(seq=0, at=now),  # each event keeps the one of its first plan
        config_digest=used.meaning.rules.digest,
        plan_version=plan.VERSION,
        count=found.effects,
        from_day=of.asked.first,
        to_day=of.asked.last,
        types=[str(one) for one in of.asked.types],
        days=found.days,
    )


def _check_epoch(epoch: int) -> None:
    if epoch < 1:
        raise CannotReplay(
            f"epoch: {epoch} is the first sending itself; write 1 or more, one not used before"
        )
