"""All of Dagster dies at once, in the middle of a call; what is started again does the rest."""

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from dagster import DagsterInstance, DagsterRunStatus, RunsFilter
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.scheduler.instigation import SensorInstigatorData

from marketing_pipeline import embedded, settings
from marketing_pipeline.defs import zombies
from marketing_pipeline.defs.resources import EventLog
from marketing_pipeline.defs.sensors import bury
from marketing_pipeline.defs.zombies import QUIET, SETTLED, SILENT, Watch
from marketing_pipeline.event_log import heartbeats
from marketing_pipeline_tests.fresh_settings import forget_settings
from marketing_pipeline_tests.patience import A_COLD_DAGSTER, until
from marketing_pipeline_tests.pipeline import CHECKOUT, Sandbox, lead, record, sent, states

# Dagster warns of what it does itself: it hands on beta parameters.
pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning")
BIN = Path(sys.executable).parent  # the console scripts beside the interpreter
LOOK = timedelta(seconds=10)  # between two looks of the sensor
SILENCE = {"provider": "resend", "kind": "hang_after", "times": 100, "seconds": 60}


@pytest.fixture
def installed(
    used: settings.Settings,
    servers: embedded.Servers,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[settings.Settings]:
    """An installation whose runs linger for as long as this lasts, as this process sees it."""
    name = f"dagster_{uuid.uuid4().hex}"
    with psycopg.connect(servers.database_url, autocommit=True) as admin:
        admin.execute(f'create database "{name}"')
        for file in ("dagster.yaml", "workspace.yaml"):
            (used.home / file).write_text((CHECKOUT / file).read_text())
        text = used.campaigns_file.read_text()
        assert "linger: 15s" in text
        used.campaigns_file.write_text(text.replace("linger: 15s", "linger: 5m"))
        environment = dict(used.environment) | {
            "DAGSTER_POSTGRES_URL": urlunsplit(
                urlsplit(servers.database_url)._replace(path=f"/{name}")
            ),
            "DAGSTER_HOME": str(used.home),
            "MARKETING_STATE": str(tmp_path / "state"),
            "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        }
        for key, value in environment.items():
            monkeypatch.setenv(key, value)
        forget_settings()
        yield settings.read(os.environ)
        forget_settings()
        admin.execute(f'drop database "{name}" with (force)')


@contextmanager
def daemon(home: Path) -> Iterator[None]:
    """The daemon, which starts a code server, which starts run workers; all are dead afterwards."""
    with (
        (home / "daemon.log").open("a") as log,
        subprocess.Popen(
            [BIN / "dagster-daemon", "run"],
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        ),
    ):
        try:
            yield
        finally:
            kill_all(home)


def processes(home: Path) -> dict[int, str]:
    """Every process of this installation, by what its environment says: its command by its id."""
    mark, found = f"DAGSTER_HOME={home}".encode(), {}
    for folder in Path("/proc").glob("[0-9]*"):
        if int(folder.name) == os.getpid():
            continue
        with suppress(FileNotFoundError, ProcessLookupError, PermissionError):  # it has just ended
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                found[int(folder.name)] = (folder / "cmdline").read_bytes().decode()
    return found


def kill_all(home: Path) -> dict[int, str]:
    """SIGKILL to all of them, and to what they started meanwhile; whom it hit."""
    killed: dict[int, str] = {}
    while living := processes(home):
        for pid in living:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        killed |= living
    return killed


def runs(instance: DagsterInstance) -> dict[str, DagsterRunStatus]:
    """Delivery runs, as Dagster believes."""
    found = instance.get_runs(RunsFilter(job_name="deliver_pending"))
    return {one.run_id: one.status for one in found}


def last_look(instance: DagsterInstance) -> datetime:
    """When the daemon's own sensor looked last."""
    [state] = [
        one
        for one in instance.all_instigator_state(instigator_type=InstigatorType.SENSOR)
        if one.instigator_name == "zombie_runs"
    ]
    data = state.instigator_data
    watch = zombies.loads(data.cursor) if isinstance(data, SensorInstigatorData) else None
    return watch.at if watch else datetime.min.replace(tzinfo=UTC)


def buried(instance: DagsterInstance, start: datetime) -> list[str]:
    """What the sensor reports failed, looking at its usual interval for as long as it has to."""
    seen: Watch | None = None
    told: list[str] = []
    for number in range((SETTLED + SILENT) // LOOK + 1):
        found, seen = bury(instance, EventLog(), seen, start + number * LOOK)
        told += found
    return told


@pytest.mark.timeout(240)
def test_all_of_dagster_is_killed_and_what_is_started_again_does_the_rest_once(
    installed: settings.Settings, database: str, sandbox: Sandbox
) -> None:
    home = installed.home
    with DagsterInstance.from_config(str(home)) as instance:
        with daemon(home):
            record(database, [lead(1)])
            until(lambda: states(database) == {"SENT": 2}, seconds=A_COLD_DAGSTER)
            [old] = runs(instance)
            sandbox.faults(SILENCE)  # it acts, and does not answer
            record(database, [lead(2)])
            until(lambda: states(database) == {"SENT": 3, "SENDING": 1}, every=0.02)
            hit = " ".join(kill_all(home).values())
        killed = datetime.now(UTC)
        for part in ("dagster-daemon", "api\0grpc", "multiprocessing"):
            assert part in hit, "the daemon, the code server, the run worker"
        assert runs(instance) == {old: DagsterRunStatus.STARTED}, "nobody could say otherwise"
        assert processes(home) == {}
        assert states(database)["SENT"] == 3
        sandbox.faults()
        record(database, [lead(3)])  # while nobody is there
        with daemon(home):
            until(lambda: states(database) == {"SENT": 6}, seconds=A_COLD_DAGSTER)
            [new] = set(runs(instance)) - {old}
            assert EventLog().ask(heartbeats.living) == {new}
            assert sandbox.acts() == dict.fromkeys(sent(database), 1)
            until(lambda: last_look(instance) > killed, seconds=A_COLD_DAGSTER)
            assert buried(instance, datetime.now(UTC) + QUIET) == [old]
            assert runs(instance) == {
                old: DagsterRunStatus.FAILURE,
                new: DagsterRunStatus.STARTED,
            }
