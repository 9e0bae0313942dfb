"""What assets and ops work with; nothing is read, connected or started before it is used."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from functools import cache
from typing import TypeVar

from dagster import ConfigurableResource
from psycopg import AsyncConnection
from redis.asyncio import Redis

from marketing_pipeline import settings
from marketing_pipeline.delivery import assembly, high_water
from marketing_pipeline.delivery.assembly import Assembly
from marketing_pipeline.embedded import Servers
from marketing_pipeline.event_log.location import locate

T = TypeVar("T")


@cache
def _settings() -> settings.Settings:
    return settings.read(os.environ)


@cache
def _servers() -> Servers:
    return locate(_settings())


class EventLog(ConfigurableResource[None]):
    """The log's database: the embedded one unless MARKETING_DATABASE_URL says otherwise."""

    def url(self) -> str:
        return _servers().database_url

    def ask(self, question: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Run a query function on a connection of its own, in autocommit mode."""

        async def asked() -> T:
            async with await AsyncConnection.connect(self.url(), autocommit=True) as conn:
                return await question(conn)

        return asyncio.run(asked())


class SharedRateLimit(ConfigurableResource[None]):
    """The gate that all processes share: embedded Valkey unless MARKETING_REDIS_URL is set."""

    def url(self) -> str:
        return _servers().redis_url

    def refusal(self, event_log: EventLog, used: Assembly) -> str | None:
        """Why nothing may be sent from this log: it was restored or copied; None where it may."""

        async def asked(conn: AsyncConnection) -> str | None:
            async with Redis.from_url(self.url(), socket_timeout=2) as redis:
                return await high_water.refusal(conn, used.marks, redis)

        return event_log.ask(asked)


class Providers(ConfigurableResource[None]):
    """The operator's file with its providers, read anew for each run."""

    def assembly(self) -> Assembly:
        return assembly.assemble(_settings())
