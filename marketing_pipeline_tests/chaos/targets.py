"""What an engine talks to, and how its proxy reaches it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from psycopg.conninfo import conninfo_to_dict

from marketing_pipeline_tests.chaos import framing


@dataclass(frozen=True, slots=True)
class Target:
    """Where a proxy leads, and how messages end there."""

    name: str
    connect: Callable[[], "asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]]"]
    request: framing.Made
    answer: framing.Made


def postgres(database_url: str) -> Target:
    server = conninfo_to_dict(database_url)
    host, port = str(server["host"]), int(server.get("port") or 5432)
    path = f"{host}/.s.PGSQL.{port}" if host.startswith("/") else None
    return Target(
        "postgres", _way(path, host, port), framing.postgres_request, framing.postgres_answer
    )


def redis(redis_url: str) -> Target:
    url = urlsplit(redis_url)
    path = url.path if url.scheme == "unix" else None
    connect = _way(path, url.hostname or "127.0.0.1", url.port or 6379)
    return Target("valkey", connect, framing.redis_message, framing.redis_message)


def http(base_url: str) -> Target:
    url = urlsplit(base_url)
    assert url.hostname is not None
    assert url.port is not None
    connect = _way(None, url.hostname, url.port)
    return Target("provider", connect, framing.http_message, framing.http_message)


def postgres_url(database_url: str, port: int) -> str:
    """The same database through the proxy on that port; without TLS, whose bytes it cannot read."""
    server = conninfo_to_dict(database_url)
    user, name = (quote(str(server[part])) for part in ("user", "dbname"))
    return f"postgresql://{user}@127.0.0.1:{port}/{name}?sslmode=disable&gssencmode=disable"


def _way(
    path: str | None, host: str, port: int
) -> Callable[[], "asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]]"]:
    if path is not None:
        return lambda: asyncio.ensure_future(asyncio.open_unix_connection(path))
    return lambda: asyncio.ensure_future(asyncio.open_connection(host, port))
