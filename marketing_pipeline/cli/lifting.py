"""Ends what holds a provider back, where a person knows better."""

import asyncio

import psycopg
from redis.asyncio import Redis
from rich.console import Console

from marketing_pipeline.cli.refusal import refuse
from marketing_pipeline.delivery import gate
from marketing_pipeline.delivery.assembly import assemble
from marketing_pipeline.event_log import pauses
from marketing_pipeline.event_log.location import locate
from marketing_pipeline.event_log.pauses import Pause
from marketing_pipeline.settings import Settings


def lift(console: Console, used: Settings, provider: str) -> None:
    """End the durable pause first: a gate that is rebuilt meanwhile would bring it back.

    Raises:
        SystemExit: the operator's file has no such provider.
    """
    known = assemble(used).destinations
    if provider not in known:
        refuse(f"no provider {provider!r}; the file has: {', '.join(sorted(known))}")
    servers = locate(used)

    async def lifted() -> Pause | None:
        async with (
            await psycopg.AsyncConnection.connect(servers.database_url, autocommit=True) as conn,
            Redis.from_url(servers.redis_url, socket_timeout=5) as redis,
        ):
            pause = await pauses.lift(conn, provider)
            await gate.lift(redis, provider)
            return pause

    pause = asyncio.run(lifted())
    was = f" (it was paused until {pause.until:%H:%M:%S}: {pause.reason})" if pause else ""
    console.print(f"{provider} may be called again, within its limits{was}", highlight=False)
