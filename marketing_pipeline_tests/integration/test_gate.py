"""The gate's script against a model of it, and its guarantee against whoever counts outside."""

import asyncio
import multiprocessing
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from marketing_pipeline import embedded
from marketing_pipeline.delivery import gate
from marketing_pipeline.delivery.gate import Breaker, Gate, Health, Window
from marketing_pipeline.providers.observed import Observed
from marketing_pipeline_tests import gate_model
from marketing_pipeline_tests.gate_histories import BEGAN, HISTORIES, RULES, Script, Step, Twins

QUIET = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
SECOND = timedelta(seconds=1)
pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@QUIET
@given(history=HISTORIES)
def test_the_script_does_what_its_model_does(valkey: redis.Redis, history: list[Step]) -> None:
    assert Twins(valkey, gate_model.Gate).agree(history)


OPENED: list[Step] = [("ask", 4), *[("answer", 0, "f", [])] * 3, ("ask", 1), ("pass", 1500)]


@pytest.mark.parametrize(
    ("faulty", "history"),
    [
        (gate_model.Bucket, [("ask", 7), ("pass", 700), ("ask", 7)]),
        (
            gate_model.Forgetful,
            [*OPENED, ("ask", 1), ("answer", 1, "h", []), ("ask", 2)],
        ),
        (gate_model.Trusting, [("ask", 4), ("answer", 0, "h", [("rate", 5, 3000)]), ("ask", 9)]),
        (gate_model.Crowding, [*OPENED, ("ask", 3)]),
    ],
)
def test_a_faulty_model_is_told_from_the_script(
    valkey: redis.Redis, faulty: type[gate_model.Gate], history: list[Step]
) -> None:
    assert Twins(valkey, gate_model.Gate).agree(history)
    assert not Twins(valkey, faulty).agree(history)


Use = tuple[int, int, int, int]  # ms that pass before, calls asked for, ms until used, of the life
USES = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 13, 49, 50, 51, 120, 333, 999]),
        st.integers(1, 9),
        st.integers(0, RULES.life),
        st.integers(0, RULES.life),
    ),
    min_size=3,
    max_size=60,
)


def exceeded(ask: Callable[[int, int], int], history: Sequence[Use]) -> bool:
    """Is there a span of a window's length that holds more uses than the window allows?"""
    now, uses = BEGAN + RULES.life, []
    for passes, calls, early, late in history:
        now += passes
        granted = ask(now, calls)
        uses += [now + (early if n % 2 else late) for n in range(granted)]
    uses.sort()
    return any(
        last - first < span
        for calls, span in RULES.windows
        for first, last in zip(uses, uses[calls:], strict=False)
    )


class TokenBucket:
    """The usual one: full at first, refilled steadily."""

    def __init__(self) -> None:
        self.filled, self.content = BEGAN, 7.0

    def ask(self, now: int, calls: int) -> int:
        self.content = min(7.0, self.content + (now - self.filled) * 7 / 1000)
        self.filled = now
        granted = min(calls, int(self.content))
        self.content -= granted
        return granted


@QUIET
@given(history=USES)
def test_no_span_of_a_window_holds_more_uses_than_it_allows(
    valkey: redis.Redis, history: list[Use]
) -> None:
    script = Script(valkey)
    script.rebuild(BEGAN, RULES.life, [])
    try:
        assert not exceeded(lambda now, calls: script.ask(now, calls, [])[0], history)
    finally:
        script.close()


def test_a_token_bucket_would_have_been_caught(valkey: redis.Redis) -> None:
    full_and_full_again = [(0, 7, 0, 0), (999, 7, 0, 0)]
    assert exceeded(TokenBucket().ask, full_and_full_again)
    script = Script(valkey)
    script.rebuild(BEGAN, RULES.life, [])
    assert not exceeded(lambda now, calls: script.ask(now, calls, [])[0], full_and_full_again)
    script.close()


async def no_calls(span: timedelta, slot: timedelta) -> dict[int, int]:  # noqa: ARG001
    return {}


async def no_pause() -> timedelta:
    return timedelta(0)


def gate_of(client: Redis, name: str, *windows: Window, **changed: Any) -> Gate:
    usual: dict[str, Any] = {
        "recent": no_calls,
        "paused_for": no_pause,
        "call_timeout": SECOND,
        "breaker": Breaker(open_for=timedelta(milliseconds=200)),
    }
    return Gate(client, name, windows or (Window(calls=50, per=SECOND),), **usual | changed)


def unique() -> str:
    return f"test_{uuid.uuid4().hex}"


async def until_granted(one: Gate, calls: int) -> gate.Grant:
    ends = time.monotonic() + 10
    while True:
        grant = await one.ask(calls)
        if grant.calls:
            return grant
        assert time.monotonic() < ends
        await asyncio.sleep(max(grant.wait.total_seconds(), 0.001))


async def test_failures_open_the_breaker_and_one_probe_at_a_time_closes_it(
    servers: embedded.Servers,
) -> None:
    async with Redis.from_url(servers.redis_url) as client:
        name = unique()
        ours, theirs = gate_of(client, name), gate_of(client, name)
        grant = await until_granted(ours, 9)
        for _ in range(5):
            ours.note(grant, Health.FAILED)
        await ours.tell()
        assert (await theirs.ask(3)).calls == 0, "what one saw holds back all"
        probe = await until_granted(theirs, 3)
        assert probe.calls == 1
        assert (await ours.ask(3)).calls == 0, "a second probe waits for the first"
        ours.note(grant, Health.HEALTHY)  # of before it opened
        assert (await ours.ask(3)).calls == 0, "a late answer closes nothing"
        theirs.note(probe, Health.HEALTHY)
        await theirs.tell()
        assert (await ours.ask(3)).calls == 3


async def test_a_probe_that_fails_doubles_the_wait_and_one_that_is_unused_does_not(
    servers: embedded.Servers,
) -> None:
    async with Redis.from_url(servers.redis_url) as client:
        one = gate_of(client, unique())
        grant = await until_granted(one, 5)
        for _ in range(5):
            one.note(grant, Health.FAILED)
        unused = await until_granted(one, 1)
        one.note(unused, Health.UNUSED)
        probe = await one.ask(1)
        assert probe.calls == 1, "the next may try at once"
        one.note(probe, Health.FAILED)
        assert timedelta(milliseconds=300) < (await one.ask(1)).wait <= timedelta(milliseconds=400)


async def test_nothing_is_granted_until_the_reset_that_the_provider_told(
    servers: embedded.Servers, valkey: redis.Redis
) -> None:
    async with Redis.from_url(servers.redis_url) as client:
        one = gate_of(client, unique())
        grant = await until_granted(one, 1)
        told = Observed(name="rate", remaining=0, resets_in=timedelta(seconds=2))
        one.note(grant, Health.HEALTHY, [told])
        refused = await one.ask(1)
        assert refused.calls == 0
        assert timedelta(seconds=1.5) < refused.wait <= timedelta(seconds=2)
        assert valkey.get(f"rate_limit:{one.provider}:window") == b"0"
        await gate.lift(client, one.provider)
        assert (await one.ask(1)).calls == 1, "a person may lift it"


async def test_what_the_provider_says_is_left_bounds_grants_less_those_it_may_not_have_seen(
    servers: embedded.Servers, valkey: redis.Redis
) -> None:
    async with Redis.from_url(servers.redis_url) as client:
        one = gate_of(client, unique())
        first = await until_granted(one, 4)  # the answer to one of them says 10 are left
        told = Observed(name="rate", remaining=10, resets_in=timedelta(seconds=20))
        one.note(first, Health.HEALTHY, [told])
        assert (await one.ask(40)).calls == 10 - 3
        assert valkey.get(f"rate_limit:{one.provider}:window") == b"0"
        assert (await one.ask(1)).calls == 0


async def test_a_memory_that_was_lost_is_rebuilt_from_the_record_and_from_durable_pauses(
    servers: embedded.Servers, valkey: redis.Redis
) -> None:
    name, window = unique(), Window(calls=5, per=timedelta(seconds=30))
    paused = timedelta(0)

    async def recent(span: timedelta, slot: timedelta) -> dict[int, int]:
        assert span > window.per
        return {int(datetime.now(UTC).timestamp() * 1000) // (slot // timedelta(milliseconds=1)): 3}

    async def paused_for() -> timedelta:
        return paused

    async with Redis.from_url(servers.redis_url) as client:
        one = gate_of(client, name, window, recent=recent, paused_for=paused_for)
        assert (await until_granted(one, 9)).calls == 5 - 3
        valkey.delete(f"gate:{{{name}}}")
        paused = timedelta(seconds=20)
        ends = time.monotonic() + 10
        while (await one.ask(1)).wait < timedelta(seconds=15):
            assert time.monotonic() < ends, "a flush must not forget a pause"
            await asyncio.sleep(0.1)


async def test_two_that_disagree_about_the_limits_grant_nothing_twice(
    servers: embedded.Servers,
) -> None:
    """A deployment with other limits while an older process is at work."""
    async with Redis.from_url(servers.redis_url) as client:
        name = unique()
        ours, theirs = gate_of(client, name), gate_of(client, name, Window(calls=9, per=SECOND))
        await until_granted(ours, 1)
        assert (await theirs.ask(1)).calls == 0
        assert (await ours.ask(1)).calls == 0, "the other is about to read the record"
        await until_granted(theirs, 1)


def asking(redis_url: str, name: str, seconds: float, said: Any) -> None:
    async def ask() -> list[float]:
        uses = []
        ends = time.monotonic() + seconds
        async with Redis.from_url(redis_url) as client:
            one = gate_of(client, name, Window(calls=20, per=SECOND / 2))
            while time.monotonic() < ends:
                grant = await one.ask(3)
                uses += [time.monotonic()] * grant.calls
                await asyncio.sleep(0.002)
        return uses

    said.put(asyncio.run(ask()))


def test_four_processes_together_are_not_granted_one_too_many(servers: embedded.Servers) -> None:
    name = unique()
    context = multiprocessing.get_context("spawn")
    said = context.Queue()
    children = [
        context.Process(target=asking, args=(servers.redis_url, name, 4.0, said)) for _ in range(4)
    ]
    for child in children:
        child.start()
    uses = sorted(at for _ in children for at in said.get(timeout=60))
    for child in children:
        child.join(30)
    assert len(uses) > 60, "the limit was reached"
    assert all(late - early >= 0.5 for early, late in zip(uses, uses[20:], strict=False))
