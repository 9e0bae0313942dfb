"""Campaigns page by page: a million people are counted and written in little memory."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection

from marketing_pipeline.domain import audience, plan, stencil
from marketing_pipeline.domain.audience import Member
from marketing_pipeline.domain.effect import EffectKind
from marketing_pipeline.domain.event import Event
from marketing_pipeline.domain.plan import PlannedEffect, Rules
from marketing_pipeline.domain.stencil import Rows, Stencil
from marketing_pipeline.event_log import people, planning
from marketing_pipeline.event_log.planning import Cut, Plan

CHUNK = 2000  # effects a transaction: enough to be quick, too few to hold a lock for long
SLICE = 100  # people between two looks at the loop's other work: about a millisecond
EPOCH = 0  # the first; a new one is only ever asked for by name


async def count(
    conn: AsyncConnection, event: Event, rules: Rules, cut: Cut, stopping: asyncio.Event
) -> Plan | None:
    """What the campaign's plan promises; None: told to stop."""
    many, total = 0, hashlib.sha256()
    for step in stencil.stencils(event, rules, EPOCH, plan.VERSION):
        pages = crowd(conn, event, rules, cut.seq)
        members = await anext(pages, None)
        while members is not None:
            if stopping.is_set():
                return None
            many += len(members)
            members, _ = await _at_once(anext(pages, None), _add(total, step, members))
    return Plan(
        event=event,
        epoch=EPOCH,
        cut=cut,
        config_digest=rules.digest,
        plan_version=plan.VERSION,
        count=many,
        digest=total.hexdigest(),
        inserted=0,
    )


async def _add(total: "hashlib._Hash", step: Stencil, members: Sequence[Member]) -> None:
    for at in range(0, len(members), SLICE):
        total.update(step.rows(members[at : at + SLICE]).lines)
        await asyncio.sleep(0)


async def _at_once(*work: Awaitable[Any]) -> list[Any]:
    """What each came to, once all have ended: nobody is left at work on a connection."""
    found = await asyncio.gather(*work, return_exceptions=True)
    for one in found:
        if isinstance(one, BaseException):
            raise one
    return found


async def crowd(
    conn: AsyncConnection, event: Event, rules: Rules, cut: int
) -> AsyncIterator[list[Member]]:
    """A campaign's audience up to a cut, by recipient: pages of it, in bounded memory.

    Where only the newest are wanted, the log is read once more before, to find where they begin.
    """
    chosen = plan.campaign_of(event, rules).audience
    since = 0.0
    if chosen.newest is not None:
        newest = audience.Newest(chosen.newest)
        async for facts in people.people_up_to(conn, cut):
            newest.add(audience.candidates(facts, chosen))
            await asyncio.sleep(0)
        since = newest.since
    async for facts in people.people_up_to(conn, cut):
        yield [person for person in audience.candidates(facts, chosen) if person.seq >= since]


async def write_out(
    conn: AsyncConnection, unfinished: Plan, rules: Rules, now: datetime, stopping: asyncio.Event
) -> int:
    """Write the rest of a plan's effects, chunk by chunk, from the cut that the plan fixed.

    Stops when told to, and where another process is at the same work. Every chunk can be repeated
    harmlessly. While PostgreSQL writes one, the next is made.
    """
    writer = _Writer(conn, unfinished, now)
    chunks = _chunks(conn, unfinished, rules)
    ready, following = None, await anext(chunks, None)
    while following is not None or ready is not None:
        if stopping.is_set():
            return writer.written
        following, ready, ours = await _at_once(
            anext(chunks, None), _make(following), writer.write(ready)
        )
        if not ours:
            return writer.written
    return writer.written


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chunk:
    step: Stencil
    many: int
    rows: Sequence[Rows]
    effects: Sequence[PlannedEffect]  # instead of rows, where a step needs more than these


async def _make(of: tuple[Stencil, Sequence[Member]] | None) -> _Chunk | None:
    if of is None:
        return None
    step, members = of
    rows: list[Rows] = []
    effects: list[PlannedEffect] = []
    for at in range(0, len(members), SLICE):
        some = members[at : at + SLICE]
        if step.route.once is None and step.route.kind is EffectKind.EMAIL:
            rows.append(step.rows(some))
        else:
            effects.extend(step.effects(some))
        await asyncio.sleep(0)
    return _Chunk(step=step, many=len(members), rows=rows, effects=effects)


@dataclass(slots=True)
class _Writer:
    conn: AsyncConnection
    unfinished: Plan
    now: datetime
    written: int = 0

    async def write(self, chunk: _Chunk | None) -> bool:
        """Write a chunk, if there is one; False where another process writes this plan."""
        if chunk is None:
            return True
        before = self.unfinished.inserted + self.written
        event, epoch = self.unfinished.event, self.unfinished.epoch
        async with self.conn.transaction():
            if not await planning.advance(self.conn, self.unfinished, before, before + chunk.many):
                return False
            if chunk.rows:
                await people.insert_rows(self.conn, chunk.step, chunk.rows, self.now)
            if chunk.effects:
                whole = [(event, epoch, one) for one in chunk.effects]
                await planning.insert_effects(self.conn, whole, self.now)
        self.written += chunk.many
        return True


async def _chunks(
    conn: AsyncConnection, unfinished: Plan, rules: Rules
) -> AsyncIterator[tuple[Stencil, list[Member]]]:
    """What of a plan is not in the ledger yet: its order is step by step, person by person."""
    event, version = unfinished.event, unfinished.plan_version
    steps = stencil.stencils(event, rules, unfinished.epoch, version)
    each = unfinished.count // max(len(steps), 1)
    for number, step in enumerate(steps):
        there = max(unfinished.inserted - number * each, 0)
        if there >= each:
            continue
        held: list[Member] = []
        async for members in crowd(conn, event, rules, unfinished.cut.seq):
            held += members[there:]
            there = max(there - len(members), 0)
            while len(held) >= CHUNK:
                yield step, held[:CHUNK]
                held = held[CHUNK:]
        if held:
            yield step, held
