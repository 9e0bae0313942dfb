"""Dagster's own commands on a checkout's files, which start by themselves all that they need."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import sqlalchemy

from marketing_pipeline import embedded
from marketing_pipeline.embedded.layout import layout
from marketing_pipeline.event_log import schema
from marketing_pipeline_tests.patience import A_COLD_DAGSTER, until
from marketing_pipeline_tests.pipeline import CHECKOUT, Sandbox, lead, record, sent, states

BIN = Path(sys.executable).parent  # the console scripts beside the interpreter
AWAY = (psycopg.OperationalError, sqlalchemy.exc.OperationalError, httpx.HTTPError)
LINEAGE = "{ assetNodes { assetKey { path } dependencyKeys { path } } }"
COUNTS = """{ assetNodeOrError(assetKey: {path: ["deliveries"]}) { ... on AssetNode {
  assetMaterializations { partition metadataEntries { label ... on IntMetadataEntry { intValue } } }
} } }"""


class Installation:
    """A folder with the files of a checkout, and the processes started in it."""

    def __init__(self, folder: Path, sandbox: Sandbox) -> None:
        self.folder = folder
        self.state = folder / ".marketing"
        self.database = layout(self.state).servers.database_url
        self._env = {
            "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "HOME": os.environ.get("HOME", str(folder)),
            "DAGSTER_HOME": str(folder),
            "MARKETING_HOME": str(folder),  # a copy is no checkout: the package is elsewhere
            "MARKETING_SANDBOX_URL": sandbox.url,  # or it would call providers
        }

    def run(self, *command: str) -> None:
        """A command that ends by itself."""
        done = subprocess.run(
            [BIN / command[0], *command[1:]],
            cwd=self.folder,
            env=self._env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=A_COLD_DAGSTER,
        )
        assert done.returncode == 0, done.stderr

    @contextmanager
    def running(self, *command: str) -> Iterator[None]:
        """A command until it is interrupted as by Ctrl-C; then all it started ends by itself."""
        log = self.folder / f"{command[0]}.log"
        with (
            log.open("w") as output,
            subprocess.Popen(
                [BIN / command[0], *command[1:]],
                cwd=self.folder,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            ) as process,
        ):
            try:
                yield
                assert process.poll() is None, log.read_text()
                process.send_signal(signal.SIGINT)
                process.wait(A_COLD_DAGSTER)
                patiently(lambda: embedded.status(self.state).supervisor is None)
            finally:
                with suppress(ProcessLookupError):  # there is none left, as it should be
                    os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture
def installation(tmp_path: Path, sandbox: Sandbox) -> Iterator[Installation]:
    folder = tmp_path / "checkout"
    shutil.copytree(CHECKOUT / "campaigns", folder / "campaigns")
    for name in ("dagster.yaml", "workspace.yaml"):
        shutil.copy(CHECKOUT / name, folder)
    with (folder / "campaigns" / "pipeline.yaml").open("a") as file:
        file.write("\ndelivery: {linger: 1s}  # the test waits for the run to end\n")
    made = Installation(folder, sandbox)
    yield made
    embedded.stop(made.state, force=True)


def patiently(holds: Callable[[], bool], seconds: float = A_COLD_DAGSTER) -> None:
    """Wait; servers that are not there yet are waited for as well."""
    until(holds, seconds=seconds, every=0.2, despite=AWAY)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def graphql(port: int, query: str) -> Any:
    answer = httpx.post(
        f"http://127.0.0.1:{port}/graphql", json={"query": query}, timeout=30, trust_env=False
    )
    answer.raise_for_status()
    return answer.json()["data"]


def lineage(port: int) -> Mapping[str, set[str]]:
    return {
        node["assetKey"]["path"][-1]: {key["path"][-1] for key in node["dependencyKeys"]}
        for node in graphql(port, LINEAGE)["assetNodes"]
    }


def shown(port: int) -> Mapping[str, int]:
    """The numbers of the newest materialization of `deliveries`."""
    newest = graphql(port, COUNTS)["assetNodeOrError"]["assetMaterializations"][0]
    return {
        entry["label"]: entry["intValue"]
        for entry in newest["metadataEntries"]
        if "intValue" in entry
    }


@pytest.mark.timeout(300)
def test_the_daemon_delivers_what_is_recorded_and_dagster_dev_shows_it(
    installation: Installation, sandbox: Sandbox
) -> None:
    database = installation.database
    with installation.running("dagster-daemon", "run"):
        patiently(lambda: schema.present(database) == schema.newest())
        record(database, [lead(1)])
        patiently(lambda: states(database) == {"SENT": 2})
        assert sandbox.acts() == dict.fromkeys(sent(database), 1)
    port = free_port()
    with installation.running("dagster", "dev", "-p", str(port)):
        patiently(lambda: "deliveries" in lineage(port))
        assert lineage(port) == {
            "marketing_events": set(),
            "deliveries": {"marketing_events"},
            "leads": {"deliveries"},
            "campaign_performance": {"deliveries"},
            "campaign_plan": set(),
        }
        assert shown(port) == {"sent": 2, "effects": 2, "events": 1, "calls": 2, "retries": 0}
    assert len(sandbox.acts()) == 2, "starting again sent nothing"


def triggered(database: str) -> list[str]:
    """The status of each event that a schedule has recorded."""
    with psycopg.connect(database) as conn:
        rows = conn.execute("select status from marketing_events where source = 'schedule'")
        return [row[0] for row in rows]


@pytest.mark.timeout(300)
def test_a_campaign_is_sent_by_its_schedule_once_that_is_switched_on(
    installation: Installation, sandbox: Sandbox
) -> None:
    file = installation.folder / "campaigns" / "pipeline.yaml"
    plain = "  news: {audience: everybody, template: news"
    text = file.read_text()
    assert plain in text
    minutely = f'{plain}, schedule: {{cron: "* * * * *", timezone: Europe/Berlin}}'
    file.write_text(text.replace(plain, minutely))
    database = installation.database
    with installation.running("dagster-daemon", "run"):
        patiently(lambda: schema.present(database) == schema.newest())
        record(database, [lead(1)])
        patiently(lambda: states(database) == {"SENT": 2})
        assert triggered(database) == [], "it is off"
        installation.run("dagster", "schedule", "start", "campaign_news")
        patiently(lambda: triggered(database) != [], 60 + A_COLD_DAGSTER)  # a minute must begin
        patiently(lambda: "COMPLETED" in triggered(database))
        assert sandbox.acts() == dict.fromkeys(sent(database), 1)
        assert states(database)["SENT"] >= 3
