"""Turns due events into plans, written once, and their effects."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from itertools import islice
from uuid import UUID

from psycopg import AsyncConnection

from marketing_pipeline import telemetry
from marketing_pipeline.campaigns import configuration
from marketing_pipeline.campaigns.configuration import Configuration
from marketing_pipeline.domain import audience, digest, plan
from marketing_pipeline.domain.audience import LeadFact, Member
from marketing_pipeline.domain.event import Event
from marketing_pipeline.domain.plan import PlannedEffect, Rules, Unplannable
from marketing_pipeline.event_log import ledger, planning
from marketing_pipeline.event_log.planning import Cut, Plan

CHUNK = 1000  # effects a transaction: enough to be quick, too few to hold a lock for long
BATCH = 100  # events a transaction
PATIENCE = timedelta(seconds=1)  # how long a cut may wait for a writer, and others for the cut
EPOCH = 0  # the first; a new one is only ever asked for by name


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """What one round of planning did."""

    events: int
    failed: int
    days: frozenset[date]
    unwritten: bool  # some plan has more effects than its first chunk: `write_unfinished`
    waiting: bool  # a campaign is due, and a writer of the log stays open


async def keep(conn: AsyncConnection, used: Configuration, now: datetime) -> None:
    """Keep this version of the operator's file and templates, so that its plans can be redone."""
    for template in used.templates.values():
        await planning.keep_template(conn, template, now)
    meaning = used.meaning
    await planning.keep_config(conn, meaning.rules.digest, meaning.body, now)


async def plan_due(conn: AsyncConnection, rules: Rules, now: datetime) -> Planned:
    """Plan up to a batch of due events; `conn` is in autocommit mode.

    An event whose planning raises fails alone. One that has a plan already, because somebody set
    it PENDING by hand, keeps that plan. A campaign waits while a writer of the log stays open.
    """
    campaign = await planning.campaign_due(conn, now)
    cut = await _cut(conn, now) if campaign else None
    waiting = campaign and cut is None
    async with conn.transaction():
        due = await planning.due_events(conn, now, cut, BATCH)
        if not due:
            return Planned(events=0, failed=0, days=frozenset(), unwritten=False, waiting=waiting)
        again = [one.event.id for one in due if one.planned]
        fresh = [one.event for one in due if not one.planned]
        facts = await _facts(conn, fresh, cut)
        plans, rows, failed = await asyncio.to_thread(_plan_all, fresh, rules, cut, facts, now)
        await planning.insert_plans(conn, plans, now)
        suppressed = await planning.insert_effects(conn, rows, now)
        await planning.mark_planned(conn, [p.event.id for p in plans] + again, now)
        await planning.mark_unplannable(conn, failed, now)
    closed = [p.event.id for p in plans if p.count == 0] + again + list(suppressed)
    await finish(conn, closed, now)
    days = frozenset(one.event.day for one in due)
    return Planned(
        events=len(due),
        failed=len(failed),
        days=days,
        unwritten=any(one.inserted < one.count for one in plans),
        waiting=waiting,
    )


async def write_unfinished(conn: AsyncConnection, now: datetime, stopping: asyncio.Event) -> int:
    """Write out the plans of which only a part is in the ledger, by the rules they name.

    How many effects were written: 0 where there is none, or another process is at work on each.
    """
    written = 0
    for unfinished in await planning.unfinished_plans(conn):
        body = await planning.config(conn, unfinished.config_digest)
        rules = configuration.meaning(body).rules
        written += await _write_out(conn, unfinished, rules, now, stopping)
    return written


async def _write_out(
    conn: AsyncConnection, unfinished: Plan, rules: Rules, now: datetime, stopping: asyncio.Event
) -> int:
    """Write the rest of a plan's effects, chunk by chunk, from the cut that the plan fixed.

    Stops when told to, and where another process is at the same work. Every chunk can be repeated
    harmlessly.
    """
    async with conn.transaction():
        facts = await _facts(conn, [unfinished.event], unfinished.cut)
    members = await asyncio.to_thread(_members, unfinished.event, rules, facts)
    effects = plan.effects(unfinished.event, rules, unfinished.epoch, members)
    before = unfinished.inserted
    rest = islice(effects, before, None)
    while not stopping.is_set() and (chunk := list(islice(rest, CHUNK))):
        async with conn.transaction():
            if not await planning.advance(conn, unfinished, before, before + len(chunk)):
                return before - unfinished.inserted
            event, epoch = unfinished.event, unfinished.epoch
            await planning.insert_effects(conn, [(event, epoch, one) for one in chunk], now)
        before += len(chunk)
    await finish(conn, [unfinished.event.id], now)
    return before - unfinished.inserted


async def finish(conn: AsyncConnection, events: Sequence[UUID], now: datetime) -> None:
    """Derive the status of events after what changed them has committed."""
    if events:
        async with conn.transaction():
            await ledger.complete(conn, sorted(set(events)), now)


async def _cut(conn: AsyncConnection, now: datetime) -> Cut | None:
    try:
        return await planning.take_cut(conn, now, PATIENCE)
    except planning.CutTimeout as error:
        telemetry.emit("planning_failed", level=logging.WARNING, reason=str(error))
        return None


async def _facts(conn: AsyncConnection, events: Sequence[Event], cut: Cut | None) -> list[LeadFact]:
    if cut is None or not any(plan.needs_audience(event) for event in events):
        return []
    return [fact async for fact in planning.leads_up_to(conn, cut.seq)]


def _members(event: Event, rules: Rules, facts: Sequence[LeadFact]) -> list[Member]:
    if not plan.needs_audience(event):
        return []
    return audience.members(facts, plan.campaign_of(event, rules).audience)


def _plan_all(
    events: Sequence[Event],
    rules: Rules,
    cut: Cut | None,
    facts: Sequence[LeadFact],
    now: datetime,
) -> tuple[list[Plan], list[tuple[Event, int, PlannedEffect]], dict[UUID, str]]:
    """Plans, the first chunk of each one's effects, and the reasons of those that failed."""
    plans: list[Plan] = []
    rows: list[tuple[Event, int, PlannedEffect]] = []
    failed: dict[UUID, str] = {}
    for event in events:
        own = cut if cut and plan.needs_audience(event) else Cut(seq=event.seq, at=now)
        try:
            effects = list(plan.effects(event, rules, EPOCH, _members(event, rules, facts)))
        except Unplannable as error:
            failed[event.id] = str(error)
        except Exception as error:  # one poisonous event must not stop the others
            failed[event.id] = f"planning raised {type(error).__name__}: {error}"
            telemetry.emit("planning_failed", level=logging.ERROR, event_id=str(event.id))
        else:
            first = effects[:CHUNK]
            plans.append(_promise(event, own, rules, effects, len(first), now))
            rows.extend((event, EPOCH, one) for one in first)
    return plans, rows, failed


def _promise(
    event: Event,
    cut: Cut,
    rules: Rules,
    effects: Sequence[PlannedEffect],
    inserted: int,
    now: datetime,
) -> Plan:
    return Plan(
        event=event,
        epoch=EPOCH,
        cut=replace(cut, at=now),
        config_digest=rules.digest,
        plan_version=plan.VERSION,
        count=len(effects),
        digest=plan_digest(effects),
        inserted=inserted,
    )


def plan_digest(effects: Sequence[PlannedEffect]) -> str:
    """What a plan promises, as one value."""
    return digest.running(effect.line() for effect in effects)
