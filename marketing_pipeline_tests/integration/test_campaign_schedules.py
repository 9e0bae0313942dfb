"""Campaigns' schedules as Dagster has them: made of the file, switched on, looked at."""

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from dagster import (
    DagsterInstance,
    DefaultScheduleStatus,
    Definitions,
    RunRequest,
    ScheduleDefinition,
    SkipReason,
    build_schedule_context,
)
from dagster._core.remote_representation.external import RemoteRepository, RemoteSchedule
from dagster._core.remote_representation.external_data import RepositorySnap
from dagster._core.remote_representation.handle import RepositoryHandle
from dagster._core.scheduler.instigation import ScheduleInstigatorData

from marketing_pipeline import settings
from marketing_pipeline.defs.campaigns import TAG, campaign_schedules, switched_on
from marketing_pipeline.defs.jobs import deliver_pending
from marketing_pipeline.defs.resources import EventLog, Providers, SharedRateLimit
from marketing_pipeline.defs.sensors import pending_events
from marketing_pipeline.delivery import triggering
from marketing_pipeline_tests.fresh_settings import forget_settings
from marketing_pipeline_tests.pipeline import run, statuses

# Dagster warns of what it does itself: it reads old attributes, and hands on beta parameters.
pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning")
MINUTE = timedelta(minutes=1)
EVERY_MINUTE = '{cron: "* * * * *", timezone: Europe/Berlin}'
PLAIN = "news: {audience: newcomers, template: news}"
LOAD = """
from marketing_pipeline.definitions import defs
print(*(one.name for one in defs.schedules), sep="\\n")
"""


@pytest.fixture
def installed(
    used: settings.Settings, monkeypatch: pytest.MonkeyPatch
) -> Iterator[settings.Settings]:
    """Dagster's resources as a process with this environment has them."""
    for name, value in used.environment.items():
        monkeypatch.setenv(name, value)
    forget()
    yield used
    forget()


def forget() -> None:
    """Resources read the environment once a process."""
    forget_settings()


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[DagsterInstance]:
    """One whose records outlive it, as in a file."""
    folder = tmp_path / "dagster"
    folder.mkdir()
    with DagsterInstance.local_temp(str(folder)) as made:
        yield made


def write(used: settings.Settings, schedule: str | None) -> None:
    """Give the demo's only campaign this schedule."""
    plain = (used.home / "campaigns" / "demo.yaml").read_text().partition("\n  news: {audience")[0]
    entry = PLAIN if schedule is None else f"{PLAIN[:-1]}, schedule: {schedule}}}"
    used.campaigns_file.write_text(f"{plain}\n  {entry}\n")


def only() -> ScheduleDefinition:
    [found] = campaign_schedules()
    return found


def remote(found: ScheduleDefinition, location: str = "here") -> RemoteSchedule:
    """The schedule as the daemon and the UI know it."""
    page = Definitions(
        schedules=[found],
        jobs=[deliver_pending],
        sensors=[pending_events],
        resources={
            "event_log": EventLog(),
            "rate_limit": SharedRateLimit(),
            "providers": Providers(),
        },
    )
    repository = page.get_repository_def()
    handle = RepositoryHandle.for_test(location_name=location, repository_name=repository.name)
    snap = RepositorySnap.from_def(repository)
    return RemoteRepository(snap, handle, auto_materialize_use_sensors=True).get_schedule(
        found.name
    )


def switch_on(
    instance: DagsterInstance, found: ScheduleDefinition, ago: timedelta = timedelta(0)
) -> None:
    """As an operator does in the UI, so long ago."""
    state = instance.start_schedule(remote(found))
    assert isinstance(state.instigator_data, ScheduleInstigatorData)
    at = (datetime.now(UTC) - ago).timestamp()
    data = ScheduleInstigatorData(found.cron_schedule, start_timestamp=at)
    instance.update_instigator_state(state.with_data(data))


def tick(found: ScheduleDefinition, instance: DagsterInstance) -> RunRequest | SkipReason:
    page = {"event_log": EventLog(), "rate_limit": SharedRateLimit(), "providers": Providers()}
    with build_schedule_context(instance=instance, resources=page) as context:
        told = found(context)
    assert isinstance(told, RunRequest | SkipReason)
    return told


def said(told: RunRequest | SkipReason) -> str:
    assert isinstance(told, SkipReason)
    return str(told.skip_message)


def events(database: str) -> list[tuple[object, datetime]]:
    with psycopg.connect(database) as conn:
        return conn.execute(
            "select id, scheduled_at from marketing_events order by scheduled_at"
        ).fetchall()


def forget_request(database: str) -> None:
    with psycopg.connect(database) as conn:
        conn.execute("delete from heartbeats")


def test_a_campaign_with_a_schedule_is_a_schedule_that_an_operator_switches_on(
    installed: settings.Settings,
) -> None:
    write(installed, '{cron: "30 9 * * 1", timezone: Asia/Kolkata, missed: {policy: drop}}')
    found = only()
    assert (found.name, found.job_name) == ("campaign_news", "deliver_pending")
    assert (found.cron_schedule, found.execution_timezone) == ("0 * * * *", "UTC")
    assert found.default_status is DefaultScheduleStatus.STOPPED
    assert found.tags == {TAG: "news"}
    assert found.description is not None
    assert found.description.startswith("At 09:30 on Monday, Asia/Kolkata (30 9 * * 1). A time")
    assert "What was missed is not made good (drop). Dagster's own times" in found.description


def test_a_campaign_without_a_schedule_is_none(installed: settings.Settings) -> None:
    write(installed, None)
    assert campaign_schedules() == []


def test_a_look_records_what_is_due_and_wakes_a_run(
    installed: settings.Settings, database: str, instance: DagsterInstance
) -> None:
    write(installed, EVERY_MINUTE)
    found = only()
    switch_on(instance, found, ago=MINUTE)
    told = tick(found, instance)
    assert isinstance(told, RunRequest)
    assert told.tags == {TAG: "news"}
    recorded = events(database)
    assert recorded
    assert [one for one, _ in recorded] == [
        triggering.event_id("news", instant) for _, instant in recorded
    ]
    assert "next: " in said(tick(found, instance))
    assert len(events(database)) in {len(recorded), len(recorded) + 1}, "a minute may have begun"


def test_what_is_recorded_beside_a_run_that_is_awake_is_told(
    installed: settings.Settings, database: str, instance: DagsterInstance
) -> None:
    write(installed, EVERY_MINUTE)
    found = only()
    switch_on(instance, found, ago=MINUTE)
    with psycopg.connect(database) as conn:
        conn.execute(
            """insert into heartbeats (worker, kind, run_id, started_at, expires_at)
               values (gen_random_uuid(), 'delivery', 'r', now(), now() + interval '1 minute')"""
        )
    story = said(tick(found, instance))
    [(event_id, _), *_] = events(database)
    assert f"recorded CAMPAIGN_TRIGGER {event_id} for 20" in story
    assert "Europe/Berlin (" in story
    assert story.endswith("; a delivery run is awake, or has been asked for")


def test_a_schedule_that_is_switched_off_records_nothing_when_somebody_tries_it(
    installed: settings.Settings, database: str, instance: DagsterInstance
) -> None:
    write(installed, EVERY_MINUTE)
    assert "is switched off, and records nothing; next: 20" in said(tick(only(), instance))
    found = only()
    switch_on(instance, found, ago=MINUTE)
    started = remote(found)
    instance.stop_schedule(started.get_remote_origin_id(), started.selector_id, started)
    assert "is switched off" in said(tick(found, instance))
    assert events(database) == []


def test_what_was_due_before_it_was_switched_on_is_not_sent(
    installed: settings.Settings, database: str, instance: DagsterInstance
) -> None:
    past = datetime.now(UTC) - timedelta(minutes=10)
    at = f"{{at: {past:%Y-%m-%dT%H:%M}, timezone: UTC}}"
    write(installed, at)
    found = only()
    instance.start_schedule(remote(found))
    assert said(tick(found, instance)) == "there is no next one"
    switch_on(instance, found, ago=timedelta(hours=1))
    assert isinstance(tick(found, instance), RunRequest), "the known-bad case"
    assert len(events(database)) == 1


def test_since_when_it_is_on_is_what_dagster_keeps_and_outlives_a_restart(
    installed: settings.Settings, instance: DagsterInstance
) -> None:
    write(installed, EVERY_MINUTE)
    found = only()
    assert switched_on(instance, found.name) is None
    before = datetime.now(UTC)
    instance.start_schedule(remote(found))
    since = switched_on(instance, found.name)
    assert since is not None
    assert before <= since <= datetime.now(UTC)
    instance.start_schedule(remote(found))
    with DagsterInstance.from_ref(instance.get_ref()) as restarted:
        assert switched_on(restarted, found.name) == since
        assert switched_on(restarted, "campaign_other") is None
    instance.start_schedule(remote(found, location="elsewhere"))
    last = switched_on(instance, found.name)
    assert last is not None
    assert last > since, "of two code locations the last counts"


def test_what_was_missed_is_told(
    installed: settings.Settings, database: str, instance: DagsterInstance
) -> None:
    past = datetime.now(UTC) - timedelta(hours=2)
    missed = "missed: {policy: drop}"
    write(installed, f"{{at: {past:%Y-%m-%dT%H:%M}, timezone: UTC, {missed}}}")
    found = only()
    switch_on(instance, found, ago=timedelta(hours=3))
    moment = f"{past:%Y-%m-%d %H:%M} UTC ({past:%H:%M} UTC)"
    assert said(tick(found, instance)) == (
        f"missed, and not sent (drop): {moment}; there is no next one"
    )
    assert events(database) == []


def test_the_file_is_read_at_each_look(
    installed: settings.Settings, database: str, instance: DagsterInstance
) -> None:
    write(installed, EVERY_MINUTE)
    found = only()
    switch_on(instance, found, ago=MINUTE)
    write(installed, None)
    assert said(tick(found, instance)).startswith("campaign 'news' has no schedule any more")
    installed.campaigns_file.write_text(
        installed.campaigns_file.read_text().replace("  news: {audience", "  old: {audience")
    )
    assert said(tick(found, instance)).startswith("campaign 'news' is not in the file any more")
    write(installed, "{at: 2090-01-01T09:00, timezone: UTC}")
    story = said(tick(found, instance))
    assert "next: 2090-01-01 09:00 UTC" in story
    assert "the file has other times by now: reload the definitions" in story
    assert events(database) == []


def test_a_campaign_that_a_schedule_triggers_is_delivered(
    installed: settings.Settings, database: str, instance: DagsterInstance
) -> None:
    write(installed, EVERY_MINUTE)
    found = only()
    switch_on(instance, found, ago=MINUTE)
    tick(found, instance)
    forget_request(database)
    run(installed)
    assert statuses(database) == {"COMPLETED": len(events(database))}


def loaded(folder: Path) -> "subprocess.CompletedProcess[str]":
    """What a process that loads the definitions says."""
    return subprocess.run(
        [sys.executable, "-c", LOAD],
        env={"PATH": os.environ["PATH"], "MARKETING_HOME": str(folder)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda file: file.unlink(), "pipeline.yaml:1: there is no such file"),
        (lambda file: file.write_text("version: [1"), "pipeline.yaml:1: "),
        (lambda file: file.write_text("version: \x01"), "special characters are not allowed"),
        (lambda file: file.write_bytes(b"version: \xff"), "can't decode"),
        (
            lambda file: file.write_text(
                file.read_text().replace("template: news}", "template: nwes}")
            ),
            "did you mean 'news'?",
        ),
    ],
    ids=["missing", "not YAML", "control", "not UTF-8", "wrong"],
)
def test_a_file_that_cannot_be_read_takes_nothing_else_down_and_is_told(
    home: Path, spoil: object, reason: str
) -> None:
    assert callable(spoil)
    spoil(home / "campaigns" / "pipeline.yaml")
    done = loaded(home)
    assert done.stdout.split() == ["daily_reconciliation", "daily_checks", "daily_upkeep"]
    assert '"level": "warning", "event": "schedules_lost"' in done.stderr
    assert reason in done.stderr
