"""The command line as a program that is run: what it prints, and how it ends."""

import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
import redis

from marketing_pipeline import embedded
from marketing_pipeline.event_log import schema
from marketing_pipeline_tests.pipeline import CHECKOUT, lead, record

Ran = subprocess.CompletedProcess[str]
Cli = Callable[..., Ran]
NOBODY = "127.0.0.1:1"  # where nobody listens


@pytest.fixture
def cli(database: str, servers: embedded.Servers, tmp_path: Path) -> Cli:
    """Runs the command against the test's own servers; keyword arguments change the environment."""
    usual = {
        "PATH": os.environ["PATH"],
        "DAGSTER_HOME": str(CHECKOUT),
        "MARKETING_STATE": str(tmp_path / "state"),
        "MARKETING_DATABASE_URL": database,
        "MARKETING_REDIS_URL": servers.redis_url,
        "DAGSTER_POSTGRES_URL": servers.dagster_url,
    }

    def run(*words: str, **env: str) -> Ran:
        command = [sys.executable, "-m", "marketing_pipeline", *words]
        return subprocess.run(
            command, env=usual | env, capture_output=True, text=True, timeout=60, check=False
        )

    return run


def is_one_line(ran: Ran) -> bool:
    """Said in one line on standard error, with exit code 2 and no traceback."""
    return (
        ran.returncode == 2
        and not ran.stdout
        and bool(re.fullmatch(r"(marketing-pipeline|keys): .+\n", ran.stderr))
    )


def test_a_key_is_shown_once_listed_without_its_secret_and_revoked(cli: Cli) -> None:
    made = cli("keys", "create", "site").stdout
    assert re.fullmatch(r"\S+\n", made), "the bare key, for a shell's variable"
    as_json, as_text = cli("keys", "list", "--json"), cli("keys", "list")
    (one,) = json.loads(as_json.stdout)
    assert one["source"] == "site"
    key_id = one["id"]
    secret = made.strip().removeprefix(f"mk_{key_id}_")
    assert secret != made.strip()
    assert len(secret) > 20
    for answer in (as_json, as_text):
        assert answer.returncode == 0
        assert key_id in answer.stdout
        assert secret not in answer.stdout
    assert cli("keys", "revoke", key_id).returncode == 0
    again = cli("keys", "revoke", key_id)
    assert is_one_line(again)
    assert key_id in again.stderr


def test_status_counts_events_and_effects(cli: Cli, database: str) -> None:
    record(database, [lead(1), lead(2)])
    told = json.loads(cli("status", "--json").stdout)
    assert told["events"] == {"PENDING": 2}
    assert told["effects"] == {}
    assert told["pauses"] == []
    assert "PENDING" in cli("status").stdout


def test_a_pause_is_lifted_and_a_provider_that_is_not_there_is_named(
    cli: Cli, database: str
) -> None:
    with psycopg.connect(database) as conn:
        conn.execute(
            """insert into pauses values
               ('resend', now() + interval '1 hour', 'Blocked: the key is revoked', now())"""
        )
    assert [one["provider"] for one in json.loads(cli("status", "--json").stdout)["pauses"]]
    lifted = cli("lift", "resend")
    assert lifted.returncode == 0
    assert "Blocked: the key is revoked" in " ".join(lifted.stdout.split())
    assert json.loads(cli("status", "--json").stdout)["pauses"] == []
    other = cli("lift", "sendgrid")
    assert is_one_line(other)
    assert "the file has: hubspot" in other.stderr


def test_a_person_is_suppressed_by_address_and_a_stranger_is_an_error(
    cli: Cli, database: str
) -> None:
    record(database, [lead(1)])
    assert cli("suppress", " P1@example.com", "--why", "asked by mail").returncode == 0
    assert is_one_line(cli("suppress", "nobody@example.com", "--why", "asked"))
    assert is_one_line(cli("suppress", "p1@example.com", "--why", "asked", "--scope", "sms"))
    assert is_one_line(cli("suppress", "p1@example.com", "--why", " "))
    with psycopg.connect(database) as conn:
        rows = conn.execute("select scope, reason from suppressions").fetchall()
    assert rows == [("all", "asked by mail")]


def test_a_log_is_adopted_with_its_reason(cli: Cli, database: str, valkey: redis.Redis) -> None:
    with psycopg.connect(database, autocommit=True) as conn:
        [(identity,)] = conn.execute("select identity from installation").fetchall()
        valkey.set(f"high_water:{identity}", 5)
        asked = json.loads(cli("doctor", "--json").stdout)
        (mark,) = [one for one in asked if one["part"] == "high-water mark"]
        assert not mark["passed"]
        assert "adopt" in mark["finding"]
        assert cli("adopt", "--why", "moved here", "--yes").returncode == 0
        row = conn.execute("select adopted_why from installation").fetchone()
        assert row == ("moved here",)
        again = json.loads(cli("doctor", "--json").stdout)
    assert [one["passed"] for one in again if one["part"] == "high-water mark"] == [True]


def test_migrate_brings_a_given_database_to_the_present_schema(
    cli: Cli, servers: embedded.Servers
) -> None:
    name = f"cli_{uuid.uuid4().hex}"
    url = urlunsplit(urlsplit(servers.database_url)._replace(path=f"/{name}"))
    with psycopg.connect(servers.database_url, autocommit=True) as admin:
        admin.execute(f'create database "{name}"')
        try:
            refused = cli("status", MARKETING_DATABASE_URL=url)
            assert is_one_line(refused)
            assert "marketing-pipeline migrate" in refused.stderr
            assert cli("migrate", MARKETING_DATABASE_URL=url).returncode == 0
            assert schema.present(url) == schema.newest()
            assert cli("status", "--json", MARKETING_DATABASE_URL=url).returncode == 0
        finally:
            admin.execute(f'drop database "{name}" with (force)')


@pytest.mark.parametrize(
    ("words", "env", "named"),
    [
        (("status",), {"MARKETING_DATABASE_URL": "mysql://a:secret@h/d"}, "MARKETING_DATABASE_URL"),
        (("status",), {"MARKETING_INGEST_PORT": "http"}, "MARKETING_INGEST_PORT"),
        (
            ("status",),
            {"MARKETING_DATABASE_URL": f"postgresql://a:secret@{NOBODY}/d"},
            "connection",
        ),
        (("keys", "create", ""), {}, "source"),
        (("demo", "--once"), {"MARKETING_STATE": f"{CHECKOUT}/LICENSE/state"}, "MARKETING_STATE"),
        (("migrate",), {"MARKETING_DATABASE_URL": f"postgresql://{NOBODY}/d"}, "connection"),
        (("keys", "create", "s"), {"MARKETING_DATABASE_URL": f"postgresql://{NOBODY}/d"}, "connec"),
    ],
)
def test_what_an_operator_can_mend_is_one_line(
    cli: Cli, words: tuple[str, ...], env: dict[str, str], named: str
) -> None:
    ran = cli(*words, **env)
    assert is_one_line(ran), ran.stderr
    assert named in ran.stderr
    assert "secret" not in ran.stderr


def test_a_traceback_is_not_one_line() -> None:
    known_bad = Ran([], 2, stdout="", stderr="Traceback (most recent call last):\n  boom\n")
    assert not is_one_line(known_bad)
    assert not is_one_line(Ran([], 1, stdout="", stderr="marketing-pipeline: no\n"))


def test_down_says_that_nothing_runs(cli: Cli) -> None:
    ran = cli("down")
    assert (ran.returncode, ran.stdout) == (0, "nothing runs\n")
