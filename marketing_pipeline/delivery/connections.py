"""What a delivery run talks through: Valkey, a provider's gate and its transport."""

from datetime import UTC, datetime, timedelta

from psycopg_pool import AsyncConnectionPool
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from marketing_pipeline.delivery import gate
from marketing_pipeline.delivery.assembly import Destination
from marketing_pipeline.event_log import ledger, pauses
from marketing_pipeline.providers.transport import Limits, Transport


def transport(destination: Destination) -> Transport:
    timeout = destination.entry.call_timeout
    return Transport(
        Limits(
            connections=destination.entry.connections,
            connect=min(Limits().connect, timeout),
            write=timeout,
            read=timeout,
            call=timeout,
        )
    )


def redis(url: str) -> Redis:
    """It repeats nothing by itself: lanes do, and three tries of two seconds are too slow."""
    once = Retry(NoBackoff(), 0)
    return Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2, retry=once)


def gate_of(client: Redis, pool: AsyncConnectionPool, destination: Destination) -> gate.Gate:
    name = destination.provider.name

    async def recent(span: timedelta, slot: timedelta) -> dict[int, int]:
        async with pool.connection() as conn:
            return await ledger.recent_calls(conn, name, span, slot)

    async def paused_for() -> timedelta:
        async with pool.connection() as conn:
            ends = [one.until for one in await pauses.standing(conn) if one.provider == name]
        now = datetime.now(UTC)
        return max(ends, default=now) - now

    entry = destination.entry
    return gate.Gate(
        client,
        name,
        [gate.Window(calls=one.calls, per=one.per) for one in entry.limits],
        recent=recent,
        paused_for=paused_for,
        call_timeout=entry.call_timeout,
        breaker=gate.Breaker(**entry.breaker.model_dump()),
    )
