"""How many calls a provider may take now: one answer for all processes together."""

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib import resources
from typing import cast

from redis.asyncio import Redis

SLOTS = 20  # a window's; gate.lua uses the same
_MS = timedelta(milliseconds=1)
_LONGEST_LIFE = timedelta(
    seconds=1
)  # of a grant: the longer, the fewer calls a window lets through
_SHORTEST_LIFE = timedelta(milliseconds=250)  # a new TLS connection needs about as long


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A limit of the provider: so many calls in any span of this length."""

    calls: int
    per: timedelta

    @property
    def slot(self) -> timedelta:
        return max(1, -(-(self.per // _MS) // SLOTS)) * _MS


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """Leave for `calls` calls, each to be written before `life` has passed."""

    calls: int
    wait: timedelta  # where there is none: how long until it is worth asking again
    made_at: int  # milliseconds of the gate's clock


RecentCalls = Callable[[timedelta, timedelta], Awaitable[dict[int, int]]]


class Gate:
    """The limits of one provider.

    A grant is good for `life`: a call that could not be written by then must not be made, and asks
    again. Where Valkey has lost its memory (a flush, a restart without its file), the record of
    attempts rebuilds it before the first grant. Where Valkey is away, asking raises
    `redis.RedisError`, and nothing is called.
    """

    def __init__(
        self, redis: Redis, provider: str, windows: Sequence[Window], recent: RecentCalls
    ) -> None:
        self.provider = provider
        self.windows = tuple(windows)
        shortest = min(window.per for window in windows)
        self.life = min(_LONGEST_LIFE, max(shortest / 4, _SHORTEST_LIFE))
        self._script = redis.register_script(_LUA)
        self._keys = [f"gate:{{{provider}}}", f"rate_limit:{provider}:window"]
        self._shape = json.dumps([[window.calls, window.per // _MS] for window in windows])
        self._recent = recent

    async def ask(self, calls: int) -> Grant:
        """Ask leave for up to so many calls."""
        granted, wait, now = await self._run("grant", calls)
        if granted < 0:
            await self._rebuild()
            granted, wait, now = await self._run("grant", calls)
        return Grant(calls=max(granted, 0), wait=wait * _MS, made_at=now)

    async def give_back(self, grant: Grant, calls: int) -> None:
        """Return what was granted and certainly not used."""
        await self._run("give_back", calls, str(grant.made_at))

    async def pause(self, until: datetime, now: datetime) -> None:
        """Grant nothing until then; a later end already set stands."""
        await self._run("pause", max((until - now) // _MS, 0))

    async def _rebuild(self) -> None:
        record = [
            list((await self._recent(window.per + self.life + window.slot, window.slot)).items())
            for window in self.windows
        ]
        await self._run("rebuild", 0, json.dumps(record))

    async def _run(self, verb: str, number: int, *rest: str) -> tuple[int, int, int]:
        args: list[str | int] = [verb, number, self.life // _MS, self._shape, *rest]
        return cast(tuple[int, int, int], await self._script(keys=self._keys, args=args))


_LUA = resources.files("marketing_pipeline.delivery").joinpath("gate.lua").read_text("utf-8")
