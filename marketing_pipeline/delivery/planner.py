"""Turns due events into plans, written once, and their effects."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from uuid import UUID

from psycopg import AsyncConnection

from marketing_pipeline import telemetry
from marketing_pipeline.campaigns import configuration
from marketing_pipeline.campaigns.configuration import Configuration
from marketing_pipeline.delivery import crowds
from marketing_pipeline.delivery.crowds import CHUNK, EPOCH
from marketing_pipeline.domain import audience, digest, plan
from marketing_pipeline.domain.audience import LeadFact, Member
from marketing_pipeline.domain.event import Event
from marketing_pipeline.domain.plan import PlannedEffect, Rules, Unplannable
from marketing_pipeline.event_log import ledger, people, planning
from marketing_pipeline.event_log.planning import Cut, Plan

LARGE = 5000  # facts: a campaign in a log of more is planned page by page
BATCH = 250  # events a transaction
PATIENCE = timedelta(seconds=1)  # how long a cut may wait for a writer, and others for the cut


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """What one round of planning did."""

    events: int
    failed: int
    days: frozenset[date]
    unwritten: bool  # there is work for `write_unfinished`
    waiting: bool  # a campaign is due and has no plan yet


async def keep(conn: AsyncConnection, used: Configuration, now: datetime) -> None:
    """Keep this version of the operator's file and templates, so that its plans can be redone."""
    for template in used.templates.values():
        await planning.keep_template(conn, template, now)
    meaning = used.meaning
    await planning.keep_config(conn, meaning.rules.digest, meaning.body, now)


async def plan_due(
    conn: AsyncConnection, rules: Rules, now: datetime, *, aside: bool = False
) -> Planned:
    """Plan up to a batch of due events; `conn` is in autocommit mode.

    An event whose planning raises fails alone. One that has a plan already, because somebody set
    it PENDING by hand, keeps that plan. A campaign waits while a writer of the log stays open.
    Counting a large audience takes seconds: with `aside` it is left to `write_unfinished`.
    """
    campaign = await planning.campaign_due(conn, now)
    large = campaign and await people.has_more_leads_than(conn, LARGE)
    cut = await _cut(conn, now) if campaign and not large else None
    done = await _plan_batch(conn, rules, cut, now)
    if large and aside:
        return replace(done, unwritten=True, waiting=True)
    if large:
        extra = await _plan_large(conn, rules, now, asyncio.Event())
        return replace(done, events=done.events + extra, unwritten=True)
    return replace(done, waiting=campaign and cut is None)


async def _plan_batch(
    conn: AsyncConnection, rules: Rules, cut: Cut | None, now: datetime
) -> Planned:
    async with conn.transaction():
        due = await planning.due_events(conn, now, cut, BATCH)
        if not due:
            return Planned(events=0, failed=0, days=frozenset(), unwritten=False, waiting=False)
        again = [one.event.id for one in due if one.planned]
        fresh = [one.event for one in due if not one.planned]
        facts = await _facts(conn, fresh, cut)
        plans, planned, failed = await asyncio.to_thread(_plan_all, fresh, rules, cut, facts, now)
        await planning.insert_plans(conn, plans, now)
        suppressed = await planning.insert_effects(conn, planned, now)
        await planning.mark_planned(conn, [p.event.id for p in plans] + again, now)
        await planning.mark_unplannable(conn, failed, now)
    closed = [p.event.id for p in plans if p.count == 0] + again + list(suppressed)
    await finish(conn, closed, now)
    return Planned(
        events=len(due),
        failed=len(failed),
        days=frozenset(one.event.day for one in due),
        unwritten=any(one.inserted < one.count for one in plans),
        waiting=False,
    )


async def write_unfinished(
    conn: AsyncConnection, now: datetime, stopping: asyncio.Event, rules: Rules | None = None
) -> int:
    """Write out the plans of which only a part is in the ledger, by the rules they name.

    With `rules`, due campaigns to large audiences are planned first. How many campaigns and effects
    were written: 0 where there is nothing to do, or another process is at work on each.
    """
    written = 0 if rules is None else await _plan_large(conn, rules, now, stopping)
    for unfinished in await planning.unfinished_plans(conn):
        body = await planning.config(conn, unfinished.config_digest)
        by = configuration.meaning(body).rules
        written += await crowds.write_out(conn, unfinished, by, now, stopping)
        await finish(conn, [unfinished.event.id], now)
    return written


async def _plan_large(
    conn: AsyncConnection, rules: Rules, now: datetime, stopping: asyncio.Event
) -> int:
    """Promise a due campaign to an audience that is counted outside of any transaction."""
    if not await planning.campaign_due(conn, now) or (cut := await _cut(conn, now)) is None:
        return 0
    due = await planning.campaign_to_plan(conn, now, cut)
    if due is None:
        return 0
    event, promised, failed = due.event, None, {}
    if not due.planned:
        try:
            promised = await crowds.count(conn, event, rules, cut, stopping)
        except Unplannable as error:
            failed = {event.id: str(error)}
        except (ValueError, TypeError, KeyError) as error:  # a poisonous event fails alone
            failed = {event.id: f"planning raised {type(error).__name__}: {error}"}
            telemetry.emit("planning_failed", level=logging.ERROR, event_id=str(event.id))
        if promised is None and not failed:
            return 0
    async with conn.transaction():
        if not due.planned and not await planning.lock_unplanned(conn, event.id):
            return 0  # somebody else was quicker
        await planning.insert_plans(conn, [promised] if promised else [], now)
        await planning.mark_planned(conn, [] if failed else [event.id], now)
        await planning.mark_unplannable(conn, failed, now)
    if due.planned or (promised and promised.count == 0):
        await finish(conn, [event.id], now)
    return 1


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
    return [fact async for page in people.people_up_to(conn, cut.seq) for fact in page]


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
            first = effects[:CHUNK] if plan.needs_audience(event) else effects
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
