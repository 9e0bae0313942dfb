"""One delivery run: plans what is due and keeps a lane for each provider until all is idle."""

import asyncio
import math
import time
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from uuid import UUID, uuid4

import psycopg
from psycopg_pool import AsyncConnectionPool

from marketing_pipeline import telemetry
from marketing_pipeline.delivery import (
    campaigns,
    holding,
    planner,
    settling,
)
from marketing_pipeline.delivery.assembly import Assembly
from marketing_pipeline.delivery.eager import Eager
from marketing_pipeline.delivery.frontier import Idleness
from marketing_pipeline.delivery.lane import COMPANY, LOOK, Lane, rest
from marketing_pipeline.delivery.settling import AGAIN, AWAY, Settler
from marketing_pipeline.event_log import heartbeats, ledger

CHANNEL = "marketing_events"
BEAT = 5.0  # seconds
LIVES = timedelta(seconds=15)  # a run that has not beaten for this long counts as dead


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a run did."""

    planned: int
    calls: int
    settled: dict[str, int]  # effects by the state they were put in, repeats counted
    days: frozenset[date]


@dataclass(slots=True, kw_only=True)
class Engine:
    """A run's tasks and what they share."""

    assembly: Assembly
    pool: AsyncConnectionPool
    database_url: str
    lanes: list[Lane]
    eager: Eager
    settler: Settler
    stopping: asyncio.Event
    worker: UUID = field(default_factory=uuid4)
    run_id: str | None = None
    planned: int = 0
    fronts: planner.Fronts = field(default_factory=planner.Fronts)
    days: set[date] = field(default_factory=set)
    _due: asyncio.Event = field(default_factory=asyncio.Event)
    _unwritten: asyncio.Event = field(default_factory=asyncio.Event)
    _planning: Idleness = field(default_factory=Idleness)
    _writing: Idleness = field(default_factory=Idleness)

    async def run(self, linger: timedelta, max_run: timedelta) -> Report:
        """Work until idle for `linger`, told to stop, or `max_run` has passed."""
        telemetry.emit("delivery_started", run=self.run_id)
        async with asyncio.TaskGroup() as group:
            background = [
                group.create_task(task)
                for task in (self.settler.run(), self._listen(), self._beat(), self._sweep())
            ]
            lanes = [group.create_task(lane.run()) for lane in self.lanes]
            planning = [group.create_task(self._plan()), group.create_task(self._write_out())]
            await self._until_idle(linger, max_run)
            self.stopping.set()
            for event in [self._due, self._unwritten, *(lane.wake for lane in self.lanes)]:
                event.set()
            await asyncio.gather(*planning, *lanes)
            await self.settler.drained()
            for task in background:
                task.cancel()
        await self._stop_beating()
        calls = sum(lane.service.calls for lane in self.lanes)
        telemetry.emit("delivery_stopped", run=self.run_id, planned=self.planned, calls=calls)
        return Report(
            planned=self.planned,
            calls=calls,
            settled=dict(self.settler.states),
            days=frozenset(self.days | self.settler.days),
        )

    async def _until_idle(self, linger: timedelta, max_run: timedelta) -> None:
        ends, asked = time.monotonic() + max_run.total_seconds(), -math.inf
        while not self.stopping.is_set() and time.monotonic() < ends:
            all_of_them = [self._planning, self._writing, *(lane.idle for lane in self.lanes)]
            since = [one.since for one in all_of_them if one.since is not None]
            if len(since) == len(all_of_them):
                over = max(since) + linger.total_seconds()
                if min(one.sure for one in all_of_them) >= over:
                    return
                if time.monotonic() >= max(over, asked + LOOK):
                    asked = time.monotonic()
                    self._look_whole()
            await asyncio.sleep(0.05)

    def _look_whole(self) -> None:
        """Let everybody look once more, at all there is: what came meanwhile may lie far back."""
        self.fronts.plain.look_whole()
        self.fronts.single.look_whole()
        self._due.set()
        self._unwritten.set()
        for lane in self.lanes:
            lane.look_whole()

    async def _plan(self) -> None:
        for lane in self.lanes:  # what is due already comes before what is planned now
            await rest(lane.looked, LOOK)
        while not self.stopping.is_set():
            try:
                # One connection for all rounds: its backend has everything at hand.
                async with self.pool.connection() as conn:
                    while not self.stopping.is_set():
                        await self._plan_once(conn)
            except AWAY as error:
                telemetry.emit("database_lost", reason=str(error))
                await asyncio.sleep(AGAIN)

    async def _plan_once(self, conn: psycopg.AsyncConnection) -> None:
        self._due.clear()
        began = time.monotonic()
        rules = self.assembly.configuration.meaning.rules
        done = await planner.plan_due(conn, rules, datetime.now(UTC), self.eager, self.fronts)
        if done.campaigns:
            self._writing.found()
            self._unwritten.set()
        if done.events:
            self._planning.found()
            self.planned += done.events
            self.days |= done.days
            for lane in self.lanes:
                effects = done.due.get(lane.name)
                if effects is not None:
                    lane.planned(effects)
            if 1 < done.events < planner.BATCH:
                await asyncio.sleep(began + COMPANY - time.monotonic())
            return
        if done.waiting:
            self._planning.found()
        else:
            self._planning.found_nothing(whole=done.whole, began=began)
        await rest(self._due, LOOK)

    async def _write_out(self) -> None:
        """Campaigns are planned, written and parked beside all else: a welcome waits for none."""
        while not self.stopping.is_set():
            self._unwritten.clear()
            began = time.monotonic()
            try:
                async with self.pool.connection() as conn:
                    rules = self.assembly.configuration.meaning.rules
                    now = datetime.now(UTC)
                    written = await campaigns.write_unfinished(conn, now, self.stopping, rules)
                    written += await holding.tend(conn, now)
            except AWAY as error:
                telemetry.emit("database_lost", reason=str(error))
                await asyncio.sleep(AGAIN)
                continue
            if written:
                self._writing.found()
                for lane in self.lanes:
                    lane.wake.set()
                continue
            self._writing.found_nothing(whole=True, began=began)
            await rest(self._unwritten, LOOK)

    async def _listen(self) -> None:
        """Be woken by ingest's NOTIFY; a poll stands behind it, so a lost one costs a second."""
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(
                    self.database_url, autocommit=True
                ) as conn:
                    await conn.execute(f"listen {CHANNEL}")
                    self._due.set()
                    async for _ in conn.notifies():
                        self._due.set()
            except AWAY as error:
                telemetry.emit("database_lost", reason=str(error))
            await asyncio.sleep(AGAIN)

    async def _beat(self) -> None:
        while True:
            try:
                async with self.pool.connection() as conn:
                    await heartbeats.beat(conn, self.worker, self.run_id, LIVES)
            except AWAY as error:
                telemetry.emit("database_lost", reason=str(error))
            await asyncio.sleep(BEAT)

    async def _stop_beating(self) -> None:
        try:
            async with self.pool.connection() as conn:
                await heartbeats.stop_beating(conn, self.worker)
        except AWAY as error:  # it lapses by itself
            telemetry.emit("database_lost", reason=str(error))

    async def _sweep(self) -> None:
        """Complete events whose settler died between settling and completing."""
        while True:
            await asyncio.sleep(BEAT)
            try:
                async with self.pool.connection() as conn:
                    now = datetime.now(UTC)
                    await settling.finish(conn, await ledger.stranded(conn, now), now)
            except AWAY as error:
                telemetry.emit("database_lost", reason=str(error))
