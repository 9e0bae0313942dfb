"""Dagster's own commands, as real processes with nothing but DAGSTER_HOME to go by."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from marketing_pipeline import embedded
from marketing_pipeline.embedded.layout import layout
from marketing_pipeline_tests.patience import A_COLD_DAGSTER, until

CHECKOUT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent  # the console scripts beside the interpreter
CODE = """
from dagster import Definitions, asset, in_process_executor, job, op

@op
def say() -> None:
    print("said aloud")

@job(executor_def=in_process_executor, tags={"marketing/delivery": "1"})
def speak() -> None:
    say()

@asset
def thing() -> None:
    print("made")

defs = Definitions(assets=[thing], jobs=[speak], executor=in_process_executor)
"""
LAUNCH = """
mutation { launchRun(executionParams: {selector: {repositoryLocationName: "throwaway",
  repositoryName: "__repository__", jobName: "speak"}, mode: "default"}) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }
"""
STATUS = "query($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"


@dataclass(frozen=True, slots=True)
class Home:
    """A DAGSTER_HOME with this project's dagster.yaml and a module of its own."""

    folder: Path
    state: Path
    env: Mapping[str, str]

    def dagster(self, *arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [BIN / "dagster", *arguments],
            cwd=self.folder,
            env=dict(self.env) | env,
            capture_output=True,
            text=True,
            check=False,
            timeout=90,
        )

    def printed(self) -> str:
        """All that ops have printed, from where compute logs are kept."""
        files = (self.state / "dagster" / "printed").rglob("*.out")
        return "".join(file.read_text() for file in files)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    folder = tmp_path / "home"
    folder.mkdir()
    shutil.copy(CHECKOUT / "dagster.yaml", folder)
    (folder / "throwaway.py").write_text(CODE)
    state = tmp_path / "state"
    keep = {name: os.environ[name] for name in ("HOME",) if name in os.environ}
    path = f"{BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    given = {"PATH": path, "DAGSTER_HOME": str(folder), "MARKETING_STATE": str(state)}
    yield Home(folder, state, keep | given)
    embedded.stop(state, force=True)


def finished_runs(url: str) -> list[str]:
    with psycopg.connect(url) as conn:
        rows = conn.execute("select pipeline_name from runs where status = 'SUCCESS'").fetchall()
    return sorted(row[0] for row in rows)


def test_one_off_commands_share_the_embedded_server_and_leave_no_file_elsewhere(home: Home) -> None:
    executed = home.dagster("job", "execute", "-m", "throwaway", "-j", "speak")
    assert executed.returncode == 0, executed.stderr
    made = home.dagster("asset", "materialize", "-m", "throwaway", "--select", "thing")
    assert made.returncode == 0, made.stderr
    embedded.attach(home.state, valkey=False)
    assert finished_runs(layout(home.state).servers.dagster_url) == ["__ASSET_JOB", "speak"]
    assert {"said aloud", "made"} <= set(home.printed().split("\n"))
    left = {entry.name for entry in home.folder.iterdir()} - {"__pycache__"}
    assert left == {"dagster.yaml", "throwaway.py"}
    assert not (home.state / "log" / "valkey.log").exists(), "Dagster needs no Valkey"


def test_a_database_that_is_given_is_used_and_nothing_is_started(
    home: Home, servers: embedded.Servers
) -> None:
    name = f"dagster_{os.getpid()}_{time.monotonic_ns()}"
    given = servers.dagster_url.replace("/dagster?", f"/{name}?")
    with psycopg.connect(servers.database_url, autocommit=True) as admin:
        admin.execute(f'create database "{name}"')
        executed = home.dagster(
            "job", "execute", "-m", "throwaway", "-j", "speak", DAGSTER_POSTGRES_URL=given
        )
        assert executed.returncode == 0, executed.stderr
        assert finished_runs(given) == ["speak"]
        admin.execute(f'drop database "{name}" with (force)')
    assert not (home.state / "run").exists()


def test_a_url_that_cannot_be_used_is_named(home: Home) -> None:
    refused = home.dagster("instance", "info", DAGSTER_POSTGRES_URL="mysql://somewhere")
    assert refused.returncode != 0
    assert "DAGSTER_POSTGRES_URL" in refused.stderr


@contextmanager
def dagster_dev(home: Home) -> Iterator[httpx.Client]:
    """The whole of `dagster dev`, once its webserver knows the code."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with (
        (home.folder / "dev.log").open("w") as log,
        subprocess.Popen(
            [BIN / "dagster", "dev", "-m", "throwaway", "-p", str(port)],
            cwd=home.folder,
            env=dict(home.env),
            stdout=log,
            stderr=log,
            start_new_session=True,
        ) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as client,
    ):
        try:
            yield client
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                raise


def graphql(client: httpx.Client, query: str, **variables: str) -> Any:
    answer = client.post("/graphql", json={"query": query, "variables": variables})
    answer.raise_for_status()
    return answer.json()["data"]


def patiently(client: httpx.Client, query: str, wanted: str, **variables: str) -> Any:
    """Ask until the answer has the wanted word; at first there is no webserver, then no code."""
    said: Any = None

    def heard() -> bool:
        nonlocal said
        said = graphql(client, query, **variables)
        return wanted in json.dumps(said)

    until(
        heard,
        lambda: f"{wanted} was not said, but {said}",
        seconds=A_COLD_DAGSTER,
        every=0.3,
        despite=(httpx.HTTPError,),
    )
    return said


def run_through_the_queue(client: httpx.Client) -> None:
    launched = patiently(client, LAUNCH, "LaunchRunSuccess")
    run_id = launched["launchRun"]["run"]["runId"]
    patiently(client, STATUS, "SUCCESS", id=run_id)


def test_dagster_dev_runs_a_queued_job_and_outlives_its_servers_supervisor(home: Home) -> None:
    with dagster_dev(home) as client:
        run_through_the_queue(client)
        old = embedded.status(home.state)
        assert old.supervisor is not None
        os.kill(old.supervisor, signal.SIGKILL)
        run_through_the_queue(client)
        assert embedded.status(home.state).supervisor not in (None, old.supervisor)
    left = "it does not stop with the last Dagster process"
    until(lambda: embedded.status(home.state).supervisor is None, left, seconds=15)


def test_the_queue_is_quick_and_delivery_runs_have_a_limit_of_their_own(home: Home) -> None:
    code = (
        "import json; from dagster import DagsterInstance; i = DagsterInstance.get();"
        "q = i.get_concurrency_config().run_queue_config;"
        "print(json.dumps([i.run_coordinator.dequeue_interval_seconds, q.tag_concurrency_limits,"
        "i.run_monitoring_enabled, i.telemetry_enabled if hasattr(i, 'telemetry_enabled') else"
        " i.get_settings('telemetry')['enabled']]))"
    )
    told = subprocess.run(
        [sys.executable, "-c", code],
        env=dict(home.env),
        capture_output=True,
        text=True,
        check=True,
    )
    limits = [{"key": "marketing/delivery", "limit": 3}]
    assert json.loads(told.stdout) == [1, limits, True, False]
