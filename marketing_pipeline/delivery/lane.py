"""One provider's loop: gate, claim, call; a provider in trouble holds back only itself."""

import asyncio
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from redis import RedisError

from marketing_pipeline import telemetry
from marketing_pipeline.delivery import claiming
from marketing_pipeline.delivery.assembly import Destination
from marketing_pipeline.delivery.claiming import Claim
from marketing_pipeline.delivery.contents import Contents
from marketing_pipeline.delivery.frontier import OVERLAP, Frontier, Idleness
from marketing_pipeline.delivery.gate import LATEST
from marketing_pipeline.delivery.high_water import HighWater
from marketing_pipeline.delivery.serving import Leave, Service
from marketing_pipeline.delivery.settling import AGAIN, AWAY
from marketing_pipeline.delivery.slots import Slots
from marketing_pipeline.event_log import ledger
from marketing_pipeline.event_log.ledger import Since

LOOK = 1.0  # seconds between looks at the ledger where nothing wakes the lane: the safety net
SHORT = 0.02  # the shortest wait: what comes due within it is not worth an earlier look
BLOCKED = 0.1  # seconds until what waits for somebody else is looked at again
SWEEP = 0.5  # seconds between sweeps of expired leases
SWEEPING = 0.01  # of the time, for sweeps of all there are
GATHER = 0.003  # seconds that a few free slots wait for more: one claim for many
# Seconds between two rounds of which the first found several that had come together: what comes in
# between shares the second, at a third of the work. What comes alone waits for nobody.
COMPANY = 0.05


@dataclass(slots=True, kw_only=True)
class Lane:
    """Keeps a provider's calls going while anything is due."""

    service: Service
    high_water: HighWater
    contents: Contents
    stopping: asyncio.Event
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    looked: asyncio.Event = field(default_factory=asyncio.Event)  # it knows what is due
    idle: Idleness = field(default_factory=Idleness)
    _slots: Slots = field(init=False)
    _front: Frontier[Since] = field(default_factory=claiming.front)
    _leases: Frontier[float] = field(
        default_factory=lambda: Frontier(first=-ledger.EVER.total_seconds(), share=SWEEPING)
    )  # by `claiming.clock`
    _more: bool = False  # the last claim took all it could: more is probably due
    _empty: bool = False  # the last look found nothing due, nor has it come across anything since
    _planned: int = 0  # effects that have come due since the last round
    _swept_at: float = -1.0  # monotonic
    _not_before: float = -1.0  # monotonic; of the next claim

    def __post_init__(self) -> None:
        self._slots = Slots(
            connections=self.destination.entry.connections,
            brief=min(
                self.service.gate.life.total_seconds() / 2,
                self.destination.entry.call_timeout.total_seconds() / 4,
            ),
            ended=self.wake,
        )

    @property
    def destination(self) -> Destination:
        return self.service.destination

    @property
    def name(self) -> str:
        return self.destination.provider.name

    def planned(self, effects: int) -> None:
        """So many of its effects are due that were not before: nothing has to be looked for."""
        self._planned += effects
        self.wake.set()

    @property
    def room(self) -> int:
        """For how many effects that are about to be planned leave could be asked now.

        What is known to be due already comes first.
        """
        waits = self._planned or not self._empty or self.stopping.is_set()
        return 0 if waits else max(self._slots.free, 0)

    async def reserve(self, effects: int) -> Leave | None:
        """Leave to call for so many, or for fewer; None: they wait for their turn.

        Slots are kept until `begin` or `forgo`.
        """
        wanted = min(effects, self.room)
        if not wanted:
            return None
        try:
            leave = await self._ask(wanted)
        except (RedisError, *AWAY):  # the lane finds out for itself, and says so
            self._empty = False
            self.wake.set()
            return None
        return leave if leave.grant.calls else None

    def begin(self, leave: Leave, claim: Claim) -> None:
        """Make the calls of a claim that is on record, and counted by the high-water mark."""
        self.idle.found()
        self._call(claim, leave)
        if len(claim.calls) < leave.grant.calls:
            self._slots.beside(self._guarded(self._give_back(leave, claim)))

    def forgo(self, leave: Leave) -> None:
        """Nothing came of it, and nothing will: it uses up no limit and holds back no probe."""
        self._slots.kept -= leave.grant.calls
        giving_back = self.service.gate.give_back(leave.grant, leave.grant.calls)
        self._slots.beside(self._guarded(giving_back))

    async def run(self) -> None:
        """Work until told to stop, then let what is under way end."""
        while not self.stopping.is_set():
            await rest(self.wake, await self._guarded(self._round()))
        while self._slots.busy:
            await rest(self.wake, SHORT)
            self.wake.clear()
            self._slots.reap()
        try:
            await self.service.gate.tell()
        except RedisError as error:  # what this run saw is lost to the others, and no more
            telemetry.emit("gate_lost", reason=str(error))

    def look_whole(self) -> None:
        """Look once more, at all there is."""
        self._front.look_whole()
        self.wake.set()

    async def abandon(self) -> None:
        """End what `run` left where it broke off: nothing uses what is closed next."""
        await self._slots.abandon()

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
            free = wanted = min(free, self._slots.half)
        elif planned and self._empty:  # nothing else was due: this need not be looked for
            wanted = planned
        else:
            wanted, pause = await self._look(free)
            await self._sweep_in_time()
            if wanted == 0:
                await self._tell_in_time()
                untold = self.service.gate.untold_for
                return pause if untold is None else min(pause, LATEST.total_seconds())
        self.idle.found()
        self._empty = False
        now, wanted = time.monotonic(), min(wanted, self._slots.free)
        if wanted <= 0:  # `reserve` was quicker
            return 0
        leave = await self._ask(wanted)
        if 1 < wanted == leave.grant.calls:  # of what a limit holds back there is company enough
            self._not_before = now + COMPANY
        if leave.grant.calls == 0:
            self._more = False
            return min(max(leave.grant.wait.total_seconds(), SHORT), LOOK)
        pause = 0.0
        if self._more:  # of a backlog, one part is claimed as another calls
            self._slots.beside(self._guarded(self._start(leave, enough=free)))
        else:
            pause = await self._start(leave, enough=free)
        await self._sweep_in_time()
        return pause

    async def _free(self) -> int:
        """How many calls may be added: half of them at once, so that they are claimed while the
        other half is under way; fewer wait a moment for company."""
        slots, ends = self._slots, time.monotonic() + GATHER
        slots.reap()
        while slots.free < slots.half:
            full = slots.free <= 0
            if not full and time.monotonic() >= ends:
                break
            await self._tell_in_time()
            self.wake.clear()
            await rest(self.wake, LATEST.total_seconds() if full else GATHER)
            slots.reap()
            if self.stopping.is_set():
                return 0
        return slots.free

    async def _look(self, most: int) -> tuple[int, float]:
        """How many effects are due, and where none is, how long to rest."""
        async with self.service.pool.connection() as conn:
            with self._front.look() as look:
                due, paused = await ledger.due(conn, self.name, most, look.since)
                at = None if due else await ledger.next_due(conn, self.name, look.since)
        self._empty = due == 0 and not paused
        self.looked.set()
        if due:
            if look.whole:
                self._front.look_whole()  # else the claim would not find it
            return due, 0
        if self._slots.taken:
            self.idle.found()
        else:
            self.idle.found_nothing(whole=look.whole, began=look.began)
        latest = LOOK if look.whole else min(max(self._front.whole_in, SHORT), LOOK)
        if at is None:
            return 0, latest
        ahead = (at - datetime.now(UTC)).total_seconds()
        return 0, min(max(ahead, SHORT), latest) if ahead > 0 else BLOCKED

    async def _sweep_in_time(self) -> None:
        """What others left behind when they died; what this finds is claimed in a later round."""
        if time.monotonic() - self._swept_at < SWEEP:
            return
        self._swept_at, began = time.monotonic(), claiming.clock()
        delay = self.destination.provider.contract.settle_delay
        async with self.service.pool.connection() as conn:
            with self._leases.look() as look:
                within = timedelta(seconds=began - look.since) + OVERLAP
                swept = await ledger.sweep(conn, self.name, delay, within)
        if swept:
            self.look_whole()  # what is in doubt has been due since its lease ran out
        else:
            self._leases.reach(began, look)

    async def _tell_in_time(self) -> None:
        """Where nothing is asked for, what calls came to is told apart, many at once."""
        gate = self.service.gate
        if gate.untold_for is not None and gate.untold_for >= LATEST:
            await gate.tell()

    async def _ask(self, wanted: int) -> Leave:
        """Leave for so many calls at most; slots are kept for those that are granted."""
        self._slots.kept += wanted
        granted, asked = 0, claiming.clock()
        try:
            grant = await self.service.gate.ask(wanted)
            granted = grant.calls
            return Leave(grant=grant, asked=asked)
        finally:
            self._slots.kept -= wanted - granted

    async def _start(self, leave: Leave, *, enough: int) -> float:
        """Claim as much as was granted and start the calls; how long to rest where nothing was.

        enough: so many taken, and more is probably due.
        """
        try:
            claim = await self._claim(leave.grant.calls)
        except BaseException:
            self.forgo(leave)
            raise
        self._call(claim, leave)
        self.service.settler.ended(one.event_id for one in claim.closed)
        ended = len(claim.calls) + len(claim.closed)
        self._more = ended >= enough
        await self._give_back(leave, claim)  # last: where Valkey is away now, the claim is served
        return 0 if ended else BLOCKED  # somebody else has locked what is due, and may be frozen

    async def _claim(self, calls: int) -> Claim:
        seen = self.high_water.seen
        async with self.service.pool.connection() as conn:
            claim = await claiming.claim(conn, self.destination, self.contents, calls, self._front)
        if claim.begun is not None:
            begun = claim.begun
            await self.high_water.reach(begun.number, remembered=begun.remembered, after=seen)
        return claim

    def _call(self, claim: Claim, leave: Leave) -> None:
        self._slots.kept -= leave.grant.calls
        for one in claim.calls:
            self._slots.call(self.service.serve(one, claim, leave))

    async def _give_back(self, leave: Leave, claim: Claim) -> None:
        if unused := leave.grant.calls - len(claim.calls):
            await self.service.gate.give_back(leave.grant, unused)


async def rest(wake: asyncio.Event, seconds: float) -> None:
    """Wait until woken, for so long at most."""
    if seconds <= 0:
        return
    try:
        await asyncio.wait_for(wake.wait(), seconds)
    except TimeoutError:
        return
