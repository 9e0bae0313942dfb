"""One provider's loop: gate, claim, call; a provider in trouble holds back only itself."""

import asyncio
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime

import psycopg
from psycopg_pool import AsyncConnectionPool
from redis import RedisError

from marketing_pipeline import telemetry
from marketing_pipeline.delivery import claiming
from marketing_pipeline.delivery.assembly import Destination
from marketing_pipeline.delivery.claiming import Claim
from marketing_pipeline.delivery.contents import Contents
from marketing_pipeline.delivery.gate import LATEST, Gate, Health
from marketing_pipeline.delivery.high_water import HighWater
from marketing_pipeline.delivery.serving import Leave, Service
from marketing_pipeline.delivery.settling import AGAIN, AWAY
from marketing_pipeline.event_log import ledger

LOOK = 1.0  # seconds between looks at the ledger where nothing wakes the lane: the safety net
SHORT = 0.02  # the shortest wait: what comes due within it is not worth an earlier look
BLOCKED = 0.1  # seconds until what waits for an older effect of its contact is looked at again
SWEEP = 0.5  # seconds between sweeps of expired leases
GATHER = 0.003  # seconds that a few free connections wait for more: one claim for many
# Seconds between two rounds of which the first found several that had come together: what comes in
# between shares the second, at a third of the work. What comes alone waits for nobody.
COMPANY = 0.05


@dataclass(slots=True, kw_only=True)
class Lane:
    """Keeps a provider's calls going while anything is due."""

    destination: Destination
    pool: AsyncConnectionPool
    gate: Gate
    high_water: HighWater
    contents: Contents
    service: Service
    stopping: asyncio.Event
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    looked: asyncio.Event = field(default_factory=asyncio.Event)  # it knows what is due
    idle_since: float | None = None  # monotonic; None while there is work
    _more: bool = False  # the last claim took all it could: more is probably due
    _empty: bool = False  # the last look found nothing due, and nothing was claimed since
    _planned: int = 0  # effects that have come due since the last round
    _swept_at: float = -1.0  # monotonic
    _not_before: float = -1.0  # monotonic; of the next claim
    _under_way: set[asyncio.Task[None]] = field(default_factory=set)  # calls
    _beside: set[asyncio.Task[float]] = field(default_factory=set)  # what nobody waits for
    _reserved: int = 0  # connections that these are for

    def planned(self, effects: int) -> None:
        """So many of its effects are due that were not before: nothing has to be looked for."""
        self._planned += effects
        self.wake.set()

    async def reserve(self, effects: int) -> Leave | None:
        """Leave to call for effects that are about to be planned; None: they wait for their turn.

        What is due already comes first. Connections are kept until `begin` or `forgo`.
        """
        wanted = min(effects, self.destination.entry.connections - self._taken)
        if wanted <= 0 or self._planned or not self._empty or self.stopping.is_set():
            return None
        granted, self._reserved = 0, self._reserved + wanted
        try:
            leave = await self._ask(wanted)
            granted = leave.grant.calls
        except (RedisError, *AWAY):  # the lane finds out for itself, and says so
            self._empty = False
            self.wake.set()
            return None
        finally:
            self._reserved -= wanted - granted
        return leave if granted else None

    def begin(self, leave: Leave, claim: Claim) -> None:
        """Make the calls of a claim that is on record, and counted by the high-water mark."""
        self._reserved -= leave.grant.calls
        self.idle_since = None
        self._call(claim, leave)
        if unused := leave.grant.calls - len(claim.calls):
            giving = self._guarded(self.gate.give_back(leave.grant, unused))
            self._beside.add(asyncio.create_task(giving))

    def forgo(self, leave: Leave) -> None:
        """Nothing came of it."""
        self._reserved -= leave.grant.calls
        self.gate.note(leave.grant, Health.UNUSED)

    async def run(self) -> None:
        """Work until told to stop, then let what is under way end."""
        while not self.stopping.is_set():
            await rest(self.wake, await self._guarded(self._round()))
        while self._beside or self._taken:
            await rest(self.wake, SHORT)
            self.wake.clear()
            self._reap()
        try:
            await self.gate.tell()
        except RedisError as error:  # what this run saw is lost to the others, and no more
            telemetry.emit("gate_lost", reason=str(error))

    async def _guarded(self, doing: Coroutine[None, None, float | None]) -> float:
        """How long to rest; where a server is away, until it may be back."""
        try:
            return await doing or 0
        except AWAY as error:
            telemetry.emit("database_lost", reason=str(error))
        except RedisError as error:  # fail closed: what the gate does not grant is not called
            telemetry.emit("gate_lost", reason=str(error))
        self._more = False
        return AGAIN

    async def _round(self) -> float:
        """Claim and start what may be called now; how long to rest before the next look."""
        free = await self._free()
        if free == 0:
            return 0
        if not self._more:
            await asyncio.sleep(self._not_before - time.monotonic())
        self.wake.clear()
        planned, self._planned = self._planned, 0
        if self._more:  # half of them, so that this claim is made while the other half calls
            free = wanted = min(free, self._half)
        elif planned and self._empty:  # nothing else was due: this need not be looked for
            wanted = min(free, planned)
        else:
            wanted, pause = await self._look(free)
            await self._sweep_in_time()
            if wanted == 0:
                await self._tell_in_time()
                return pause if self.gate.untold_for is None else min(pause, LATEST.total_seconds())
        self.idle_since, self._empty = None, False
        now = time.monotonic()
        leave = await self._ask(wanted)
        if 1 < wanted == leave.grant.calls:  # of what a limit holds back there is company enough
            self._not_before = now + COMPANY
        if leave.grant.calls == 0:
            self._more = False
            return min(max(leave.grant.wait.total_seconds(), SHORT), LOOK)
        if self._more:
            self._start_beside(leave, enough=free)
        else:
            await self._start(leave, enough=free)
        await self._sweep_in_time()
        return 0

    async def _free(self) -> int:
        """How many calls may be added: half of them at once, so that they are claimed while the
        other half is under way; fewer wait a moment for company."""
        most = self.destination.entry.connections
        ends = time.monotonic() + GATHER
        self._reap()
        while self._taken > most - self._half:
            full = self._taken >= most
            if not full and time.monotonic() >= ends:
                break
            await self._tell_in_time()
            self.wake.clear()
            await rest(self.wake, LATEST.total_seconds() if full else GATHER)
            self._reap()
            if self.stopping.is_set():
                return 0
        return most - self._taken

    @property
    def _taken(self) -> int:
        return len(self._under_way) + self._reserved

    @property
    def _half(self) -> int:
        return (self.destination.entry.connections + 1) // 2

    async def _look(self, most: int) -> tuple[int, float]:
        """How many effects are due, and where none is, how long to rest."""
        async with self.pool.connection() as conn:
            due = await ledger.due(conn, self.destination.provider.name, most)
            self._empty = due == 0
            self.looked.set()
            return due, 0 if due else await self._idle(conn)

    async def _sweep_in_time(self) -> None:
        """What others left behind when they died; what this finds is claimed in a later round."""
        if time.monotonic() - self._swept_at < SWEEP:
            return
        self._swept_at = time.monotonic()
        contract = self.destination.provider.contract
        async with self.pool.connection() as conn:
            if await ledger.sweep(conn, self.destination.provider.name, contract.settle_delay):
                self.wake.set()

    async def _tell_in_time(self) -> None:
        """Where nothing is asked for, what calls came to is told apart, many at once."""
        waited = self.gate.untold_for
        if waited is not None and waited >= LATEST:
            await self.gate.tell()

    async def _idle(self, conn: psycopg.AsyncConnection) -> float:
        if self._taken:
            self.idle_since = None
        elif self.idle_since is None:
            self.idle_since = time.monotonic()
        at = await ledger.next_due(conn, self.destination.provider.name)
        if at is None:
            return LOOK
        ahead = (at - datetime.now(UTC)).total_seconds()
        return min(max(ahead, SHORT), LOOK) if ahead > 0 else BLOCKED

    async def _ask(self, calls: int) -> Leave:
        asked = claiming.clock()
        return Leave(grant=await self.gate.ask(calls), asked=asked)

    def _start_beside(self, leave: Leave, *, enough: int) -> None:
        """The same while the lane goes on: of a backlog, one part is claimed as another calls."""

        async def start() -> float:
            try:
                return await self._guarded(self._start(leave, enough=enough))
            finally:
                self._reserved -= leave.grant.calls
                self.wake.set()

        self._reserved += leave.grant.calls
        self._beside.add(asyncio.create_task(start()))

    def _reap(self) -> None:
        """What a claim beside ended with, such as that the log went back in time, ends the lane."""
        for task in [one for one in self._beside if one.done()]:
            self._beside.discard(task)
            task.result()

    async def _start(self, leave: Leave, *, enough: int) -> None:
        """Claim as much as was granted and start the calls.

        enough: so many taken, and more is probably due.
        """
        seen, granted = self.high_water.seen, leave.grant.calls
        claim = await self._claim(leave)
        if claim.begun is not None:
            await self.high_water.reach(
                claim.begun.number, remembered=claim.begun.remembered, after=seen
            )
        self._call(claim, leave)
        self.service.settler.ended(one.event_id for one in claim.closed)
        ended = len(claim.calls) + len(claim.closed)
        if claim.left and not ended:
            self._not_before = time.monotonic() + BLOCKED
        self._more = ended >= enough
        if len(claim.calls) < granted:  # last: where Valkey is away now, the claim is served
            await self.gate.give_back(leave.grant, granted - len(claim.calls))

    async def _claim(self, leave: Leave) -> Claim:
        try:
            async with self.pool.connection() as conn:
                return await claiming.claim(
                    conn, self.destination, self.contents, leave.grant.calls
                )
        except AWAY:  # a probe that nobody makes must not hold back the next one
            self.gate.note(leave.grant, Health.UNUSED)
            raise

    def _call(self, claim: Claim, leave: Leave) -> None:
        for one in claim.calls:
            task = asyncio.create_task(self.service.serve(one, claim, leave))
            self._under_way.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self.wake.set()
        task.result()  # an error here is a bug: it must be seen, not kept in a task


async def rest(wake: asyncio.Event, seconds: float) -> None:
    """Wait until woken, for so long at most."""
    if seconds <= 0:
        return
    try:
        await asyncio.wait_for(wake.wait(), seconds)
    except TimeoutError:
        return
