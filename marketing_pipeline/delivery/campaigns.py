"""Plans due campaigns and writes them out, beside all other planning: a welcome waits for none."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from psycopg import AsyncConnection

from marketing_pipeline import telemetry
from marketing_pipeline.campaigns import meaning
from marketing_pipeline.delivery import crowds, settling, writing_out
from marketing_pipeline.delivery.crowds import EPOCH, Sending
from marketing_pipeline.domain import rules
from marketing_pipeline.domain.event import Event
from marketing_pipeline.domain.rules import Rules, Unplannable
from marketing_pipeline.event_log import approvals, cuts, holding, planning, versions
from marketing_pipeline.event_log.approvals import Approval
from marketing_pipeline.event_log.cuts import Cut, CutTimeout
from marketing_pipeline.event_log.planning import Plan

PATIENCE = timedelta(seconds=1)  # how long a cut may wait for a writer, and others for the cut


@dataclass(frozen=True, slots=True, kw_only=True)
class _Verdict:
    """What becomes of a due campaign: exactly one of these."""

    promised: Plan | None = None
    failed: str | None = None  # it can never be planned
    held: str | None = None  # it waits for a person
    differs: bool = False  # held although a plan was approved: another came of it


async def write_unfinished(
    conn: AsyncConnection, now: datetime, stopping: asyncio.Event, by: Rules | None = None
) -> int:
    """Write out the plans of which only a part is in the ledger, by the rules they name.

    With `by`, a due campaign is planned first. How many campaigns and effects were written: 0 where
    there is nothing to do, or another process is at work on each.
    """
    written = 0 if by is None else await plan_next(conn, by, now, stopping)
    for unfinished in await planning.unfinished_plans(conn):
        body = await versions.config(conn, unfinished.config_digest)
        used = meaning.of(body).rules
        written += await writing_out.write_out(conn, unfinished, used, now, stopping)
        await settling.finish(conn, [unfinished.event.id], now)
    return written


async def plan_next(
    conn: AsyncConnection, by: Rules, now: datetime, stopping: asyncio.Event
) -> int:
    """Promise the campaign that is due for longest, its audience counted outside of a transaction.

    0: none is due, or somebody else was quicker. One that a person must approve first is held.
    """
    if not (await planning.triggers_due(conn, now)).crowd:
        return 0
    if (cut := await take_cut(conn, now)) is None:
        return 0
    due = await planning.campaign_to_plan(conn, now, cut)
    if due is None:
        return 0
    if due.planned:  # somebody set it PENDING by hand
        async with conn.transaction():
            await planning.promise(conn, [], [due.event.id], now)
        await settling.finish(conn, [due.event.id], now)
        return 1
    verdict = await _verdict(conn, due.event, by, cut, now, stopping)
    return 0 if verdict is None else await _keep(conn, due.event, verdict, by, now)


async def take_cut(conn: AsyncConnection, now: datetime) -> Cut | None:
    """The facts that plans made now may read; None where a writer has been open for too long."""
    try:
        return await cuts.take(conn, now, PATIENCE)
    except CutTimeout as error:
        telemetry.emit("planning_failed", level=logging.WARNING, reason=str(error))
        return None


async def starts_at(conn: AsyncConnection, events: Sequence[Event]) -> dict[UUID, datetime]:
    """When events come due that were paused until after they were due: when they were let go on."""
    if not events:
        return {}
    resumed = await holding.resumed(conn, [one.id for one in events])
    return {
        one.id: resumed[one.id]
        for one in events
        if one.id in resumed and resumed[one.id] > one.scheduled_at
    }


async def _verdict(
    conn: AsyncConnection,
    event: Event,
    by: Rules,
    cut: Cut,
    now: datetime,
    stopping: asyncio.Event,
) -> _Verdict | None:
    """None: told to stop."""
    try:
        starts = await starts_at(conn, [event])
        sending = Sending(
            event=event, rules=by, epoch=EPOCH, cut=cut, starts_at=starts.get(event.id)
        )
        approved = None
        found = await approvals.standing(conn, event.id, EPOCH, by.digest, now)
        if isinstance(found, Approval):  # also where nobody has to: what was read is what is sent
            approved, sending = found.proposal.digest, crowds.approved(event, by, found)
            if event.id in starts:
                late = max(starts[event.id], sending.starts_at or event.scheduled_at)
                sending = replace(sending, starts_at=late)
        elif rules.campaign_of(event, by).approve:
            return _Verdict(held=found)
        promised = await crowds.count(conn, sending, stopping)
    except Unplannable as error:
        return _Verdict(failed=str(error))
    except (ValueError, TypeError, KeyError) as error:  # a poisonous event fails alone
        telemetry.emit("planning_failed", level=logging.ERROR, event_id=str(event.id))
        return _Verdict(failed=f"planning raised {type(error).__name__}: {error}")
    if promised is None:
        return None
    if approved is not None and promised.digest != approved:
        why = f"the approved plan {approved[:12]} comes out differently: plan it again"
        return _Verdict(held=why, differs=True)
    return _Verdict(promised=promised)


async def _keep(
    conn: AsyncConnection, event: Event, verdict: _Verdict, by: Rules, now: datetime
) -> int:
    async with conn.transaction():
        if not await planning.lock_unplanned(conn, event.id):
            return 0  # somebody else was quicker
        if verdict.promised is not None:
            await planning.promise(conn, [verdict.promised], [event.id], now)
        elif verdict.failed is not None:
            await planning.mark_unplannable(conn, {event.id: verdict.failed}, now)
        elif verdict.held is not None:
            # An approval that was given meanwhile would be waited for in vain: it holds this lock.
            found = await approvals.standing(conn, event.id, EPOCH, by.digest, now)
            if verdict.differs or isinstance(found, str):
                await approvals.hold(conn, event.id, verdict.held, now)
    if verdict.promised is not None and verdict.promised.count == 0:
        await settling.finish(conn, [event.id], now)
    return 1
