"""Serves one claimed effect: its call, what is decided on the answer, what that asks of all."""

import asyncio
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from psycopg_pool import AsyncConnectionPool
from redis import RedisError

from marketing_pipeline import telemetry
from marketing_pipeline.delivery import calling, claiming, settling
from marketing_pipeline.delivery.assembly import Destination
from marketing_pipeline.delivery.calling import LastCheck
from marketing_pipeline.delivery.claiming import Call, Claim
from marketing_pipeline.delivery.gate import Gate, Grant
from marketing_pipeline.delivery.settling import AWAY, Settler
from marketing_pipeline.domain import decide
from marketing_pipeline.domain.decide import Decision, Retry
from marketing_pipeline.domain.outcome import Finding, Outcome
from marketing_pipeline.event_log import pauses
from marketing_pipeline.event_log.ledger import Purpose
from marketing_pipeline.event_log.pauses import Pause
from marketing_pipeline.providers.transport import Transport

DURABLE = timedelta(seconds=30)  # a pause this long outlives the gate's memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Leave:
    """What the gate granted."""

    grant: Grant
    asked: float  # before the grant, by `claiming.clock`


@dataclass(slots=True, kw_only=True)
class Service:
    """What all calls of one provider share."""

    destination: Destination
    pool: AsyncConnectionPool
    gate: Gate
    transport: Transport
    settler: Settler
    calls: int = 0  # made so far
    _turns: asyncio.Semaphore = field(init=False)  # one a connection

    def __post_init__(self) -> None:
        self._turns = asyncio.Semaphore(self.destination.entry.connections)

    async def serve(self, call: Call, claim: Claim, leave: Leave) -> None:
        """Make the call, and hand what it came to over to be settled."""
        assert claim.begun is not None, "it is on record before it is served"
        began, now = claim.began, claim.begun.now
        check = LastCheck(
            grant_until=leave.asked + self.gate.life.total_seconds(),
            claim_until=began + self.destination.entry.call_timeout.total_seconds(),
        )
        self.calls += 1
        async with self._turns:  # in no call's time: waiting for a turn is not failing
            made = await calling.make(self.transport, self.destination.provider, call, now, check)
        self.gate.note(leave.grant, made.health, made.observed)
        now += timedelta(seconds=claiming.clock() - began)
        decision = self._decide(call, made.answer, now)
        self.settler.put(
            settling.settlement(
                call,
                claim.id,
                made.answer,
                decision,
                status_code=made.status_code,
                latency=made.latency,
            )
        )
        if made.held is not None:
            contract = self.destination.provider.contract
            decision = decide.decide(call.effect, contract, made.held, now)
        if isinstance(decision, Retry) and decision.pause_until and decision.pause_until > now:
            await self._hold(decision, decision.pause_until, now)

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
        except RedisError as error:
            telemetry.emit("gate_lost", reason=str(error))
        if decision.blocked or until - now >= DURABLE:
            reason = settling.storable(decision.reason) or ""
            pause = Pause(provider=name, until=until, reason=reason)
            try:
                async with self.pool.connection() as conn:
                    await pauses.keep(conn, pause, now)
            except AWAY as error:
                telemetry.emit("database_lost", reason=str(error))
        event: telemetry.LogEvent = "provider_blocked" if decision.blocked else "provider_paused"
        telemetry.emit(event, provider=name, until=until, reason=decision.reason)
