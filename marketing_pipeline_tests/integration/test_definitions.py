"""The page that Dagster loads: importing it touches nothing, and it holds all there is."""

import importlib
import importlib.util
import json
import pkgutil
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from types import ModuleType

import pytest
from dagster import (
    AssetsDefinition,
    ConfigurableResource,
    DefaultScheduleStatus,
    DefaultSensorStatus,
    Definitions,
    JobDefinition,
    ScheduleDefinition,
    SensorDefinition,
    SourceAsset,
)
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from marketing_pipeline import defs
from marketing_pipeline.defs import campaigns

# Dagster warns of what it does itself: it reads old attributes, and hands on beta parameters.
# The page is imported in a test, where the marks are in force.
pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning")
IMPORT = "import marketing_pipeline.definitions"
# What a process cannot do without Python's knowing. `file -b` is how the standard library asks
# for the interpreter's word size, on behalf of Dagster's croniter.
WATCH = """
import json, os, sys
seen = []
def watch(name, about):
    if name == "subprocess.Popen" and about[1][:2] == ["file", "-b"]:
        return
    writes = name == "open" and isinstance(about[2], int) and about[2] & (os.O_WRONLY | os.O_RDWR)
    kinds = ("socket.", "subprocess.", "os.fork", "os.posix_spawn", "os.exec", "os.mkdir")
    if name.startswith(kinds) or (writes and about[0] != os.devnull):
        seen.append(name)
sys.addaudithook(watch)
"""
TELL = "print(json.dumps(seen))"
KINDS = (
    *(AssetsDefinition, SourceAsset, JobDefinition, UnresolvedAssetJobDefinition),
    *(SensorDefinition, ScheduleDefinition),
)
LOOSE = """
from dagster import RunRequest, sensor

@sensor(job_name="deliver_pending")
def loose() -> RunRequest:
    return RunRequest()
"""


def python(code: str, env: Mapping[str, str]) -> str:
    """What a fresh interpreter prints; it leaves no bytecode, so that a write is a write."""
    done = subprocess.run(
        [sys.executable, "-B", "-c", code],
        env=dict(env),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "nothing is printed either"
    return done.stdout


def watched(code: str) -> Sequence[str]:
    found: list[str] = json.loads(python(f"{WATCH}\n{code}\n{TELL}", {}))
    return found


def called(code: str) -> Sequence[str]:
    """The variables whose servers were connected to, by whatever library.

    libpq connects in C, where no audit hook sees it; a listener does.
    """
    with ExitStack() as stack:
        listeners = {
            name: stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            for name in ("MARKETING_DATABASE_URL", "MARKETING_REDIS_URL", "DAGSTER_POSTGRES_URL")
        }
        urls = {
            name: f"{'redis' if 'REDIS' in name else 'postgresql'}://127.0.0.1:{port}/x"
            for name, port in ((n, one.getsockname()[1]) for n, one in listeners.items())
        }
        python(code, urls)
        return [name for name, listener in listeners.items() if heard(listener)]


def heard(listener: socket.socket) -> bool:
    listener.setblocking(False)
    try:
        link, _ = listener.accept()
    except BlockingIOError:
        return False
    link.close()
    return True


def test_importing_the_page_with_an_empty_environment_touches_nothing() -> None:
    assert watched(IMPORT) == []


@pytest.mark.parametrize(
    ("code", "seen"),
    [
        ("import socket; socket.socket().connect_ex(('127.0.0.1', 9))", "socket.connect"),
        ("import subprocess; subprocess.run(['true'])", "subprocess.Popen"),
        ("import tempfile; tempfile.TemporaryFile()", "open"),
    ],
)
def test_a_module_that_touches_something_would_be_noticed(code: str, seen: str) -> None:
    assert seen in watched(code)


def test_importing_the_page_connects_to_none_of_the_servers_that_are_given() -> None:
    assert called(IMPORT) == []


def test_a_connection_made_in_c_would_be_noticed() -> None:
    code = """
import os, psycopg
try:
    psycopg.connect(os.environ["MARKETING_DATABASE_URL"], connect_timeout=2)
except psycopg.OperationalError:
    pass
"""
    assert called(code) == ["MARKETING_DATABASE_URL"]


@pytest.fixture
def page() -> Definitions:
    found = importlib.import_module("marketing_pipeline.definitions").defs
    assert isinstance(found, Definitions)
    return found


def room() -> list[ModuleType]:
    return [
        importlib.import_module(f"{defs.__name__}.{found.name}")
        for found in pkgutil.iter_modules(defs.__path__)
    ]


def forgotten(modules: Iterable[ModuleType], page: Definitions) -> set[str]:
    """The names under which modules define what the page does not hold."""
    told = chain(
        page.assets or (),
        page.asset_checks or (),
        page.jobs or (),
        page.sensors or (),
        page.schedules or (),
    )
    held = {id(one) for one in told}
    resources = {type(one) for one in (page.resources or {}).values()}
    found = set()
    for module in modules:
        for name, value in vars(module).items():
            loose = isinstance(value, KINDS) and id(value) not in held
            if loose or (is_resource_of(module, value) and value not in resources):
                found.add(name)
    return found


def is_resource_of(module: ModuleType, value: object) -> bool:
    """pydantic leaves the type it made of `ConfigurableResource[None]` in the module, too."""
    return (
        isinstance(value, type)
        and issubclass(value, ConfigurableResource)
        and value.__module__ == module.__name__
        and value.__name__.isidentifier()
    )


def test_the_page_holds_all_that_is_defined(page: Definitions) -> None:
    assert forgotten(room(), page) == set()


def of_file(one: ScheduleDefinition) -> bool:
    """Made for a campaign of the operator's file, whichever those are."""
    return campaigns.TAG in one.tags


def test_the_page_loads_and_names_what_it_should(page: Definitions) -> None:
    Definitions.validate_loadable(page)
    repository = page.get_repository_def()
    assert {key.to_user_string() for key in repository.asset_graph.get_all_asset_keys()} == {
        "marketing_events",
        "deliveries",
        "leads",
        "campaign_performance",
        "campaign_plan",
    }
    assert {key.name for key in repository.asset_graph.asset_check_keys} == {
        "conservation",
        "finished",
    }
    assert {one.name for one in repository.sensor_defs} == {
        "pending_events",
        "zombie_runs",
        "fresh_views",
    }
    assert {(one.name, one.job_name) for one in repository.schedule_defs if not of_file(one)} == {
        ("daily_reconciliation", "reconcile_failed"),
        ("daily_checks", "check_log"),
        ("daily_upkeep", "upkeep"),
    }
    assert repository.has_job("deliver_pending")
    assert repository.has_job("control_campaign")
    assert repository.has_job("approve_campaign")


def test_what_a_lone_operator_would_forget_to_turn_on_runs_by_itself(page: Definitions) -> None:
    repository = page.get_repository_def()
    assert {one.default_status for one in repository.sensor_defs} == {DefaultSensorStatus.RUNNING}
    assert {one.default_status for one in repository.schedule_defs if not of_file(one)} == {
        DefaultScheduleStatus.RUNNING
    }


def test_no_campaign_is_sent_by_a_schedule_that_nobody_switched_on(page: Definitions) -> None:
    found = [one for one in page.get_repository_def().schedule_defs if of_file(one)]
    assert {one.default_status for one in found} <= {DefaultScheduleStatus.STOPPED}
    assert {one.job_name for one in found} <= {"deliver_pending"}


def test_what_is_left_off_the_page_would_be_noticed(page: Definitions, tmp_path: Path) -> None:
    file = tmp_path / "loose.py"
    file.write_text(LOOSE)
    spec = importlib.util.spec_from_file_location("loose", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert forgotten([*room(), module], page) == {"loose"}
    bare = Definitions(assets=page.assets, jobs=page.jobs, sensors=page.sensors)
    assert forgotten(room(), bare) == {
        *("conservation", "finished"),
        *("daily_reconciliation", "daily_checks", "daily_upkeep"),
        *("EventLog", "SharedRateLimit", "Providers"),
    }
