"""A control's gate: the token bucket that everybody writes; twice its limit gets through."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any

from redis.asyncio import Redis

from marketing_pipeline.delivery import gate
from marketing_pipeline_tests.chaos import engine_child

_LUA = """
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
local calls, ms = tonumber(ARGV[2]), tonumber(ARGV[3])
local known = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local tokens, at = tonumber(known[1] or calls), tonumber(known[2] or now)
tokens = math.min(calls, tokens + (now - at) * calls / ms)
local granted = math.min(tonumber(ARGV[1]), math.floor(tokens))
redis.call('HSET', KEYS[1], 'tokens', tokens - granted, 'at', now)
return granted
"""


class PlainBucket:
    """A full bucket may be emptied at once, and refills meanwhile: 2n - 1 calls in one window."""

    life = timedelta(seconds=5)
    untold_for = None

    def __init__(
        self, redis: Redis, provider: str, windows: Sequence[gate.Window], *_: Any, **__: Any
    ) -> None:
        self._script = redis.register_script(_LUA)
        self._key = f"bucket:{provider}"
        self._limit = [windows[0].calls, windows[0].per // timedelta(milliseconds=1)]

    async def ask(self, calls: int) -> gate.Grant:
        granted = await self._script(keys=[self._key], args=[calls, *self._limit])
        fields = gate.Grant.__dataclass_fields__
        unused = {name: 0 for name in fields if name not in ("calls", "wait")}
        return gate.Grant(calls=granted, wait=timedelta(milliseconds=20), **unused)

    def note(self, *_: Any) -> None: ...

    def __getattr__(self, name: str) -> Callable[..., Awaitable[None]]:
        """Whatever else a gate is told: a bucket that has no memory of answers does nothing."""

        async def ignore(*_: Any, **__: Any) -> None: ...

        return ignore


def forked(environment: Mapping[str, str], log: str, heeds: Connection) -> None:
    """The engine of this process with such a gate."""
    assert hasattr(gate, "Gate"), "the gate has moved: mend this control"
    gate.Gate = PlainBucket  # type: ignore[assignment,misc]
    engine_child.forked(environment, log, None, heeds)
