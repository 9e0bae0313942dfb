"""Writes a campaign's plan into the ledger, chunk by chunk, in little memory."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg import AsyncConnection

from marketing_pipeline.delivery import crowds
from marketing_pipeline.delivery.crowds import SLICE
from marketing_pipeline.domain.effect import EffectKind
from marketing_pipeline.domain.person import Member
from marketing_pipeline.domain.plan import PlannedEffect
from marketing_pipeline.domain.rules import Rules
from marketing_pipeline.domain.stencil import Rows, Stencil
from marketing_pipeline.event_log import people, planning
from marketing_pipeline.event_log.planning import Plan

CHUNK = 2000  # effects a transaction: enough to be quick, too few to hold a lock for long


async def write_out(
    conn: AsyncConnection, unfinished: Plan, by: Rules, now: datetime, stopping: asyncio.Event
) -> int:
    """Write the rest of a plan's effects, chunk by chunk, from the cut that the plan fixed.

    Stops when told to, and where another process is at the same work. Every chunk can be repeated
    harmlessly. While PostgreSQL writes one, the next is made.
    """
    writer = _Writer(conn, unfinished, now)
    chunks = _chunks(conn, unfinished, by)
    ready, following = None, await anext(chunks, None)
    while following is not None or ready is not None:
        if stopping.is_set():
            return writer.written
        following, ready, ours = await crowds.at_once(
            anext(chunks, None), _make(following), writer.write(ready)
        )
        if not ours:
            return writer.written
    return writer.written


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chunk:
    step: Stencil
    place: int  # how many effects of the plan come before
    many: int
    rows: Sequence[Rows]
    effects: Sequence[PlannedEffect]  # instead of rows, where a step needs more than these


async def _make(of: tuple[Stencil, int, Sequence[Member]] | None) -> _Chunk | None:
    if of is None:
        return None
    step, place, members = of
    rows: list[Rows] = []
    effects: list[PlannedEffect] = []
    for at in range(0, len(members), SLICE):
        some = members[at : at + SLICE]
        if step.route.once is None and step.route.kind is EffectKind.EMAIL:
            rows.append(step.rows(some))
        else:
            effects.extend(step.effects(some, place + at))
        await asyncio.sleep(0)
    return _Chunk(step=step, place=place, many=len(members), rows=rows, effects=effects)


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
        event, epoch = self.unfinished.event, self.unfinished.epoch
        upto = chunk.place + chunk.many
        async with self.conn.transaction():
            if not await planning.advance(self.conn, self.unfinished, chunk.place, upto):
                return False
            if chunk.rows:
                await people.insert_rows(self.conn, chunk.step, chunk.rows, chunk.place, self.now)
            if chunk.effects:
                whole = [(event, epoch, one) for one in chunk.effects]
                refused = await planning.take_once(self.conn, chunk.effects)
                await planning.insert_effects(self.conn, whole, self.now, refused=refused)
        self.written += chunk.many
        return True


async def _chunks(
    conn: AsyncConnection, unfinished: Plan, by: Rules
) -> AsyncIterator[tuple[Stencil, int, list[Member]]]:
    """What of a plan is not in the ledger yet, with its place in the plan's order."""
    skip, place = unfinished.inserted, unfinished.inserted
    held: list[Member] = []
    step: Stencil | None = None
    async for page in crowds.crowd(conn, crowds.sending(unfinished, by)):
        if held and step is not None and page.step is not step:
            yield step, place, held
            place, held = place + len(held), []
        step = page.step
        held += page.members[skip:]
        skip = max(skip - len(page.members), 0)
        while len(held) >= CHUNK:
            yield step, place, held[:CHUNK]
            place, held = place + CHUNK, held[CHUNK:]
    if held and step is not None:
        yield step, place, held
