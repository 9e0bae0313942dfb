"""How many calls a provider may take now: one answer for all processes together."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from importlib import resources
from typing import Any, cast

from redis.asyncio import Redis

from marketing_pipeline import telemetry
from marketing_pipeline.providers.observed import Observed

SLOTS = 20  # a window's; gate.lua uses the same
LATEST = timedelta(milliseconds=100)  # until what calls came to is told, where nobody asks
FLIGHT = timedelta(milliseconds=100)  # by which one call may be longer on its way than another
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
class Breaker:
    """When a provider is left alone: only what it does not answer, or answers unclearly, counts."""

    failures: int = 5  # in a row
    error_share: float = 0.02  # more than this, of at least `at_least` calls within `over`
    over: timedelta = timedelta(minutes=5)
    at_least: int = 100
    open_for: timedelta = timedelta(seconds=30)  # before the first probe; doubles as probes fail
    longest: timedelta = timedelta(minutes=5)  # and no further than this


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """Leave for `calls` calls, each to be written before `life` has passed."""

    calls: int
    wait: timedelta  # where there is none: how long until it is worth asking again
    made_at: int  # milliseconds of the gate's clock
    generation: int  # of the breaker


class Health(StrEnum):
    """What a call says about its provider; gate.lua reads the values."""

    HEALTHY = "h"  # it answered, whatever it said
    FAILED = "f"  # unreached, or nobody knows
    UNUSED = "u"  # the grant ran out before the write


RecentCalls = Callable[[timedelta, timedelta], Awaitable[dict[int, int]]]
"""Calls on record of the last span, by slot of that length since the epoch."""
PausedFor = Callable[[], Awaitable[timedelta]]
"""How much longer a durable pause lasts; zero where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    granted: int  # -1: the state is lost
    wait: timedelta
    now: int
    generation: int
    breaker: str
    until: int


class Gate:
    """The limits and the breaker of one provider.

    A grant is good for `life`: a call that could not be written by then must not be made, and asks
    again. What calls came to is told by the next `ask`, so that it costs no round trip; `tell` is
    for when nobody asks. Where Valkey has lost its memory (a flush, a restart), the record of
    attempts and durable pauses rebuild it before the first grant. Where Valkey is away, asking
    raises `redis.RedisError`, and nothing is called.
    """

    def __init__(
        self,
        redis: Redis,
        provider: str,
        windows: Sequence[Window],
        *,
        recent: RecentCalls,
        paused_for: PausedFor,
        call_timeout: timedelta,
        breaker: Breaker,
    ) -> None:
        self.provider = provider
        self.windows = tuple(windows)
        shortest = min(window.per for window in windows)
        self.life = min(_LONGEST_LIFE, max(shortest / 4, _SHORTEST_LIFE))
        self._counted = self.life + FLIGHT
        self._script = redis.register_script(SCRIPT)
        self._keys = _keys(provider)
        self._shape = shape(self.windows)
        self._rules = rules(breaker, life=self._counted, call_timeout=call_timeout)
        self._recent = recent
        self._paused_for = paused_for
        self._telling = asyncio.Lock()  # what is untold is told once
        self._untold: list[list[Any]] = []
        self._oldest = 0.0  # monotonic; of what is untold
        self._breaker = "closed"
        self._recalled = False  # have durable pauses been asked for?

    @property
    def untold_for(self) -> timedelta | None:
        """How long something has been waiting to be told; None: nothing has."""
        return timedelta(seconds=time.monotonic() - self._oldest) if self._untold else None

    def note(self, grant: Grant, health: Health, observed: Sequence[Observed] = ()) -> None:
        """Keep what a call came to, in the order of the answers, until the gate is told."""
        if not self._untold:
            self._oldest = time.monotonic()
        told = [[one.name, one.remaining, one.resets_in // _MS] for one in observed]
        self._untold.append([grant.generation, grant.made_at, health, told])

    async def ask(self, calls: int) -> Grant:
        """Ask leave for up to so many calls; the first time, durable pauses are looked up."""
        if not self._recalled:
            await self._run("pause", await self._paused())
            self._recalled = True
        answer = await self._report("grant", calls)
        if answer.granted < 0 and not answer.wait:
            await self._rebuild(lost_at=answer.generation)
            answer = await self._report("grant", calls)
        return Grant(
            calls=max(answer.granted, 0),
            wait=answer.wait,
            made_at=answer.now,
            generation=answer.generation,
        )

    async def tell(self) -> None:
        """Tell what was noted, without asking for anything."""
        if self._untold:
            await self._report("report", 0)

    async def give_back(self, grant: Grant, calls: int) -> None:
        """Return what was granted and certainly not used."""
        await self._run("give_back", calls, grant.made_at, grant.generation)

    async def pause(self, until: datetime, now: datetime) -> None:
        """Grant nothing until then; a later end already set stands."""
        await self._run("pause", max((until - now) // _MS, 0))

    async def _report(self, verb: str, calls: int) -> _Answer:
        """An answer of Valkey that was lost repeats the reports: the breaker may open early."""
        async with self._telling:
            told = len(self._untold)
            answer = await self._run(verb, calls, json.dumps(self._untold))
            if answer.granted >= 0:
                del self._untold[:told]
                self._oldest = time.monotonic()
                self._announce(answer)
            return answer

    def _announce(self, answer: _Answer) -> None:
        """Each process says once what it hears; the breaker is everybody's."""
        before, self._breaker = self._breaker, answer.breaker
        if answer.breaker == "open" and before != "open":
            opened = datetime.fromtimestamp(answer.until / 1000, UTC)
            telemetry.emit("breaker_opened", provider=self.provider, until=opened)
        elif answer.breaker == "closed" and before != "closed":
            telemetry.emit("breaker_closed", provider=self.provider)

    async def _rebuild(self, *, lost_at: int) -> None:
        record = [
            list(
                (await self._recent(window.per + self._counted + window.slot, window.slot)).items()
            )
            for window in self.windows
        ]
        await self._run("rebuild", lost_at, json.dumps(record), await self._paused())
        telemetry.emit("gate_restored", provider=self.provider)

    async def _paused(self) -> int:
        return max(await self._paused_for() // _MS, 0)

    async def _run(self, verb: str, number: int, *rest: str | int) -> _Answer:
        args: list[str | int] = [verb, number, self._shape, self._rules, *rest]
        return _read(await self._script(keys=self._keys, args=args))


async def lift(redis: Redis, provider: str) -> None:
    """Grant again what a pause or the provider's own word holds back: a person knows better.

    Its own limits still hold. An open breaker tries a probe at once. The durable pause must be gone
    before, or the next rebuild brings it back.
    """
    script = redis.register_script(SCRIPT)
    await script(keys=_keys(provider), args=["lift", 0, "[]", "{}"])


def shape(windows: Sequence[Window]) -> str:
    """Windows as gate.lua wants them; other windows than the state's make it begin anew."""
    return json.dumps([[window.calls, window.per // _MS] for window in windows])


def rules(breaker: Breaker, *, life: timedelta, call_timeout: timedelta) -> str:
    """The rest of what gate.lua wants to know, all spans in milliseconds."""
    return json.dumps(
        {
            "life": life // _MS,
            "lease": (life + call_timeout) // _MS,
            "failures": breaker.failures,
            "share": breaker.error_share,
            "over": breaker.over // _MS,
            "at_least": breaker.at_least,
            "open_for": breaker.open_for // _MS,
            "longest": max(breaker.longest, breaker.open_for) // _MS,
        }
    )


def _keys(provider: str) -> list[str]:
    return [f"gate:{{{provider}}}", f"rate_limit:{provider}:window"]


def _read(answer: object) -> _Answer:
    granted, wait, now, generation, breaker, until = cast(
        tuple[int, int, int, int, bytes, int], answer
    )
    return _Answer(
        granted=granted,
        wait=wait * _MS,
        now=now,
        generation=generation,
        breaker=breaker.decode(),
        until=until,
    )


SCRIPT = resources.files("marketing_pipeline.delivery").joinpath("gate.lua").read_text("utf-8")
