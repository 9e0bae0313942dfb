"""One trial: the engine under a fault, another one that recovers, and the judge."""

import asyncio
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import psycopg

from marketing_pipeline.delivery import settling
from marketing_pipeline.event_log import ledger
from marketing_pipeline_tests.chaos import judge
from marketing_pipeline_tests.chaos.bench import Batch, Bench, wait_for
from marketing_pipeline_tests.chaos.engine import Engine
from marketing_pipeline_tests.chaos.judge import Verdict
from marketing_pipeline_tests.chaos.proxy import Fault

PATIENCE = 30.0  # seconds in which everything must have settled, whatever was done to it
GRACE = 0.15  # seconds in which a recovering engine that would send again does so
STRIKE = 3.0  # seconds within which an engine says all that it says
FROZEN = 1.6  # seconds: longer than any lease and settle delay of the batches
OVERDUE = 0.5  # seconds in which a thawed engine that would send again does so


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a trial came to."""

    struck: bool  # False: there was no such message, so it is no trial
    verdict: Verdict
    wrongly_held: tuple[
        str, ...
    ]  # UNKNOWN, and the provider could be asked, or had not been called
    crash: str | None  # how the engine ended where it did not bear what was done to it
    trouble: str | None  # an engine that did not end, or a recovering one that crashed
    messages: tuple[str, ...]  # the names of all that was said by the engine's end


def run(
    bench: Bench,
    batch: Batch,
    fault: Fault | None,
    *,
    flaw: str | None = None,
    before: Callable[[], None] = lambda: None,
    meanwhile: Callable[[], None] = lambda: None,
) -> Outcome:
    """Strike the engine once, let it or another one recover, and judge.

    flaw: one of faulty.VARIATIONS, for a control. before: what to change about the providers.
    meanwhile: what happens while no engine lives.
    """
    database, environment = _ready(bench, batch, fault)
    before()
    with psycopg.connect(database, autocommit=True) as conn:
        ends = time.monotonic() + PATIENCE
        engine = bench.start(environment, flaw or batch.variation)
        bench.interceptor.aim(engine.pid)
        _until_settled(conn, engine, ends)
        stuck = engine.stop()
        messages, struck = tuple(bench.interceptor.seen), bench.interceptor.struck.is_set()
        bench.interceptor.disarm()
        crash = engine.crash()
        if engine.killed or crash or not judge.standing(conn).settled:
            meanwhile()
            stuck = _recover(bench, conn, environment, ends, flaw or batch.variation) or stuck
        bench.interceptor.arrived()
        _complete(conn)
        verdict = judge.judge(conn, bench.acts(), batch.effects)
        wrongly_held = _wrongly_held(bench, conn, batch, verdict)
    return Outcome(
        struck=struck,
        verdict=verdict,
        wrongly_held=wrongly_held,
        crash=crash,
        trouble=stuck,
        messages=messages,
    )


def freeze(bench: Bench, batch: Batch, fault: Fault) -> Outcome:
    """Freeze the engine until another one has done what it can, thaw it, and judge."""
    database, environment = _ready(bench, batch, fault)
    with psycopg.connect(database, autocommit=True) as conn:
        ends = time.monotonic() + PATIENCE
        frozen = bench.start(environment, batch.variation)
        bench.interceptor.aim(frozen.pid)
        struck = bench.interceptor.struck.wait(STRIKE)
        other = bench.start(environment, batch.variation)
        time.sleep(FROZEN)
        frozen.signal(signal.SIGCONT)
        _until_settled(conn, other, ends)
        time.sleep(OVERDUE)
        messages = tuple(bench.interceptor.seen)
        # Nobody cut anything off: neither of the two has a reason to end with an error.
        trouble = [one.stop() or one.crash() for one in (frozen, other)]
        _complete(conn)
        verdict = judge.judge(conn, bench.acts(), batch.effects)
        wrongly_held = _wrongly_held(bench, conn, batch, verdict)
    return Outcome(
        struck=struck,
        verdict=verdict,
        wrongly_held=wrongly_held,
        crash=None,
        trouble=trouble[0] or trouble[1],
        messages=messages,
    )


def _wrongly_held(
    bench: Bench, conn: psycopg.Connection, batch: Batch, verdict: Verdict
) -> tuple[str, ...]:
    if not batch.holds:
        return verdict.unknown
    return tuple(judge.untouched(conn, bench.interceptor.struck_at))


def _ready(bench: Bench, batch: Batch, fault: Fault | None) -> tuple[str, dict[str, str]]:
    """A log with work in it, an empty record, and the strike waiting; URL and environment."""
    database = bench.database(batch)
    bench.forget()
    bench.interceptor.arm(fault)
    return database, bench.environment(batch, database)


def _until_settled(conn: psycopg.Connection, engine: Engine, ends: float) -> None:
    """Until nothing is open, or the engine is dead; events get a moment to be told, not more.

    An engine that lost its connection just then leaves that to its sweep: see `_complete`.
    """
    wait_for(lambda: judge.standing(conn).settled or not engine.lives, ends - time.monotonic())
    wait_for(lambda: not judge.standing(conn).processing or not engine.lives, GRACE)


def _recover(
    bench: Bench,
    conn: psycopg.Connection,
    environment: dict[str, str],
    ends: float,
    flaw: str | None,
) -> str | None:
    """Another engine takes over; it gets time to do too much even where nothing is left to do."""
    before = _beats(conn)
    engine = bench.start(environment, flaw)
    wait_for(lambda: _beats(conn) > before or not engine.lives, ends - time.monotonic())
    time.sleep(GRACE)
    settled = wait_for(
        lambda: judge.standing(conn).settled or not engine.lives, ends - time.monotonic()
    )
    last = ", ".join(bench.interceptor.seen[-8:])
    late = None if settled else f"not settled in {PATIENCE} s; last said: {last}; {engine.tail()}"
    return engine.stop() or engine.crash() or late


def _beats(conn: psycopg.Connection) -> int:
    row = conn.execute("select count(*) from heartbeats").fetchone()
    assert row is not None
    return int(row[0])


def _complete(conn: psycopg.Connection) -> None:
    """What the engine's sweep does some seconds later, done now: its clock is an argument."""

    async def sweep() -> None:
        async with await psycopg.AsyncConnection.connect(conn.info.dsn, autocommit=True) as own:
            later = datetime.now(UTC) + timedelta(seconds=10)
            await settling.finish(own, await ledger.stranded(own, later), later)

    standing = judge.standing(conn)
    if standing.settled and standing.processing:
        asyncio.run(sweep())
