"""Makes a restored or copied log one that may send."""

import asyncio

import psycopg
from redis.asyncio import Redis
from rich.console import Console

from marketing_pipeline.delivery import high_water
from marketing_pipeline.delivery.assembly import assemble, marks
from marketing_pipeline.event_log.installation import Adoption
from marketing_pipeline.event_log.location import locate
from marketing_pipeline.settings import Settings


def adopt(console: Console, used: Settings, why: str) -> None:
    """Adopt the log, and say how much of it is in doubt now.

    Raises:
        StillAtWork: a delivery run is awake.
    """
    destinations = assemble(used).destinations.values()
    settle_delay = max(one.provider.contract.settle_delay for one in destinations)
    servers = locate(used)

    async def adopted() -> Adoption:
        async with (
            await psycopg.AsyncConnection.connect(servers.database_url, autocommit=True) as conn,
            Redis.from_url(servers.redis_url, socket_timeout=5) as redis,
        ):
            return await high_water.adopt(conn, marks(used), redis, why, settle_delay)

    adoption = asyncio.run(adopted())
    console.print(
        f"the log is {adoption.identity} now; {adoption.doubtful:,} effects were due and are in "
        f"doubt: in {settle_delay} they are looked up or asked for again under their keys"
    )
