"""The slots of a lane: in use by calls, or kept for calls that are on their way."""

import asyncio
import math
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

_AHEAD = 2  # claims for each connection: as one of them is called, the next is on record
_WEIGHT = 1 / 16  # of the latest call, in what calls take


@dataclass(slots=True, kw_only=True)
class Slots:
    """How much may be claimed: whoever asks for leave keeps as many slots until calls begin.

    There is one for each connection. Where calls are brief there are more, and a call may wait for
    a connection: else connections stand idle while the next calls for them are put on record. A
    provider that takes its time gets no more: what waits for longer than its grant lives is called
    off, and was claimed in vain.
    """

    connections: int
    brief: float  # seconds: what calls may take, their wait for a connection included
    ended: asyncio.Event  # set whenever a call has ended, or what went beside
    kept: int = 0
    _takes: float = math.inf  # seconds: what calls take, of late
    _calls: set[asyncio.Task[None]] = field(default_factory=set)
    _beside: set[asyncio.Task[Any]] = field(default_factory=set)

    @property
    def most(self) -> int:
        return self.connections * (_AHEAD if self._takes <= self.brief else 1)

    @property
    def taken(self) -> int:
        return len(self._calls) + self.kept

    @property
    def free(self) -> int:
        return self.most - self.taken

    @property
    def half(self) -> int:
        return (self.most + 1) // 2

    @property
    def busy(self) -> bool:
        return bool(self.taken or self._beside)

    def call(self, doing: Coroutine[Any, Any, None]) -> None:
        """Make a call in one of them."""
        task = asyncio.create_task(self._timed(doing))
        self._calls.add(task)
        task.add_done_callback(self._call_ended)

    def beside(self, doing: Coroutine[Any, Any, Any]) -> None:
        """Do what nobody waits for; `reap` raises what it raised."""
        task = asyncio.create_task(doing)
        self._beside.add(task)
        task.add_done_callback(lambda _: self.ended.set())

    def reap(self) -> None:
        for task in [one for one in self._beside if one.done()]:
            self._beside.discard(task)
            task.result()

    async def abandon(self) -> None:
        """Of a run that broke off nothing goes on; what a call comes to is left to its lease."""
        for call in self._calls:
            call.remove_done_callback(self._call_ended)
        # A claim that is cancelled gives back its leave, by a task of its own.
        while left := {one for one in self._calls | self._beside if not one.done()}:
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)  # what broke the run off is raised

    async def _timed(self, doing: Coroutine[Any, Any, None]) -> None:
        began = time.monotonic()
        try:
            await doing
        finally:
            took = time.monotonic() - began
            known = self._takes if self._takes < math.inf else took
            self._takes = known + (took - known) * _WEIGHT

    def _call_ended(self, task: asyncio.Task[None]) -> None:
        self._calls.discard(task)
        self.ended.set()
        task.result()  # an error here is a bug: it must be seen, not kept in a task
