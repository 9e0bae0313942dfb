"""Turns due events into plans, written once, and their effects."""

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from uuid import UUID

from psycopg import AsyncConnection, Rollback

from marketing_pipeline import telemetry
from marketing_pipeline.campaigns.configuration import Configuration
from marketing_pipeline.delivery import campaigns, settling, singles
from marketing_pipeline.delivery.crowds import EPOCH
from marketing_pipeline.delivery.eager import Eager, claiming_eagerly
from marketing_pipeline.delivery.frontier import OVERLAP, Frontier
from marketing_pipeline.delivery.singles import Known
from marketing_pipeline.domain import digest, plan, sequence
from marketing_pipeline.domain.event import Event, NewEvent
from marketing_pipeline.domain.person import Member
from marketing_pipeline.domain.plan import PlannedEffect
from marketing_pipeline.domain.rules import Rules, Unplannable
from marketing_pipeline.event_log import intake, planning, versions
from marketing_pipeline.event_log.cuts import Cut
from marketing_pipeline.event_log.planning import FIRST, DueEvent, Place, Plan, is_campaign

BATCH = 250  # events a transaction
FEW = 10  # events: a millisecond, and a thread would cost half of one


def _front() -> Frontier[Place]:
    return Frontier(first=FIRST)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fronts:
    """How far due events are planned: those that need no cut, and all."""

    plain: Frontier[Place] = field(default_factory=_front)
    single: Frontier[Place] = field(default_factory=_front)


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """What one round of planning did."""

    events: int
    failed: int
    days: frozenset[date]
    due: Mapping[str, int] = field(default_factory=dict)  # by provider: effects that are due now
    campaigns: bool = False  # there is work for `campaigns.write_unfinished`
    whole: bool = True  # all there is was looked at
    waiting: bool = False  # for a writer of the log, or this process stood still: look again


@dataclass(frozen=True, slots=True, kw_only=True)
class _Given:
    """What the events of a batch are planned from."""

    by: Rules
    cut: Cut | None
    known: Known
    starts: Mapping[UUID, datetime]  # of campaigns: when their effects come due
    now: datetime


@dataclass(slots=True)
class _Batch:
    """What comes of some events."""

    plans: list[Plan] = field(default_factory=list)
    effects: list[tuple[Event, int, PlannedEffect]] = field(default_factory=list)
    failed: dict[UUID, str] = field(default_factory=dict)
    following: list[NewEvent] = field(default_factory=list)


async def keep(conn: AsyncConnection, used: Configuration, now: datetime) -> None:
    """Keep this version of the operator's file and templates, so that its plans can be redone."""
    for template in used.templates.values():
        await versions.keep_template(conn, template, now)
    meaning = used.meaning
    await versions.keep_config(conn, meaning.rules.digest, meaning.body, now)


async def use(conn: AsyncConnection, used: Configuration, now: datetime) -> None:
    """Keep it, and plan by it from now on."""
    await keep(conn, used, now)
    await versions.use_config(conn, used.meaning.rules.digest, now)


async def plan_due(
    conn: AsyncConnection,
    by: Rules,
    now: datetime,
    eager: Eager | None = None,
    fronts: Fronts | None = None,
) -> Planned:
    """Plan up to a batch of due events; `conn` is in autocommit mode.

    eager: claims what its lanes can call for at once.
    fronts: of whoever plans one batch after the other.

    An event whose planning raises fails alone. One that has a plan already, because somebody set
    it PENDING by hand, keeps that plan. What reads the log waits while a writer stays open.
    Counting a large audience takes seconds: campaigns are left to `campaigns.write_unfinished`.
    """
    fronts = fronts or Fronts()
    done = await _plan_batch(conn, by, None, now, eager, fronts.plain)
    due = await planning.triggers_due(conn, now)
    cut = await campaigns.take_cut(conn, now) if due.single else None
    if cut is not None:
        done = _both(done, await _plan_batch(conn, by, cut, now, eager, fronts.single))
    waiting = done.waiting or (due.single and cut is None)
    return replace(done, campaigns=due.crowd, waiting=waiting)


async def _plan_batch(
    conn: AsyncConnection,
    by: Rules,
    cut: Cut | None,
    now: datetime,
    eager: Eager | None,
    front: Frontier[Place],
) -> Planned:
    async with claiming_eagerly(eager, by.digest) as turn:
        async with conn.transaction() as transaction:
            with front.look() as look:
                due = await planning.due_events(conn, now, cut, BATCH, look.since)
            if not due:
                return Planned(events=0, failed=0, days=frozenset(), whole=look.whole)
            again = [one.event.id for one in due if one.planned]
            fresh = [one.event for one in due if not one.planned]
            known = await singles.known(conn, fresh, by, cut)
            starts = await campaigns.starts_at(conn, [one for one in fresh if is_campaign(one)])
            given = _Given(by=by, cut=cut, known=known, starts=starts, now=now)
            made = await _planned(fresh, given)
            refused = await planning.take_once(conn, [effect for _, _, effect in made.effects])
            await turn.reserve(made.effects, refused, due[0].now)
            under_way = [p.event.id for p in made.plans] + again
            await planning.promise(conn, made.plans, under_way, now)
            attempts = await turn.claim(conn)
            begun = await planning.insert_effects(
                conn, made.effects, now, refused=refused, claim_id=turn.id, attempts=attempts
            )
            await planning.mark_unplannable(conn, made.failed, now)
            await intake.record(conn, made.following, now)
            late = turn.is_late
            if late:
                raise Rollback(transaction)
        if late:
            return Planned(events=0, failed=0, days=frozenset(), waiting=True)
        front.reach(_reached(due), look)
        started = await turn.begin(begun)
    closed = [event.id for event, _, effect in made.effects if effect.id in refused]
    closed += [p.event.id for p in made.plans if p.count == 0] + again
    await settling.finish(conn, closed, now)
    return Planned(
        events=len(due),
        failed=len(made.failed),
        days=frozenset(one.event.day for one in due),
        due=_due(made, now, started),
    )


def _both(one: Planned, other: Planned) -> Planned:
    due = Counter(one.due)
    due.update(other.due)  # unlike `+`, this keeps what is due later
    return Planned(
        events=one.events + other.events,
        failed=one.failed + other.failed,
        days=one.days | other.days,
        due=due,
        whole=one.whole and other.whole,
        waiting=one.waiting or other.waiting,
    )


def _reached(due: Sequence[DueEvent]) -> Place:
    """Behind these, where there may be more; else somewhat before the last of them."""
    last = due[-1].event
    if len(due) == BATCH:
        return Place(last.scheduled_at, last.seq)
    return Place(last.scheduled_at - OVERLAP, 0)


def _due(made: _Batch, now: datetime, started: Set[UUID]) -> Mapping[str, int]:
    """Of each provider that something was planned for, if only for later, and not begun yet."""
    found = Counter[str]()
    for _, _, effect in made.effects:
        if effect.id not in started:
            found[effect.provider] += effect.due_at <= now
    return found


async def _planned(events: Sequence[Event], given: _Given) -> _Batch:
    """Few are planned at once; many beside the loop, which calls are waiting for."""
    if len(events) <= FEW:
        return _plan_all(events, given)
    return await asyncio.to_thread(_plan_all, events, given)


def _plan_all(events: Sequence[Event], given: _Given) -> _Batch:
    made = _Batch()
    for event in events:
        try:
            _plan_one(made, event, given)
        except Unplannable as error:
            made.failed[event.id] = str(error)
        except Exception as error:  # one poisonous event must not stop the others
            made.failed[event.id] = f"planning raised {type(error).__name__}: {error}"
            telemetry.emit("planning_failed", level=logging.ERROR, event_id=str(event.id))
    return made


def _plan_one(made: _Batch, event: Event, given: _Given) -> None:
    """A plan with all its effects, and what follows it; or nothing of it, where it raises."""
    by, cut, now, starts_at = given.by, given.cut, given.now, given.starts.get(event.id)
    own, members, excluded = Cut(seq=event.seq, at=now), list[Member](), dict[str, int]()
    if plan.needs_audience(event):
        members, excluded = singles.members(event, by, cut, given.known)
        own = replace(cut, at=now) if cut else own
    effects = list(plan.effects(event, by, EPOCH, members, starts_at=starts_at))
    following = list(sequence.follow_ups(event, by, mailed=bool(effects), now=now))
    made.plans.append(
        Plan(
            event=event,
            epoch=EPOCH,
            cut=own,
            config_digest=by.digest,
            plan_version=plan.VERSION,
            count=len(effects),
            digest=plan_digest(effects),
            inserted=len(effects),
            starts_at=starts_at,
            excluded=excluded,
        )
    )
    made.effects.extend((event, EPOCH, one) for one in effects)
    made.following.extend(following)


def plan_digest(effects: Sequence[PlannedEffect]) -> str:
    """What a plan promises, as one value."""
    return digest.running(effect.line() for effect in effects)
