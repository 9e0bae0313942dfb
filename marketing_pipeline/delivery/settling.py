"""Writes what calls came to: many in one transaction, each by the claim it was made under."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import assert_never
from uuid import UUID

import psycopg
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from marketing_pipeline import telemetry
from marketing_pipeline.delivery.claiming import Call
from marketing_pipeline.domain.decide import Bury, Decision, Doubt, GiveUp, Retry, Settle
from marketing_pipeline.domain.effect import OPEN, EffectState
from marketing_pipeline.domain.outcome import (
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

GATHER = 0.003  # seconds that a settlement waits for company: one commit for many
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
        reference=storable(reference),
    )


def storable(text: str | None) -> str | None:
    """What a provider said, without what PostgreSQL refuses: one answer must not hold up others."""
    return None if text is None else UNSTORABLE.sub("?", text)


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


@dataclass(slots=True)
class Settler:
    """Gathers settlements of all providers; `run` is its only writer."""

    pool: AsyncConnectionPool
    states: Counter[str] = field(default_factory=Counter)  # what effects became, by state
    days: set[date] = field(default_factory=set)
    _queue: asyncio.Queue[Settlement] = field(default_factory=asyncio.Queue)

    def put(self, one: Settlement) -> None:
        self._queue.put_nowait(one)

    async def drained(self) -> None:
        """Wait until everything put so far has been committed."""
        await self._queue.join()

    async def run(self) -> None:
        """Settle until cancelled; what cannot be written is kept until it can."""
        while True:
            batch = [await self._queue.get()]
            await asyncio.sleep(GATHER)
            while len(batch) < MOST and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            await self._write(batch)
            for _ in batch:
                self._queue.task_done()

    async def _write(self, batch: Sequence[Settlement]) -> None:
        settled: list[ledger.Settled] | None = None
        while settled is None:
            try:
                async with self.pool.connection() as conn:
                    settled = await settle(conn, batch)
            except AWAY as error:
                telemetry.emit("database_lost", reason=str(error))
                await asyncio.sleep(AGAIN)
        for one in settled:
            if one.state == EffectState.UNKNOWN:
                telemetry.emit("effect_unknown", effect=str(one.id), of=str(one.event_id))
            self.states[one.state] += 1
            self.days.add(one.day)


async def settle(
    conn: psycopg.AsyncConnection, batch: Sequence[Settlement]
) -> list[ledger.Settled]:
    """Settle in one transaction, then complete the events concerned in another."""
    now = datetime.now(UTC)
    async with conn.transaction():
        settled = await ledger.settle(conn, batch, now)
        ended = [one for one in settled if EffectState(one.state) not in OPEN]
        if ended:
            await ledger.forget_bodies(conn, [one.id for one in ended])
    if ended:
        async with conn.transaction():
            await ledger.complete(conn, sorted({one.event_id for one in ended}), now)
    return settled
