"""The connections of a lane: in use by calls, or kept for calls that are on their way."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True, kw_only=True)
class Slots:
    """Calls never outnumber connections: whoever asks for leave keeps as many until they begin."""

    most: int
    ended: asyncio.Event  # set whenever a call has ended, or what went beside
    kept: int = 0
    _calls: set[asyncio.Task[None]] = field(default_factory=set)
    _beside: set[asyncio.Task[Any]] = field(default_factory=set)

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
        """Make a call on one of them."""
        task = asyncio.create_task(doing)
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

    def _call_ended(self, task: asyncio.Task[None]) -> None:
        self._calls.discard(task)
        self.ended.set()
        task.result()  # an error here is a bug: it must be seen, not kept in a task
