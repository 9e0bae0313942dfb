"""Serves one provider: gate, claim, call, settle; a provider in trouble holds back only itself."""

import asyncio
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import psycopg
from psycopg_pool import AsyncConnectionPool
from redis import RedisError

from marketing_pipeline import telemetry
from marketing_pipeline.delivery import claiming, settling
from marketing_pipeline.delivery.assembly import Destination
from marketing_pipeline.delivery.claiming import Call, Claim
from marketing_pipeline.delivery.contents import Contents
from marketing_pipeline.delivery.gate import Gate, Grant
from marketing_pipeline.delivery.high_water import HighWater
from marketing_pipeline.delivery.settling import AGAIN, AWAY, Settler
from marketing_pipeline.domain import decide
from marketing_pipeline.domain.decide import Decision, Retry
from marketing_pipeline.domain.outcome import Finding, Outcome, Throttled, Unreached
from marketing_pipeline.event_log import ledger
from marketing_pipeline.event_log.ledger import Purpose
from marketing_pipeline.providers import http
from marketing_pipeline.providers.transport import NotWritten, Transport

LOOK = 1.0  # seconds between looks at the ledger where nothing wakes the lane: the safety net
SHORT = 0.02  # the shortest wait: what comes due within it is not worth an earlier look
BLOCKED = 0.1  # seconds until what waits for an older effect of its contact is looked at again
DURABLE = timedelta(seconds=30)  # a pause this long outlives the gate's memory


@dataclass(slots=True, kw_only=True)
class Lane:
    """One provider's loop."""

    destination: Destination
    pool: AsyncConnectionPool
    gate: Gate
    high_water: HighWater
    transport: Transport
    contents: Contents
    settler: Settler
    stopping: asyncio.Event
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    calls: int = 0
    idle_since: float | None = None  # monotonic; None while there is work
    _under_way: set[asyncio.Task[None]] = field(default_factory=set)

    async def run(self) -> None:
        """Work until told to stop, then let what is under way end."""
        while not self.stopping.is_set():
            try:
                pause = await self._round()
            except AWAY as error:
                telemetry.emit("database_lost", reason=str(error))
                pause = AGAIN
            except RedisError as error:  # fail closed: what the gate does not grant is not called
                telemetry.emit("gate_lost", reason=str(error))
                pause = AGAIN
            await rest(self.wake, pause)
        if self._under_way:
            await asyncio.wait(self._under_way)

    async def _round(self) -> float:
        """Claim and start what may be called now; how long to rest before the next look."""
        free = self.destination.entry.connections - len(self._under_way)
        if free <= 0:
            await asyncio.wait(self._under_way, return_when=asyncio.FIRST_COMPLETED)
            return 0
        name = self.destination.provider.name
        self.wake.clear()
        async with self.pool.connection() as conn:
            await ledger.sweep(conn, name, self.destination.provider.contract.settle_delay)
            due = await ledger.due(conn, name, free)
            if due == 0:
                return await self._idle(conn)
        self.idle_since = None
        asked = time.monotonic()
        grant = await self.gate.ask(due)
        if grant.calls == 0:
            return min(max(grant.wait.total_seconds(), SHORT), LOOK)
        await self._start(grant, asked)
        return 0

    async def _idle(self, conn: psycopg.AsyncConnection) -> float:
        if self._under_way:
            self.idle_since = None
        elif self.idle_since is None:
            self.idle_since = time.monotonic()
        at = await ledger.next_due(conn, self.destination.provider.name)
        if at is None:
            return LOOK
        ahead = (at - datetime.now(UTC)).total_seconds()
        return min(max(ahead, SHORT), LOOK) if ahead > 0 else BLOCKED

    async def _start(self, grant: Grant, asked: float) -> None:
        began, seen = time.monotonic(), self.high_water.seen
        async with self.pool.connection() as conn:
            claim = await claiming.claim(conn, self.destination, self.contents, grant.calls)
            if claim.closed:
                events = sorted({one.event_id for one in claim.closed})
                async with conn.transaction():
                    await ledger.complete(conn, events, datetime.now(UTC))
        if len(claim.calls) < grant.calls:
            await self.gate.give_back(grant, grant.calls - len(claim.calls))
        if claim.calls:
            await self.high_water.reach(claim.number, after=seen)
        for one in claim.calls:
            task = asyncio.create_task(self._serve(one, claim, began, asked))
            self._under_way.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self.wake.set()
        task.result()  # an error here is a bug: it must be seen, not kept in a task

    async def _serve(self, call: Call, claim: Claim, began: float, asked: float) -> None:
        assert claim.now is not None
        check = LastCheck(
            grant_until=asked + self.gate.life.total_seconds(),
            claim_until=began + self.destination.entry.call_timeout.total_seconds(),
        )
        self.calls += 1
        answer, status, latency = await self._exchange(call, claim.now, check)
        now = claim.now + timedelta(seconds=time.monotonic() - began)
        decision = self._decide(call, answer, now)
        self.settler.put(
            settling.settlement(
                call, claim.id, answer, decision, status_code=status, latency=latency
            )
        )
        if isinstance(decision, Retry) and decision.pause_until and decision.pause_until > now:
            await self._hold(decision, decision.pause_until, now)

    async def _exchange(
        self, call: Call, now: datetime, check: "LastCheck"
    ) -> tuple[Outcome | Finding, int | None, timedelta]:
        provider = self.destination.provider
        left = timedelta(seconds=check.claim_until - time.monotonic())
        if call.purpose is Purpose.LOOK_UP:
            inquiry = await http.look_up(
                self.transport,
                provider,
                call.request,
                effect_id=call.effect.id,
                within=left,
                before_write=check,
            )
            return inquiry.finding, inquiry.status_code, inquiry.latency
        exchange = await http.call(
            self.transport, provider, call.request, now=now, within=left, before_write=check
        )
        outcome = exchange.outcome
        if check.grant_expired and isinstance(
            outcome, Unreached
        ):  # waiting for a turn is not failing
            outcome = Throttled(timedelta(0), outcome.reason)
        return outcome, exchange.status_code, exchange.latency

    def _decide(self, call: Call, answer: Outcome | Finding, now: datetime) -> Decision:
        contract = self.destination.provider.contract
        if call.purpose is Purpose.LOOK_UP:
            assert isinstance(answer, Finding)
            return decide.decide_look_up(call.effect, contract, answer, now)
        assert isinstance(answer, Outcome)
        return decide.decide(call.effect, contract, answer, now)

    async def _hold(self, decision: Retry, until: datetime, now: datetime) -> None:
        """The provider asked all of us to wait; a lost gate would only make us ask it again."""
        name = self.destination.provider.name
        try:
            await self.gate.pause(until, now)
            if decision.blocked or until - now >= DURABLE:
                pause = ledger.Pause(provider=name, until=until, reason=decision.reason)
                async with self.pool.connection() as conn:
                    await ledger.pause(conn, pause, now)
        except (RedisError, *AWAY) as error:
            telemetry.emit("gate_lost", reason=str(error))
        event: telemetry.LogEvent = "provider_blocked" if decision.blocked else "provider_paused"
        telemetry.emit(event, provider=name, until=until, reason=decision.reason)


@dataclass(slots=True, kw_only=True)
class LastCheck:
    """Asked before the first byte is written: is the grant good, does the claim still hold?"""

    grant_until: float  # monotonic
    claim_until: float  # monotonic; well before the lease ends
    grant_expired: bool = False

    def __call__(self) -> None:
        now = time.monotonic()
        if now > self.grant_until:
            self.grant_expired = True
            raise NotWritten("the grant ran out before the write")
        if now > self.claim_until:
            raise NotWritten("the claim ran out before the write")


async def rest(wake: asyncio.Event, seconds: float) -> None:
    """Wait until woken, for so long at most."""
    if seconds <= 0:
        return
    try:
        await asyncio.wait_for(wake.wait(), seconds)
    except TimeoutError:
        return
