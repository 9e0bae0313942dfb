"""One trial: the engine under a fault, another one that recovers, and the judge."""

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import psycopg

from marketing_pipeline.delivery import planner
from marketing_pipeline.event_log import ledger
from marketing_pipeline_tests.chaos import judge
from marketing_pipeline_tests.chaos.bench import Batch, Bench, Engine, wait_for
from marketing_pipeline_tests.chaos.judge import Verdict
from marketing_pipeline_tests.chaos.proxy import Action, Fault

PATIENCE = 20.0  # seconds in which everything must have settled, whatever was done to it
GRACE = 0.15  # seconds in which a recovering engine that would send again does so


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a trial came to."""

    struck: str | None  # the message; None: there was none, so it is no trial
    verdict: Verdict
    trouble: str | None  # an engine that did not end well
    messages: int  # until the strike, or the end


def run(bench: Bench, batch: Batch, fault: Fault | None, *, flaw: str | None = None) -> Outcome:
    """Strike the engine once, let it or another one recover, and judge.

    flaw: one of faulty.FAULTS, for a control.
    """
    database = bench.database(batch)
    bench.forget()
    bench.interceptor.arm(fault)
    environment = bench.environment(batch, database)
    try:
        with psycopg.connect(database, autocommit=True) as conn:
            engine = bench.start(environment, flaw)
            bench.interceptor.aim(engine.pid)
            ends = time.monotonic() + PATIENCE
            _until_settled(conn, engine, ends)
            if engine.lives:
                trouble = engine.stop()
            else:
                trouble = _wrong(engine, fault)
            count = bench.interceptor.count
            struck = bench.interceptor.struck_at
            bench.interceptor.disarm()
            if not engine.lives and (struck or not judge.standing(conn).settled):
                trouble = _recover(bench, conn, environment, ends, flaw) or trouble
            _complete(conn)
            verdict = judge.judge(conn, bench.acts(), batch.effects)
    finally:
        bench.drop(database)
    return Outcome(struck=struck, verdict=verdict, trouble=trouble, messages=count)


def _until_settled(conn: psycopg.Connection, engine: Engine, ends: float) -> None:
    """Until nothing is open and every event has been told, or the engine is dead."""

    def over() -> bool:
        standing = judge.standing(conn)
        return (standing.settled and not standing.processing) or not engine.lives

    wait_for(over, ends - time.monotonic())


def _wrong(engine: Engine, fault: Fault | None) -> str | None:
    if fault is not None and fault.action is Action.KILL:
        return None
    return f"it ended with {engine.process.exitcode}: {engine.tail()}"


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
    wait_for(lambda: judge.standing(conn).settled or not engine.lives, ends - time.monotonic())
    return engine.stop()


def _beats(conn: psycopg.Connection) -> int:
    row = conn.execute("select count(*) from heartbeats").fetchone()
    assert row is not None
    return int(row[0])


def _complete(conn: psycopg.Connection) -> None:
    """What the engine's sweep does some seconds later, done now: its clock is an argument."""

    async def sweep() -> None:
        async with await psycopg.AsyncConnection.connect(conn.info.dsn, autocommit=True) as own:
            later = datetime.now(UTC) + timedelta(seconds=10)
            await planner.finish(own, await ledger.stranded(own, later), later)

    standing = judge.standing(conn)
    if standing.settled and standing.processing:
        asyncio.run(sweep())
