"""Real servers for whoever asks: a database from a template for each test, a Valkey of its own."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
import redis

from marketing_pipeline import embedded, settings
from marketing_pipeline.domain.effect import TRANSITIONS
from marketing_pipeline.event_log import schema
from marketing_pipeline_tests.pipeline import CHECKOUT, Sandbox

# In the background of a script SIGINT is ignored, and would be by all that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


def _named(url: str, database: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{database}"))


@pytest.fixture(scope="session")
def servers() -> embedded.Servers:
    """The embedded servers, shared by all test workers, apart from the checkout's own."""
    state = Path(tempfile.gettempdir()) / f"marketing-tests-{os.getuid()}"
    return embedded.attach(state)


def refuse_other_transitions(conn: psycopg.Connection) -> None:
    """Hold every test that touches an effect to the state machine as it is drawn."""
    drawn = ", ".join(f"('{old}', '{new}')" for old, new in TRANSITIONS)
    conn.execute(
        f"""create function refuse_other_transitions() returns trigger language plpgsql as $$
            begin
                if old.state <> new.state and (old.state, new.state) not in ({drawn}) then
                    raise exception 'no such transition: % -> %', old.state, new.state;
                end if;
                return new;
            end $$;
            create trigger drawn_transitions before update of state on effects
                for each row execute function refuse_other_transitions()"""
    )


@pytest.fixture(scope="session")
def template(servers: embedded.Servers) -> Iterator[str]:
    """A migrated database of this worker that tests copy."""
    name = f"template_{uuid.uuid4().hex}"
    with psycopg.connect(servers.database_url, autocommit=True) as admin:
        admin.execute(f'create database "{name}"')
        schema.migrate(_named(servers.database_url, name))
        with psycopg.connect(_named(servers.database_url, name), autocommit=True) as conn:
            refuse_other_transitions(conn)
        yield name
        admin.execute(f'drop database "{name}" with (force)')


@pytest.fixture
def database(servers: embedded.Servers, template: str) -> Iterator[str]:
    """The URL of a fresh database at the newest schema."""
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(servers.database_url, autocommit=True) as admin:
        admin.execute(f'create database "{name}" template "{template}"')
        url = _named(servers.database_url, name)
        with psycopg.connect(url, autocommit=True) as conn:  # a copy is another installation
            conn.execute("update installation set identity = gen_random_uuid()")
        yield url
        admin.execute(f'drop database "{name}" with (force)')


@pytest.fixture
def valkey(servers: embedded.Servers) -> Iterator[redis.Redis]:
    """The shared Valkey; tests keep apart by naming their providers uniquely."""
    with redis.Redis.from_url(servers.redis_url) as client:
        yield client


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    record = tmp_path / "sandbox.sqlite"
    command = [sys.executable, "-m", "marketing_pipeline.sandbox", "--port", "0"]
    with subprocess.Popen(
        [*command, "--record", str(record)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield Sandbox(process.stdout.readline().split()[1], record)
        process.terminate()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An operator's folder whose providers have names of their own: the gate is shared."""
    shutil.copytree(CHECKOUT / "campaigns", tmp_path / "campaigns")
    file = tmp_path / "campaigns" / "demo.yaml"
    suffix = uuid.uuid4().hex[:8]
    text = file.read_text()
    for name in ("hubspot", "resend", "mailgun", "site"):
        text = re.sub(rf"^  {name}:", f"  {name}_{suffix}:", text, flags=re.MULTILINE)
        text = re.sub(rf"provider: {name}\b", f"provider: {name}_{suffix}", text)
    file.write_text(text)
    return tmp_path


@pytest.fixture
def used(
    home: Path, database: str, servers: embedded.Servers, sandbox: Sandbox
) -> settings.Settings:
    return settings.read(
        {
            "MARKETING_HOME": str(home),
            "MARKETING_CAMPAIGNS": "campaigns/demo.yaml",
            "MARKETING_DATABASE_URL": database,
            "MARKETING_REDIS_URL": servers.redis_url,
            "DAGSTER_POSTGRES_URL": servers.dagster_url,
            "MARKETING_SANDBOX_URL": sandbox.url,
        }
    )
