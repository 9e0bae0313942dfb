"""Replays many days with many workers: processes that share no state and can reach nobody."""

import asyncio
import difflib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from multiprocessing import get_context

from psycopg import AsyncConnection

from marketing_pipeline.delivery import replay_worker, units, verification
from marketing_pipeline.delivery.units import Unit
from marketing_pipeline.delivery.verification import Findings, Verification
from marketing_pipeline.domain import digest
from marketing_pipeline.domain.event import EventType
from marketing_pipeline.event_log import history
from marketing_pipeline.event_log.history import PastDay

AHEAD = 2  # units a worker that are handed out: one at work, one that waits


class CannotReplay(ValueError):
    """What was asked for cannot be replayed: `field: problem; remedy`."""


class Mode(StrEnum):
    """What a replay does with what it makes."""

    VERIFY = "verify"  # compares it with the ledger
    RESEND = "resend"  # plans it anew, to be sent again: `resending` does that


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A span of UTC days, both ends included, and the types of events to replay of them."""

    first: date
    last: date
    types: tuple[EventType, ...]
    mode: Mode


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a replay has come."""

    effects: int
    of_effects: int  # that the plans promise
    days: int  # that are over
    of_days: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What a replay of many days found."""

    days: tuple[Verification, ...]  # those that have plans
    workers: int
    calls: int  # attempts of any worker to reach anybody, each of which was refused
    seconds: float

    @property
    def digest(self) -> str:
        """Over the digests of its days: the same for any number of workers, on any machine."""
        return digest.running([str(one.day), one.digest] for one in self.days)

    @property
    def different(self) -> int:
        return sum(len(one.shown) + one.more for one in self.days)


def asked(first: str, last: str, types: Sequence[str], mode: str) -> Asked:
    """What somebody wrote, checked.

    Raises:
        CannotReplay: it names the field, its problem and the remedy.
    """
    span = _day("from", first), _day("to", last)
    if span[0] > span[1]:
        raise CannotReplay(f"from: {first} is after {last}; exchange them")
    return Asked(first=span[0], last=span[1], types=types_of(types), mode=mode_of(mode))


def types_of(names: Sequence[str]) -> tuple[EventType, ...]:
    """Types of events by name; all of them where none is named.

    Raises:
        CannotReplay: there is none of that name.
    """
    found = {_one_of("types", name.strip().upper(), EventType) for name in names}
    return tuple(type for type in EventType if type in found or not found)


def mode_of(name: str) -> Mode:
    """A mode by name.

    Raises:
        CannotReplay: there is none of that name.
    """
    return Mode(_one_of("mode", name, Mode))


def check_workers(workers: int) -> None:
    """See that there is somebody to do it.

    Raises:
        CannotReplay: there is nobody.
    """
    if workers < 1:
        raise CannotReplay(f"workers: {workers} is not enough; write 1 or more")


def _one_of(field: str, name: str, known: type[StrEnum]) -> StrEnum:
    names = [str(one) for one in known]
    if name in names:
        return known(name)
    near = difflib.get_close_matches(name, names, 1, 0.4) or names
    raise CannotReplay(f"{field}: {name!r} is not known; write {' or '.join(near)}")


def _day(field: str, text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        problem = f"{field}: {text!r} is not a day; write YYYY-MM-DD, such as 2026-03-01"
        raise CannotReplay(problem) from error


def run(url: str, wanted: Asked, workers: int, told: Callable[[Progress], None]) -> Replayed:
    """Replay days with so many processes; `told` hears of every unit that is done.

    Each unit is read in one snapshot of its own, so that a replay of years does not keep the
    database from cleaning up. Interrupted, it leaves nothing behind.

    Raises:
        CannotReplay: there are no workers to do it, or one was killed.
    """
    check_workers(workers)
    try:
        return asyncio.run(_share_out(url, wanted, workers, told))
    except BrokenProcessPool as error:
        raise CannotReplay(
            "workers: one was killed, perhaps for lack of memory; write fewer, and replay again"
        ) from error


async def _share_out(
    url: str, wanted: Asked, workers: int, told: Callable[[Progress], None]
) -> Replayed:
    began, loop = time.monotonic(), asyncio.get_running_loop()
    waiting: set[asyncio.Future[tuple[Unit, Findings, int]]] = set()
    pool = ProcessPoolExecutor(workers, get_context("spawn"), replay_worker.begin, (url,))
    try:
        async with await AsyncConnection.connect(url, autocommit=True) as conn:
            days = await history.days(conn, wanted.first, wanted.last, wanted.types)
            work = _Ledger(days, told)
            async for unit in _units(conn, days, wanted.types, work):
                if len(waiting) >= AHEAD * workers:
                    done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                    work.take(done)
                waiting.add(loop.run_in_executor(pool, replay_worker.replay, unit))
            while waiting:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                work.take(done)
    finally:
        for one in waiting:
            one.cancel()
        pool.shutdown(cancel_futures=True)
    return Replayed(
        days=tuple(verification.of_day(one.day, work.found[one.day]) for one in days),
        workers=workers,
        calls=work.calls,
        seconds=time.monotonic() - began,
    )


async def _units(
    conn: AsyncConnection, days: Sequence[PastDay], types: Sequence[EventType], work: "_Ledger"
) -> AsyncIterator[Unit]:
    for one in days:
        found = await units.of_day(conn, one.day, types)
        work.open[one.day] = len(found)
        for unit in found:
            yield unit


class _Ledger:
    """What has come back from the workers."""

    def __init__(self, days: Sequence[PastDay], told: Callable[[Progress], None]) -> None:
        self.found = {one.day: Findings() for one in days}
        self.open: dict[date, int] = {}  # units still to come back
        self.calls = 0
        self._told = told
        self._promised = sum(one.effects for one in days)

    def take(self, done: "set[asyncio.Future[tuple[Unit, Findings, int]]]") -> None:
        for unit, findings, calls in (one.result() for one in done):
            self.found[unit.day] += findings
            self.open[unit.day] -= 1
            self.calls += calls
        self._told(
            Progress(
                effects=sum(one.effects for one in self.found.values()),
                of_effects=self._promised,
                days=sum(left == 0 for left in self.open.values()),
                of_days=len(self.found),
            )
        )
