"""Looks that begin where the last one ended: what they save, and what they must not lose."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from psycopg import AsyncConnection

from marketing_pipeline import settings
from marketing_pipeline.delivery import planner
from marketing_pipeline.delivery.assembly import assemble
from marketing_pipeline.delivery.frontier import OVERLAP, Frontier, Look
from marketing_pipeline.delivery.lane import Lane
from marketing_pipeline.domain.event import NewEvent
from marketing_pipeline.domain.rules import Priority, Rules
from marketing_pipeline.event_log import intake, ledger
from marketing_pipeline.event_log.planning import FIRST
from marketing_pipeline_tests.patience import until
from marketing_pipeline_tests.pipeline import Sandbox, post, record, run, states, statuses


def due(number: int, ago: timedelta) -> NewEvent:
    return replace(post(number), scheduled_at=datetime.now(UTC) - ago)


@contextmanager
def short(front: Frontier[Any]) -> Iterator[Look[Any]]:
    """As where looks at all there is take long: not now."""
    yield Look(since=front.reached, whole=False, began=time.monotonic())


def dear() -> Callable[[Frontier[Any]], AbstractContextManager[Look[Any]]]:
    """As where a look at all there is takes a twentieth of a second."""
    honest = Frontier.look

    @contextmanager
    def look(front: Frontier[Any]) -> Iterator[Look[Any]]:
        with honest(front) as honestly:
            yield honestly
        if honestly.whole:
            front._whole_at = time.monotonic() + 0.5

    return look


async def plan(conn: AsyncConnection, rules: Rules, fronts: planner.Fronts) -> int:
    now = datetime.now(UTC)
    return (await planner.plan_due(conn, rules, now, fronts=fronts)).events


@pytest.fixture
def rules(used: settings.Settings, database: str) -> Rules:
    configuration = assemble(used).configuration

    async def keep() -> None:
        async with await AsyncConnection.connect(database) as conn:
            await planner.keep(conn, configuration, datetime.now(UTC))

    asyncio.run(keep())
    return configuration.meaning.rules


def test_planning_goes_on_behind_a_full_batch_and_somewhat_before_the_end_of_another(
    database: str, rules: Rules, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = datetime.now(UTC) - timedelta(hours=1)

    async def go() -> None:
        async with await AsyncConnection.connect(database, autocommit=True) as conn:

            async def add(*numbers: int, earlier: timedelta = timedelta()) -> None:
                new = [replace(post(n), scheduled_at=at - earlier) for n in numbers]
                await intake.record(conn, new, datetime.now(UTC))

            await add(*range(planner.BATCH))
            await add(planner.BATCH)
            fronts = planner.Fronts()
            assert await plan(conn, rules, fronts) == planner.BATCH
            with monkeypatch.context() as patched:
                patched.setattr(Frontier, "look", short)
                assert await plan(conn, rules, fronts) == 1, "due with them, and behind them"
                await add(1001, earlier=OVERLAP / 2)
                assert await plan(conn, rules, fronts) == 1, "who wrote it had not committed"
                await add(1002, earlier=OVERLAP * 2)
                assert await plan(conn, rules, fronts) == 0, "known bad: it was dated back"
            assert await plan(conn, rules, planner.Fronts()) == 1

    asyncio.run(go())


def test_a_claim_goes_on_where_the_last_one_ended(database: str, rules: Rules) -> None:
    """What was claimed is passed by; of what comes before, looks at all there is tell."""
    record(database, [due(n, timedelta(minutes=n)) for n in range(1, 7)])

    async def go() -> None:
        async with await AsyncConnection.connect(database, autocommit=True) as conn:
            assert await plan(conn, rules, planner.Fronts()) == 6
            row = await (await conn.execute("select provider from effects limit 1")).fetchone()
            assert row is not None
            [provider] = row

            async def found(since: ledger.Since) -> list[datetime]:
                async with conn.transaction():
                    locked = await ledger.lock_due(conn, provider, 10, since=since)
                assert await ledger.due(conn, provider, 10, since) == (len(locked), False)
                first = await ledger.next_due(conn, provider, since)
                assert first == min((one.due_at for one in locked), default=None)
                return [one.due_at for one in locked]

            times = await found(ledger.ALWAYS)
            assert times == sorted(times)
            for n, time in enumerate(times):
                assert await found([time] * len(Priority)) == times[n:]
            later = [times[-1] + timedelta(microseconds=1)] * len(Priority)
            assert await found(later) == []
            own = [later[0]] * len(Priority)
            own[Priority.NORMAL] = ledger.ALWAYS[0]
            assert await found(own) == times, "each priority has a place of its own"

    asyncio.run(go())


def never_whole(whose: str) -> Callable[[Frontier[Any]], AbstractContextManager[Look[Any]]]:
    """The known-bad variants: planning, or lanes, look no further back than where they came to."""
    honest = Frontier.look

    @contextmanager
    def look(front: Frontier[Any]) -> Iterator[Look[Any]]:
        planning = front.first == FIRST
        if planning is (whose == "planning"):
            yield Look(since=front.reached, whole=True, began=time.monotonic())
        else:
            with honest(front) as honestly:
                yield honestly

    return look


@pytest.mark.parametrize(
    ("variant", "left"),
    [
        ("careful", {"SENT": 7}),
        ("planning", {"SENT": 6}),
        ("lanes", {"SENT": 6, "PLANNED": 1}),
    ],
    ids=["careful", "known-bad planning", "known-bad lanes"],
)
def test_what_comes_to_lie_before_the_place_reached_is_delivered(
    used: settings.Settings,
    database: str,
    sandbox: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    variant: str,
    left: dict[str, int],
) -> None:
    """Dated back while a run is awake, and left by planning for the lane to find."""

    async def nothing_at_once(*_: object) -> None:
        return None

    monkeypatch.setattr(Frontier, "look", dear() if variant == "careful" else never_whole(variant))
    monkeypatch.setattr(Lane, "reserve", nothing_at_once)
    engine = threading.Thread(target=run, args=(used,), kwargs={"linger": 3})
    record(database, [post(n) for n in range(5)])
    engine.start()
    until(lambda: states(database) == {"SENT": 5})
    record(database, [due(5, timedelta(hours=1)), post(6)])
    engine.join(60)
    assert not engine.is_alive()
    assert states(database) == left
    assert set(sandbox.acts().values()) == {1}
    assert statuses(database).get("PENDING", 0) == (variant == "planning")
