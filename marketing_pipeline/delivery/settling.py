"""Writes what calls came to: many in one transaction, each by the claim it was made under."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import TypeVar, assert_never
from uuid import UUID

import psycopg
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from marketing_pipeline import telemetry
from marketing_pipeline.delivery.claiming import Call
from marketing_pipeline.domain.decide import Bury, Decision, Doubt, GiveUp, Retry, Settle
from marketing_pipeline.domain.effect import OPEN, EffectState
from marketing_pipeline.domain.outcome import (
    LONGEST_REFERENCE,
    Absent,
    Accepted,
    Ambiguous,
    Blocked,
    Finding,
    Found,
    Inconclusive,
    Outcome,
    Refused,
    Throttled,
    Unreached,
)
from marketing_pipeline.domain.payload import UNSTORABLE
from marketing_pipeline.event_log import ledger
from marketing_pipeline.event_log.ledger import Settlement
from marketing_pipeline.event_log.round_trip import one_round_trip

GATHER = 0.003  # seconds that a settlement waits for company: one commit for many
GATHER_EVENTS = 0.01  # the same for completing events, for which nobody waits
MOST = 200
AGAIN = 0.5  # seconds until a server that is away is asked again
AWAY = (psycopg.OperationalError, PoolTimeout)  # what a database that is away raises


def settlement(
    call: Call,
    claim_id: UUID,
    answer: Outcome | Finding,
    decision: Decision,
    *,
    status_code: int | None,
    latency: timedelta,
) -> Settlement:
    """The ledger's row changes for one answer and what was decided on it."""
    state, due_at, given_back, in_doubt, reference = _becomes(decision)
    return Settlement(
        effect_id=call.effect.id,
        claim_id=claim_id,
        number=call.number,
        outcome=type(answer).__name__.upper(),
        status_code=status_code,
        latency=latency,
        reason=storable(_reason(answer)),
        state=state,
        due_at=due_at,
        given_back=given_back,
        in_doubt=in_doubt,
        reference=_named(reference),
    )


def storable(text: str | None) -> str | None:
    """What a provider said, without what PostgreSQL refuses: one answer must not hold up others."""
    return None if text is None else UNSTORABLE.sub("?", text)


def _named(reference: str | None) -> str | None:
    """No longer than the log's index takes: one answer must not hold up others."""
    kept = storable(reference)
    return None if kept is None else kept[:LONGEST_REFERENCE]


def state_after(decision: Decision) -> EffectState:
    """What a decision makes of its effect."""
    return _becomes(decision)[0]


def _becomes(
    decision: Decision,
) -> tuple[EffectState, datetime | None, bool, bool, str | None]:
    match decision:
        case Settle(reference):
            return EffectState.SENT, None, False, False, reference
        case Bury():
            return EffectState.FAILED, None, False, False, None
        case Retry(due_at, in_doubt=in_doubt, counts=counts):
            state = EffectState.DOUBT if in_doubt else EffectState.PLANNED
            return state, due_at, not counts, in_doubt, None
        case Doubt(due_at):
            return EffectState.DOUBT, due_at, False, True, None
        case GiveUp():
            return EffectState.UNKNOWN, None, False, True, None
        case _:
            assert_never(decision)


def _reason(answer: Outcome | Finding) -> str | None:
    match answer:
        case Accepted() | Found():
            return None
        case Absent():
            return "looked up: the provider does not have it"
        case (
            Throttled(reason=reason)
            | Blocked(reason=reason)
            | Refused(reason)
            | Unreached(reason)
            | Ambiguous(reason)
            | Inconclusive(reason)
        ):
            return reason
        case _:
            assert_never(answer)


_One = TypeVar("_One")


@dataclass(slots=True)
class Settler:
    """Gathers settlements of all providers; `run` is their only writer."""

    pool: AsyncConnectionPool
    states: Counter[str] = field(default_factory=Counter)  # what effects became, by state
    days: set[date] = field(default_factory=set)
    _queue: asyncio.Queue[Settlement] = field(default_factory=asyncio.Queue)
    _ended: asyncio.Queue[UUID] = field(default_factory=asyncio.Queue)  # events that may be done

    def put(self, one: Settlement) -> None:
        self._queue.put_nowait(one)

    def ended(self, events: Iterable[UUID]) -> None:
        """Something of these has ended without a call; whoever says so waits for no event's lock.

        A process that is frozen while it completes a campaign would hold up everybody else's.
        """
        for event_id in set(events):
            self._ended.put_nowait(event_id)

    async def drained(self) -> None:
        """Wait until everything put so far has been committed, and its events told."""
        await self._queue.join()
        await self._ended.join()

    async def run(self) -> None:
        """Settle until cancelled; what cannot be written is kept until it can.

        Completing events goes beside it: what a call came to must not wait for that.
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(self._work(self._queue, GATHER, self._write))
            group.create_task(self._work(self._ended, GATHER_EVENTS, self._complete))

    async def _work(
        self,
        queue: asyncio.Queue[_One],
        gather: float,
        write: Callable[[psycopg.AsyncConnection, Sequence[_One]], Awaitable[None]],
    ) -> None:
        while True:
            batch = [await queue.get()]
            await asyncio.sleep(gather)
            while len(batch) < MOST and not queue.empty():
                batch.append(queue.get_nowait())
            await self._written(batch, write)
            for _ in batch:
                queue.task_done()

    async def _written(
        self,
        batch: Sequence[_One],
        write: Callable[[psycopg.AsyncConnection, Sequence[_One]], Awaitable[None]],
    ) -> None:
        while True:
            try:
                async with self.pool.connection() as conn:
                    return await write(conn, batch)
            except AWAY as error:
                telemetry.emit("database_lost", reason=str(error))
                await asyncio.sleep(AGAIN)

    async def _write(self, conn: psycopg.AsyncConnection, batch: Sequence[Settlement]) -> None:
        for one in await ledger.settle(conn, batch, datetime.now(UTC)):
            if one.state == EffectState.UNKNOWN:
                telemetry.emit("effect_unknown", effect=str(one.id), of=str(one.event_id))
            self.states[one.state] += 1
            self.days.add(one.day)
            if EffectState(one.state) not in OPEN:
                self._ended.put_nowait(one.event_id)

    async def _complete(self, conn: psycopg.AsyncConnection, events: Sequence[UUID]) -> None:
        await finish(conn, events, datetime.now(UTC))


async def finish(conn: psycopg.AsyncConnection, events: Iterable[UUID], now: datetime) -> None:
    """Derive the status of events after what changed them has committed."""
    if concerned := sorted(set(events)):
        async with one_round_trip(conn):
            await ledger.complete(conn, concerned, now)
