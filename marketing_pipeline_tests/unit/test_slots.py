"""How much may be claimed ahead of the connections that calls need."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from marketing_pipeline.delivery.slots import Slots

CONNECTIONS = 4


def after(*turns: list[Coroutine[Any, Any, None]], brief: float = 0.05) -> Slots:
    """The slots once calls have ended: those of a turn at once, one turn after the other."""

    async def make() -> Slots:
        slots = Slots(connections=CONNECTIONS, brief=brief, ended=asyncio.Event())
        for calls in turns:
            for one in calls:
                slots.call(one)
            while slots.taken:
                slots.ended.clear()
                await slots.ended.wait()
        return slots

    return asyncio.run(make())


def at_once() -> Coroutine[Any, Any, None]:
    return asyncio.sleep(0)


def slow() -> Coroutine[Any, Any, None]:
    return asyncio.sleep(0.1)


@pytest.mark.parametrize("kind", ["call", "beside"])
def test_nothing_is_left_of_what_is_abandoned_nor_of_what_it_began_at_its_end(kind: str) -> None:
    """A claim that is cancelled gives its leave back, by a task of its own."""

    async def make() -> list[str]:
        slots = Slots(connections=CONNECTIONS, brief=0.05, ended=asyncio.Event())
        ended: list[str] = []

        async def giving_back() -> None:
            try:
                await asyncio.sleep(60)
            finally:
                ended.append("given back")

        async def claiming() -> None:
            try:
                await asyncio.sleep(60)
            finally:
                slots.beside(giving_back())
                await asyncio.sleep(0)
                ended.append("claimed")

        (slots.call if kind == "call" else slots.beside)(claiming())
        await asyncio.sleep(0)
        await slots.abandon()
        return ended

    assert sorted(asyncio.run(make())) == ["claimed", "given back"]


def test_before_anything_is_known_there_is_one_for_each_connection() -> None:
    assert after().most == after().free == CONNECTIONS


def test_where_calls_are_brief_the_next_ones_are_claimed_meanwhile() -> None:
    slots = after([at_once()])
    assert (slots.most, slots.half) == (2 * CONNECTIONS, CONNECTIONS)


def test_where_calls_take_long_none_waits_for_a_connection() -> None:
    """The known-bad case of the test above."""
    assert after([slow()]).most == CONNECTIONS


def test_one_slow_call_is_not_yet_a_slow_provider() -> None:
    assert after([at_once()], [slow()]).most == 2 * CONNECTIONS
    assert after([at_once()], [slow() for _ in range(20)]).most == CONNECTIONS


def test_a_call_that_raised_tells_how_long_it_took_and_is_seen() -> None:
    seen: list[object] = []

    async def fails() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, what: seen.append(what["exception"]))
        await slow()
        raise LookupError("a bug")

    assert after([fails()]).most == CONNECTIONS
    assert [type(one) for one in seen] == [LookupError]


@pytest.mark.parametrize(("kept", "free"), [(1, 3), (CONNECTIONS, 0), (CONNECTIONS + 1, -1)])
def test_what_is_kept_is_not_free(kept: int, free: int) -> None:
    slots = after()
    slots.kept += kept
    assert (slots.taken, slots.free, slots.busy) == (kept, free, True)
