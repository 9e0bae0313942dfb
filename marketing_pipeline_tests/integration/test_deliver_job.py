"""Dagster's one-off commands on this project's definitions, with no daemon anywhere."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from marketing_pipeline import settings
from marketing_pipeline_tests.pipeline import (
    CHECKOUT,
    Sandbox,
    campaign,
    campaign_name,
    lead,
    post,
    record,
    run,
    sent,
    states,
    statuses,
)

BIN = Path(sys.executable).parent  # the console scripts beside the interpreter
MODULE = ("-m", "marketing_pipeline.definitions")
BRIEF = "{ops: {deliver: {config: {linger_seconds: 0.5}}}}"


class Commands:
    """A folder with this project's dagster.yaml, and servers that were given."""

    def __init__(self, used: settings.Settings, state: Path) -> None:
        self.folder = used.home
        self.state = state
        shutil.copy(CHECKOUT / "dagster.yaml", self.folder)
        (self.folder / "brief.yaml").write_text(BRIEF)
        self._env = {
            **used.environment,
            "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "HOME": str(self.folder),
            "DAGSTER_HOME": str(self.folder),
            "MARKETING_STATE": str(state),
        }

    def dagster(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [BIN / "dagster", *arguments],
            cwd=self.folder,
            env=self._env,
            capture_output=True,
            text=True,
            check=False,
            timeout=90,
        )

    def deliver(self) -> "subprocess.CompletedProcess[str]":
        return self.dagster("job", "execute", *MODULE, "-j", "deliver_pending", "-c", "brief.yaml")

    def materialize(self, day: str) -> "subprocess.CompletedProcess[str]":
        return self.dagster(
            "asset", "materialize", *MODULE, "--select", "deliveries", "--partition", day
        )


@pytest.fixture
def commands(used: settings.Settings, tmp_path: Path) -> Commands:
    return Commands(used, tmp_path / "state")


def today() -> str:
    return datetime.now(UTC).date().isoformat()


def effects(database: str) -> Sequence[Any]:
    with psycopg.connect(database) as conn:
        return conn.execute("select e::text from effects e order by id").fetchall()


def calls(sandbox: Sandbox) -> int:
    with closing(sqlite3.connect(sandbox.record)) as file:
        return int(file.execute("select count(*) from calls").fetchone()[0])


def test_the_job_delivers_what_is_pending_and_fails_on_a_ledger_that_lost_something(
    commands: Commands, database: str, sandbox: Sandbox
) -> None:
    record(database, [lead(1), lead(2), post(1)])
    record(database, [campaign(campaign_name(commands.folder), "c1")])
    done = commands.deliver()
    assert done.returncode == 0, done.stderr
    assert states(database) == {"SENT": 7}
    assert statuses(database) == {"COMPLETED": 4}
    assert sandbox.acts() == dict.fromkeys(sent(database), 1)
    assert "Materialized value deliveries" in done.stderr, "the day is reported"
    assert not (commands.state / "run").exists(), "no server of its own was started"

    with psycopg.connect(database) as conn:  # the known-bad case
        conn.execute("set session_replication_role = replica")  # nothing refuses it
        conn.execute("delete from effects where kind = 'post'")
    before = calls(sandbox)
    refused = commands.deliver()
    assert refused.returncode == 1
    assert f"{today()}: 1 effects planned and not in the ledger" in refused.stderr
    assert calls(sandbox) == before, "what was lost is told, and never sent again"


def test_materializing_a_day_calls_nobody_changes_nothing_and_tells_what_was_tampered_with(
    commands: Commands, used: settings.Settings, database: str, sandbox: Sandbox
) -> None:
    record(database, [lead(1), lead(2), post(1)])
    run(used)
    record(database, [lead(3)])  # due, and no business of this command
    before = (effects(database), calls(sandbox), statuses(database))
    made = commands.materialize(today())
    assert made.returncode == 0, made.stderr
    assert (effects(database), calls(sandbox), statuses(database)) == before

    with psycopg.connect(database) as conn:  # the known-bad case
        row = conn.execute(
            """update effects set variables = '{"first_name": "Eve"}' where id =
               (select id from effects where kind = 'email' order by id limit 1) returning id"""
        ).fetchone()
        assert row is not None
    tampered = effects(database)
    refused = commands.materialize(today())
    assert refused.returncode == 1
    assert f"effect {row[0]}: its bytes come out differently" in refused.stderr
    assert (effects(database), calls(sandbox)) == (tampered, before[1]), "nor does it mend anything"
