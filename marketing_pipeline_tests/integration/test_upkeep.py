"""What watches over Dagster's runs and what is done every day, on real runs and records."""

import importlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

import psycopg
import pytest
from dagster import (
    AssetCheckKey,
    AssetKey,
    AssetMaterialization,
    AssetObservation,
    AssetSelection,
    DagsterEventType,
    DagsterInstance,
    DagsterRunStatus,
    Failure,
    JobDefinition,
    MarkdownMetadataValue,
    OpExecutionContext,
    RunsFilter,
    SkipReason,
    build_sensor_context,
    job,
    materialize,
    mem_io_manager,
    op,
)
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

from marketing_pipeline import embedded, settings
from marketing_pipeline.defs import zombies
from marketing_pipeline.defs.assets import deliveries
from marketing_pipeline.defs.checks import conservation
from marketing_pipeline.defs.jobs import deliver_pending, heard
from marketing_pipeline.defs.resources import EventLog, Providers
from marketing_pipeline.defs.sensors import bury, zombie_runs
from marketing_pipeline.defs.upkeep import (
    RetentionConfig,
    forget,
    of_reconciliation,
    reconcile_failed,
    upkeep,
)
from marketing_pipeline.defs.zombies import GAP, QUIET, SETTLED, SILENT, Watch, watch
from marketing_pipeline.event_log import heartbeats
from marketing_pipeline.event_log.redriving import Listed, Reconciliation
from marketing_pipeline_tests.fresh_settings import forget_settings
from marketing_pipeline_tests.patience import A_COLD_DAGSTER, until
from marketing_pipeline_tests.pipeline import CHECKOUT, campaign, lead, record, run, statuses

# Dagster warns of what it does itself: it reads old attributes, and hands on beta parameters.
pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning")
BIN = Path(sys.executable).parent  # the console scripts beside the interpreter
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
LOOK = timedelta(seconds=10)  # between two looks of the sensor
LINGER = "{ops: {deliver: {config: {linger_seconds: 120}}}}"


@pytest.fixture
def installed(
    used: settings.Settings,
    servers: embedded.Servers,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[settings.Settings]:
    """An installation whose Dagster has a database of its own, as this process sees it."""
    name = f"dagster_{uuid.uuid4().hex}"
    dagster_url = urlunsplit(urlsplit(servers.database_url)._replace(path=f"/{name}"))
    with psycopg.connect(servers.database_url, autocommit=True) as admin:
        admin.execute(f'create database "{name}"')
        (used.home / "dagster.yaml").write_text((CHECKOUT / "dagster.yaml").read_text())
        (used.home / "linger.yaml").write_text(LINGER)
        for key, value in used.environment.items():
            monkeypatch.setenv(key, value)
        monkeypatch.setenv("DAGSTER_POSTGRES_URL", dagster_url)
        monkeypatch.setenv("DAGSTER_HOME", str(used.home))
        monkeypatch.setenv("MARKETING_STATE", str(tmp_path / "state"))
        forget_settings()
        yield settings.read(os.environ)
        forget_settings()
        admin.execute(f'drop database "{name}" with (force)')


@pytest.fixture
def instance(installed: settings.Settings) -> Iterator[DagsterInstance]:
    with DagsterInstance.from_config(str(installed.home)) as made:
        yield made


@pytest.fixture
def worker(installed: settings.Settings) -> Iterator["subprocess.Popen[str]"]:
    """A delivery run at work, in a process of its own and with no daemon that watches it."""
    command = ["dagster", "job", "execute", "-m", "marketing_pipeline.definitions"]
    command += ["-j", "deliver_pending", "-c", "linger.yaml"]
    with (
        (installed.home / "worker.log").open("w") as log,
        subprocess.Popen(
            [BIN / command[0], *command[1:]],
            cwd=installed.home,
            env={**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            text=True,
        ) as process,
    ):
        yield process
        process.kill()


def living() -> set[str]:
    return EventLog().ask(heartbeats.living)


def looks(instance: DagsterInstance, start: datetime, span: timedelta) -> list[str]:
    """What looks at the usual interval report failed, the last one after `span`."""
    seen: Watch | None = None
    buried: list[str] = []
    for number in range(span // LOOK + 1):
        found, seen = bury(instance, EventLog(), seen, start + number * LOOK)
        buried += found
    return buried


def only_run(instance: DagsterInstance) -> tuple[str, DagsterRunStatus]:
    [found] = instance.get_runs(RunsFilter(job_name="deliver_pending"))
    return found.run_id, found.status


@pytest.mark.timeout(180)
def test_a_run_that_was_killed_is_reported_failed_and_one_that_lives_never_is(
    instance: DagsterInstance, worker: "subprocess.Popen[str]", database: str
) -> None:
    until(living, seconds=A_COLD_DAGSTER)
    run_id, status = only_run(instance)
    assert living() == {run_id}
    assert status is DagsterRunStatus.STARTED
    # Its log is silent for an hour by then, but it beats.
    later = datetime.now(UTC) + timedelta(hours=1)
    assert looks(instance, later, SETTLED + SILENT) == []
    assert only_run(instance) == (run_id, DagsterRunStatus.STARTED)

    worker.send_signal(signal.SIGKILL)
    worker.wait()
    with psycopg.connect(database) as conn:  # 15 s later
        conn.execute("update heartbeats set expires_at = clock_timestamp()")
    assert looks(instance, datetime.now(UTC), QUIET - LOOK) == [], "it may be reporting a day"
    assert looks(instance, later, SETTLED + SILENT) == [run_id]
    assert only_run(instance) == (run_id, DagsterRunStatus.FAILURE)
    with psycopg.connect(database) as conn:
        assert conn.execute("select count(*) from heartbeats").fetchone() == (0,)
    assert looks(instance, later, SETTLED + SILENT) == [], "once is enough"


def begun(
    instance: DagsterInstance, status: DagsterRunStatus, of: JobDefinition = deliver_pending
) -> str:
    """A real record of a run that has got so far and whose process nobody knows."""
    return instance.create_run_for_job(of, status=status).run_id


def test_a_run_that_was_killed_before_its_first_beat_is_found_by_its_silence(
    instance: DagsterInstance,
) -> None:
    started = begun(instance, DagsterRunStatus.STARTED)
    starting = begun(instance, DagsterRunStatus.STARTING)
    begun(instance, DagsterRunStatus.NOT_STARTED)
    begun(instance, DagsterRunStatus.SUCCESS)
    begun(instance, DagsterRunStatus.STARTED, upkeep)
    now = datetime.now(UTC)
    assert set(zombies.silent_runs(instance, set(), now)) == set()
    assert set(zombies.silent_runs(instance, set(), now + QUIET)) == {started, starting}
    assert set(zombies.silent_runs(instance, {started}, now + QUIET)) == {starting}


def test_a_run_that_writes_to_its_log_lives(instance: DagsterInstance) -> None:
    run_id = begun(instance, DagsterRunStatus.STARTED)
    instance.report_engine_event("at work", run_id=run_id, job_name="deliver_pending")
    [spoken] = instance.get_records_for_run(run_id, limit=1, ascending=False).records
    at = datetime.fromtimestamp(spoken.event_log_entry.timestamp, UTC)
    assert zombies.silent_runs(instance, set(), at + QUIET - SECOND) == {}
    assert set(zombies.silent_runs(instance, set(), at + QUIET)) == {run_id}


def test_the_sensor_remembers_what_it_saw(instance: DagsterInstance) -> None:
    run_id = begun(instance, DagsterRunStatus.STARTED)
    long_ago = datetime.now(UTC) - timedelta(hours=1)
    with psycopg.connect(os.environ["DAGSTER_POSTGRES_URL"]) as conn:
        conn.execute("update runs set create_timestamp = %s", [long_ago.replace(tzinfo=None)])
    now = datetime.now(UTC)
    seen = Watch(unbroken_since=long_ago, at=now - LOOK, silent={run_id: now - SILENT})

    def tick(cursor: str | None) -> tuple[object, str | None]:
        context = build_sensor_context(
            instance=instance, cursor=cursor, resources={"event_log": EventLog()}
        )
        return zombie_runs(context), context.cursor

    told, cursor = tick(None)
    assert told == SkipReason("0 dead runs, 1 silent ones")
    assert tick(cursor)[0] == SkipReason("0 dead runs, 1 silent ones"), "it has just begun to look"
    told, cursor = tick(seen.dumps())
    assert told == SkipReason("1 dead runs, 1 silent ones")
    assert tick(cursor)[0] == SkipReason("0 dead runs, 0 silent ones")
    assert only_run(instance) == (run_id, DagsterRunStatus.FAILURE)


def watched(*looks: tuple[timedelta, set[str]]) -> list[frozenset[str]]:
    """What each of these looks, at their times after NOW, finds dead."""
    seen: Watch | None = None
    found = []
    for after, silent in looks:
        dead, seen = watch(seen, silent, NOW + after)
        assert zombies.loads(seen.dumps()) == seen
        found.append(dead)
    return found


def steady(silent_from: timedelta, last: timedelta) -> list[tuple[timedelta, set[str]]]:
    times = [number * LOOK for number in range(last // LOOK + 1)]
    return [(at, {"run"} if at >= silent_from else set()) for at in times]


def test_silence_counts_when_it_lasts() -> None:
    *before, last = watched(*steady(SETTLED, SETTLED + SILENT))
    assert not any(before)
    assert last == {"run"}


def test_one_word_ends_a_silence() -> None:
    spoken = [*steady(SETTLED, SETTLED + SILENT - LOOK), (SETTLED + SILENT, set())]
    again = [(at + SETTLED + SILENT + LOOK, {"run"}) for at, _ in steady(SILENT, SILENT - LOOK)]
    assert not any(watched(*spoken, *again))


def test_after_an_outage_or_a_sleep_every_run_gets_the_time_to_be_heard() -> None:
    before = steady(SETTLED, SETTLED + SILENT - LOOK)
    wakes = before[-1][0] + GAP + SECOND
    after = [(wakes + at, {"run"}) for at, _ in steady(SETTLED, SETTLED)]
    *early, last = watched(*before, *after)
    assert not any(early)
    assert last == {"run"}


def test_slow_queries_after_delivering_are_heard_in_the_log() -> None:
    @op
    def slow(context: OpExecutionContext) -> None:
        with heard(context, every=timedelta(seconds=0.05)):
            time.sleep(0.5)

    @job
    def slowly() -> None:
        slow()

    with DagsterInstance.ephemeral() as instance:
        done = slowly.execute_in_process(instance=instance)
        words = [one.user_message for one in instance.all_logs(done.run_id)]
    assert words.count("at work") >= 3


def ran(
    instance: DagsterInstance,
    *events: AssetMaterialization | AssetObservation,
    days: float,
    of: str = "deliver_pending",
    fails: bool = False,
) -> str:
    """A run that said this and ended so many days ago."""

    @op
    def say(context: OpExecutionContext) -> None:
        for one in events:
            context.log_event(one)
        print("a line that Dagster keeps in a file")
        if fails:
            raise Failure("as it was told")

    @job(name=of)
    def saying() -> None:
        say()

    done = saying.execute_in_process(instance=instance, raise_on_error=False)
    ended = datetime.now(UTC) - timedelta(days=days)
    with psycopg.connect(os.environ["DAGSTER_POSTGRES_URL"]) as conn:
        conn.execute(
            "update runs set update_timestamp = %s where run_id = %s",
            [ended.replace(tzinfo=None), done.run_id],
        )
    return done.run_id


def made(day: str) -> AssetMaterialization:
    return AssetMaterialization("deliveries", partition=day)


def observed(day: str, version: str) -> AssetObservation:
    tags = {"dagster/data_version": version}
    return AssetObservation("marketing_events", partition=day, tags=tags)


def kept(instance: DagsterInstance) -> set[str]:
    return set(instance.get_run_ids())


def forgotten(instance: DagsterInstance, **config: int) -> int:
    return forget(instance, RetentionConfig(**config), datetime.now(UTC))


def test_runs_past_their_time_go_and_what_is_needed_or_under_way_stays(
    instance: DagsterInstance,
) -> None:
    gone = {
        ran(instance, days=8),
        ran(instance, made("2026-01-01"), observed("2026-01-01", "a"), days=31),
        ran(instance, days=31, of="reconcile_failed"),
        ran(instance, days=31, fails=True),
    }
    stay = {
        ran(instance, days=6),
        ran(instance, days=8, of="reconcile_failed"),
        ran(instance, days=8, fails=True),
        ran(instance, made("2026-01-02"), days=400),
        ran(instance, observed("2026-01-01", "b"), days=400),
        ran(instance, made("2026-01-01"), days=400),
        ran(instance, made("2026-01-03"), days=8),
    }
    under_way = begun(instance, DagsterRunStatus.STARTED)
    with psycopg.connect(os.environ["DAGSTER_POSTGRES_URL"]) as conn:
        conn.execute(
            "update runs set update_timestamp = '2020-01-01' where run_id = %s", [under_way]
        )
    printed = Path(os.environ["MARKETING_STATE"]) / "dagster" / "printed"
    assert {one.name for one in printed.iterdir()} >= gone | stay

    assert forgotten(instance) == len(gone)
    assert kept(instance) == stay | {under_way}
    assert not any(instance.all_logs(run_id) for run_id in gone)
    assert {one.name for one in printed.iterdir()} == stay
    assert instance.get_materialized_partitions(AssetKey("deliveries")) == {
        "2026-01-01",
        "2026-01-02",
        "2026-01-03",
    }
    record = instance.get_latest_data_version_record(
        AssetKey("marketing_events"), is_source=True, partition_key="2026-01-01"
    )
    assert record is not None
    assert (record.event_log_entry.tags or {})["dagster/data_version"] == "b"
    assert forgotten(instance) == 0


def test_a_day_whose_newest_run_is_deleted_counts_as_never_made(
    instance: DagsterInstance,
) -> None:
    """Why such runs are kept: if this fails, Dagster has learnt to keep the day by itself."""
    run_id = ran(instance, made("2026-01-01"), days=31)
    instance.delete_run(run_id)
    assert instance.get_materialized_partitions(AssetKey("deliveries")) == set()


def test_only_so_many_are_deleted_at_a_time_and_the_oldest_first(
    instance: DagsterInstance,
) -> None:
    *old, newer = [ran(instance, days=10 - number) for number in range(3)]
    assert forgotten(instance, at_most=2) == 2
    assert kept(instance) == {newer}
    assert forgotten(instance, at_most=2) == 1
    assert not kept(instance) & set(old)


def test_results_of_checks_outlive_their_runs(instance: DagsterInstance, database: str) -> None:
    record(database, [lead(1)])
    result = materialize(
        [deliveries, conservation],
        selection=AssetSelection.checks(conservation),
        resources={
            "event_log": EventLog(),
            "providers": Providers(),
            "io_manager": mem_io_manager,
        },
        instance=instance,
    )
    instance.delete_run(result.run_id)
    key = AssetCheckKey(AssetKey("deliveries"), "conservation")
    found = instance.event_log_storage.get_latest_asset_check_execution_by_key([key])
    assert found[key].status is AssetCheckExecutionRecordStatus.SUCCEEDED


def test_the_daily_checks_ask_for_no_day(instance: DagsterInstance, database: str) -> None:
    record(database, [lead(1)])
    page = importlib.import_module("marketing_pipeline.definitions").defs
    done = page.resolve_job_def("check_log").execute_in_process(instance=instance)
    assert {one.check_name: one.passed for one in done.get_asset_check_evaluations()} == {
        "conservation": True,
        "finished": True,
    }


def test_the_daily_upkeep_deletes_old_runs_and_heartbeats_of_the_dead(
    instance: DagsterInstance, database: str
) -> None:
    ran(instance, days=8)
    ask = EventLog().ask
    ask(lambda conn: heartbeats.beat(conn, UUID(int=1), "dead", timedelta(days=-2)))
    ask(lambda conn: heartbeats.beat(conn, UUID(int=2), "may be alive", timedelta(hours=-2)))
    done = upkeep.execute_in_process(instance=instance, resources={"event_log": EventLog()})
    assert done.success
    assert kept(instance) == {done.run_id}
    with psycopg.connect(database) as conn:
        assert conn.execute("select run_id from heartbeats").fetchall() == [("may be alive",)]


def test_the_daily_reconciliation_puts_back_what_it_can_and_lists_the_rest(
    installed: settings.Settings, instance: DagsterInstance, database: str
) -> None:
    record(database, [campaign("spring", "c1")])
    run(installed)
    assert statuses(database) == {"FAILED": 1}
    done = reconcile_failed.execute_in_process(
        instance=instance, resources={"event_log": EventLog(), "providers": Providers()}
    )
    assert done.success
    assert statuses(database) == {"FAILED": 1}
    shown = {
        label: value.value
        for one in instance.all_logs(done.run_id, of_type=DagsterEventType.STEP_OUTPUT)
        for label, value in one.get_dagster_event().step_output_data.metadata.items()
    }
    assert (shown["redriven"], shown["planned_again"], shown["left"]) == (0, 0, 1)
    reason = "payload.campaign: no campaign 'spring'; the file has: "
    assert reason in str(shown["for_a_person"])
    assert any(
        one.user_message.startswith("left: ") and reason in one.user_message
        for one in instance.all_logs(done.run_id)
    ), "the whole list is in the run's log"


def test_a_long_list_is_cut_in_the_table_and_shows_nobodys_address() -> None:
    one = Listed(
        event_id=UUID(int=1),
        effect_id=UUID(int=2),
        provider="resend",
        reason="refused: ada@example.com | no\nsuch user",
    )
    shown = of_reconciliation(Reconciliation(left=[one] * 1201))
    left = shown["for_a_person"]
    assert isinstance(left, MarkdownMetadataValue)
    table = str(left.value).splitlines()
    assert table[2] == (
        f"| {UUID(int=1)} | {UUID(int=2)} | resend | refused: [address] \\| no such user |"
    )
    assert len(table) == 203
    assert table[-1].startswith("| and 1,001 more: see the run's log |")
