"""Connects a delivery run to all it needs, once it is sure that its log may send."""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import psycopg
from psycopg_pool import AsyncConnectionPool
from redis.asyncio import Redis
from redis.exceptions import RedisError

from marketing_pipeline import telemetry
from marketing_pipeline.delivery import connections, high_water, planner
from marketing_pipeline.delivery.assembly import Assembly
from marketing_pipeline.delivery.contents import Contents
from marketing_pipeline.delivery.eager import Eager
from marketing_pipeline.delivery.engine import Engine
from marketing_pipeline.delivery.high_water import HighWater
from marketing_pipeline.delivery.lane import Lane
from marketing_pipeline.delivery.serving import Service
from marketing_pipeline.delivery.settling import AGAIN, AWAY, Settler
from marketing_pipeline.event_log import pauses
from marketing_pipeline.event_log.pauses import Pause

PATIENCE = 60.0  # seconds for a server that is away when a run starts
UNSET = timedelta(minutes=1)  # a provider without its secrets is looked at again after this


@asynccontextmanager
async def engine(
    assembly: Assembly,
    database_url: str,
    redis_url: str,
    stop: threading.Event,
    *,
    run_id: str | None,
) -> AsyncIterator[Engine]:
    """Connect everything that a run needs, and close it afterwards; `stop` ends a vain start.

    Raises:
        ReadOnly: the log was restored or copied, and nobody has adopted it.
    """
    most = len(assembly.destinations) + 5
    async with (
        AsyncConnectionPool(
            database_url, min_size=2, max_size=most, kwargs={"autocommit": True}, open=False
        ) as pool,
        connections.redis(redis_url) as redis,
    ):
        mark = await _begin(assembly, pool, redis, stop)
        settler, contents, stopping = Settler(pool), Contents(), asyncio.Event()
        services = [
            Service(
                destination=one,
                pool=pool,
                gate=connections.gate_of(redis, pool, one),
                transport=connections.transport(one),
                settler=settler,
            )
            for one in assembly.destinations.values()
            if not one.missing
        ]
        lanes = [
            Lane(service=one, high_water=mark, contents=contents, stopping=stopping)
            for one in services
        ]
        try:
            yield Engine(
                assembly=assembly,
                pool=pool,
                database_url=database_url,
                lanes=lanes,
                eager=Eager(
                    lanes={one.name: one for one in lanes},
                    contents=contents,
                    high_water=mark,
                ),
                settler=settler,
                stopping=stopping,
                run_id=run_id,
            )
        finally:
            for lane in lanes:
                await lane.abandon()
            for one in services:
                await one.transport.aclose()


async def _begin(
    assembly: Assembly, pool: AsyncConnectionPool, redis: Redis, stop: threading.Event
) -> HighWater:
    """What has to be settled before the first call; a server that is away is given a minute."""
    ends = time.monotonic() + PATIENCE
    while True:
        try:
            async with pool.connection() as conn:
                mark = await high_water.open_mark(conn, assembly.marks, redis)
                now = datetime.now(UTC)
                await planner.use(conn, assembly.configuration, now)
                await _report_unset(conn, assembly, now)
                return mark
        except high_water.ReadOnly as error:
            telemetry.emit("restore_detected", level=logging.ERROR, reason=str(error))
            raise
        except (RedisError, *AWAY) as error:
            if stop.is_set() or time.monotonic() > ends:
                raise
            lost: telemetry.LogEvent = "database_lost" if isinstance(error, AWAY) else "gate_lost"
            telemetry.emit(lost, reason=str(error))
            await asyncio.sleep(AGAIN)


async def _report_unset(conn: psycopg.AsyncConnection, assembly: Assembly, now: datetime) -> None:
    """A provider without its secrets is paused where people look, and nothing of it fails."""
    for name, destination in assembly.destinations.items():
        if destination.missing:
            reason = f"{', '.join(destination.missing)} is not set in the environment"
            pause = Pause(provider=name, until=now + UNSET, reason=reason)
            await pauses.keep(conn, pause, now)
            telemetry.emit("provider_blocked", provider=name, until=pause.until, reason=reason)
