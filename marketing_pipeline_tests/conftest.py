"""Real servers for whoever asks: a database from a template for each test, a Valkey of its own."""

import os
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
import redis

from marketing_pipeline import embedded
from marketing_pipeline.event_log import schema


def _named(url: str, database: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{database}"))


@pytest.fixture(scope="session")
def servers() -> embedded.Servers:
    """The embedded servers, shared by all test workers, apart from the checkout's own."""
    state = Path(tempfile.gettempdir()) / f"marketing-tests-{os.getuid()}"
    return embedded.attach(state)


@pytest.fixture(scope="session")
def template(servers: embedded.Servers) -> Iterator[str]:
    """A migrated database of this worker that tests copy."""
    name = f"template_{uuid.uuid4().hex}"
    with psycopg.connect(servers.database_url, autocommit=True) as admin:
        admin.execute(f'create database "{name}"')
        schema.migrate(_named(servers.database_url, name))
        yield name
        admin.execute(f'drop database "{name}" with (force)')


@pytest.fixture
def database(servers: embedded.Servers, template: str) -> Iterator[str]:
    """The URL of a fresh database at the newest schema."""
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(servers.database_url, autocommit=True) as admin:
        admin.execute(f'create database "{name}" template "{template}"')
        yield _named(servers.database_url, name)
        admin.execute(f'drop database "{name}" with (force)')


@pytest.fixture
def valkey(servers: embedded.Servers) -> Iterator[redis.Redis]:
    """The shared Valkey; tests keep apart by naming their providers uniquely."""
    with redis.Redis.from_url(servers.redis_url) as client:
        yield client
