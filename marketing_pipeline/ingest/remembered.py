"""A value that costs a query: loaded once for all who ask at the same time, and kept a while."""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Remembered(Generic[T]):
    """The newest result of `load`. A failure is shared by those who waited, and not remembered."""

    def __init__(self, load: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._load = load
        self._loaded: tuple[float, T] | None = None
        self._loading: asyncio.Task[T] | None = None

    async def value(self, younger_than: timedelta) -> T:
        """The value as it was no longer ago than that."""
        now = asyncio.get_running_loop().time()
        if self._loaded is not None and now - self._loaded[0] < younger_than.total_seconds():
            return self._loaded[1]
        if self._loading is None:
            self._loading = asyncio.create_task(self._reload(now))
            self._loading.add_done_callback(self._forget)
        return await asyncio.shield(self._loading)  # who asks may give up; the others still wait

    async def _reload(self, began: float) -> T:
        value = await self._load()
        self._loaded = began, value  # its age counts from before the query
        return value

    def _forget(self, task: asyncio.Task[T]) -> None:
        self._loading = None
        if not task.cancelled():
            task.exception()  # those who waited have it; asyncio need not report it as unseen
