"""Group commit: events that arrive together share a transaction; each waits for its commit."""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Self

import psycopg

from marketing_pipeline import telemetry
from marketing_pipeline.domain.event import InvalidEvent, NewEvent
from marketing_pipeline.event_log import intake
from marketing_pipeline.event_log.intake import Recorded
from marketing_pipeline.ingest.database import (
    PATIENCE,
    POISON,
    STATEMENT_PATIENCE,
    Line,
    Unavailable,
)

MOST = 100  # events that a flush gathers; one request's events are never split
_GLANCE = 0.1  # seconds between looks for senders who have waited too long
BACKLOG = 5_000  # events that may wait; about a second's work, and a bound on memory

Outcome = Recorded | InvalidEvent  # what became of one event


@dataclass(frozen=True, slots=True)
class _Group:
    """One request's events, and where it waits for what became of them."""

    events: Sequence[NewEvent]
    answer: asyncio.Future[list[Outcome]]


class Batcher:
    """Records events through a few connections.

    There is no delay to collect more: while a flush is under way, the next one gathers by itself.
    """

    def __init__(
        self,
        database_url: str,
        *,
        flushers: int = 2,
        backlog: int = BACKLOG,
        patience: timedelta = PATIENCE,
    ) -> None:
        self._lines = [Line(database_url, patience) for _ in range(flushers)]
        self._backlog = backlog
        self._patience = patience
        self._queue: asyncio.Queue[_Group] = asyncio.Queue()
        self._waiting = 0  # events in the queue
        # Oldest first, with the end of its patience by the loop's clock; what was answered stays
        # until the oldest was.
        self._asked: deque[tuple[float, asyncio.Future[list[Outcome]]]] = deque()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        work = [self._give_up_forever(), *(self._flush_forever(line) for line in self._lines)]
        self._tasks = [asyncio.create_task(one) for one in work]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish what was taken in, then let go of the connections."""
        await self._queue.join()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for line in self._lines:
            await line.close()

    async def record(self, events: Sequence[NewEvent]) -> list[Outcome]:
        """What became of the events, in their order, once that is durable.

        Raises:
            Unavailable: too many wait already, or the database did not answer in time.
        """
        if self._waiting + len(events) > self._backlog:
            raise Unavailable("too many events are waiting to be recorded")
        loop = asyncio.get_running_loop()
        group = _Group(events, loop.create_future())
        self._waiting += len(events)
        self._queue.put_nowait(group)
        self._asked.append((loop.time() + self._patience.total_seconds(), group.answer))
        return await group.answer

    async def _give_up_forever(self) -> None:
        """Look at the oldest now and then: a timer for each request took 2 % of the service."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_GLANCE)
            while self._asked and (self._asked[0][0] < loop.time() or self._asked[0][1].done()):
                _, answer = self._asked.popleft()
                if not answer.done():
                    answer.set_exception(Unavailable("the database did not answer in time"))

    async def _flush_forever(self, line: Line) -> None:
        with suppress(Unavailable):  # the line logs it, and tries again when there is an event
            async with line.reached():
                pass  # the first sender need not wait for the connection
        while True:
            groups = await self._gather()
            try:
                if waiting := [g for g in groups if not g.answer.done()]:
                    await _flush(line, waiting)
            finally:
                for _ in groups:
                    self._queue.task_done()

    async def _gather(self) -> list[_Group]:
        groups = [await self._queue.get()]
        count = len(groups[0].events)
        while count < MOST and not self._queue.empty():
            groups.append(self._queue.get_nowait())
            count += len(groups[-1].events)
        self._waiting -= count
        return groups


async def _flush(line: Line, groups: Sequence[_Group]) -> None:
    """Answer every group: with what became of it, or with what kept that from being known."""
    try:
        outcomes = iter(await _record(line, [e for group in groups for e in group.events]))
    except Exception as error:  # each request that waits reports it as its own
        _answer(groups, error)
        return
    for group in groups:
        own = [next(outcomes) for _ in group.events]
        failed = [one for one in own if isinstance(one, Unavailable)]
        _answer(
            [group], failed[0] if failed else [o for o in own if not isinstance(o, Unavailable)]
        )


def _answer(groups: Sequence[_Group], answer: list[Outcome] | Exception) -> None:
    for group in groups:
        if group.answer.done():  # its sender gave up
            continue
        if isinstance(answer, Exception):
            group.answer.set_exception(answer)
        else:
            group.answer.set_result(answer)


async def _record(line: Line, events: Sequence[NewEvent]) -> list[Outcome | Unavailable]:
    """All in one transaction; where one of them cannot be stored, each in a transaction alone."""
    try:
        return [*await _transaction(line, events)]
    except POISON:
        return [await _alone(line, e) for e in events]


async def _alone(line: Line, e: NewEvent) -> Outcome | Unavailable:
    try:
        [recorded] = await _transaction(line, [e])
    except POISON as error:
        code = error.sqlstate if isinstance(error, psycopg.Error) else None
        telemetry.emit("event_not_storable", level=logging.ERROR, event_id=str(e.id), sqlstate=code)
        return InvalidEvent(
            "event", f"cannot be stored (SQLSTATE {code})", "report this code to the operator"
        )
    except Unavailable as error:  # its neighbours may have been recorded: they are told so
        return error
    return recorded


async def _transaction(line: Line, events: Sequence[NewEvent]) -> list[Recorded]:
    async with line.reached() as conn:
        return await intake.commit(conn, events, datetime.now(UTC), STATEMENT_PATIENCE)
