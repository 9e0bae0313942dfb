"""What wakes delivery and what watches over it, asked in this process of a real database."""

import asyncio
import importlib
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString
from uuid import uuid4

import psycopg
import pytest
import redis
from dagster import (
    AssetCheckEvaluation,
    AssetChecksDefinition,
    AssetKey,
    AssetMaterialization,
    AssetObservation,
    AssetSelection,
    DagsterInstance,
    DagsterRun,
    DagsterRunStatus,
    Definitions,
    RunRequest,
    SkipReason,
    build_sensor_context,
    evaluate_automation_conditions,
    materialize,
    mem_io_manager,
)

from marketing_pipeline import settings
from marketing_pipeline.defs.assets import campaign_performance, deliveries, leads
from marketing_pipeline.defs.checks import conservation, finished
from marketing_pipeline.defs.resources import EventLog, Providers, SharedRateLimit
from marketing_pipeline.defs.sensors import is_due, pending_events
from marketing_pipeline.delivery import planner
from marketing_pipeline.delivery.assembly import assemble
from marketing_pipeline.event_log import heartbeats, pauses
from marketing_pipeline.event_log.pauses import Pause
from marketing_pipeline.event_log.reading import DueWork
from marketing_pipeline_tests.fresh_settings import forget_settings
from marketing_pipeline_tests.pipeline import campaign, campaign_name, lead, post, record, run

# Dagster warns of what it does itself: it reads old attributes, and hands on beta parameters.
pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning")
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
NOTHING = {"events": 0, "plans": 0, "effects": 0, "doubts": 0, "expired": 0}
LIVES = timedelta(seconds=15)


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


def tick() -> RunRequest | SkipReason:
    with DagsterInstance.ephemeral() as instance:
        page = {
            "event_log": EventLog(),
            "rate_limit": SharedRateLimit(),
            "providers": Providers(),
        }
        told = pending_events(build_sensor_context(instance=instance, resources=page))
    assert isinstance(told, RunRequest | SkipReason)
    return told


def asked(database: str, question: Callable[[psycopg.AsyncConnection], Awaitable[Any]]) -> Any:
    async def ask() -> Any:
        async with await psycopg.AsyncConnection.connect(database, autocommit=True) as conn:
            return await question(conn)

    return asyncio.run(ask())


def beaten(database: str, lives: timedelta) -> None:
    asked(database, lambda conn: heartbeats.beat(conn, uuid4(), "some-run", lives))


@pytest.mark.parametrize("kind", NOTHING)
def test_each_kind_of_work_is_reason_enough(kind: str) -> None:
    assert is_due(DueWork(**(NOTHING | {kind: 1}), earliest=None), NOW)


@pytest.mark.parametrize(
    ("earliest", "due"),
    [
        (None, False),
        (NOW + timedelta(microseconds=1), False),
        (NOW, True),
        (NOW - timedelta(days=1), True),
    ],
)
def test_what_is_to_come_is_due_when_its_time_has_come(
    earliest: datetime | None, due: bool
) -> None:
    assert is_due(DueWork(**NOTHING, earliest=earliest), NOW) is due


@pytest.mark.usefixtures("installed")
def test_an_empty_log_wakes_nobody() -> None:
    assert tick() == SkipReason("nothing is due")


@pytest.mark.usefixtures("installed")
def test_a_due_event_wakes_one_run_and_not_another_before_it_could_start(
    database: str,
) -> None:
    record(database, [lead(1)])
    assert isinstance(tick(), RunRequest)
    assert tick() == SkipReason("a delivery run is awake, or has been asked for")
    with psycopg.connect(database) as conn:  # the run was lost before it said a word
        conn.execute("update heartbeats set expires_at = clock_timestamp()")
    assert isinstance(tick(), RunRequest)


@pytest.mark.usefixtures("installed")
def test_a_run_that_is_awake_is_left_to_do_it_and_a_silent_one_is_not(
    database: str,
) -> None:
    record(database, [lead(1)])
    beaten(database, -LIVES)
    beaten(database, LIVES)
    assert isinstance(tick(), SkipReason)
    with psycopg.connect(database) as conn:
        conn.execute("update heartbeats set expires_at = clock_timestamp()")
    assert isinstance(tick(), RunRequest)


@pytest.mark.usefixtures("installed")
def test_an_event_of_tomorrow_wakes_nobody_today(
    database: str,
) -> None:
    with psycopg.connect(database) as conn:
        conn.execute(
            """insert into marketing_events (id, idempotency_key, type, payload, source,
               fingerprint, scheduled_at, created_at, updated_at)
               values (gen_random_uuid(), 'k', 'CONTENT_PUBLISH', '{}', 'demo', repeat('0', 64),
               now() + interval '1 day', now(), now())"""
        )
    assert tick() == SkipReason("nothing is due")


@pytest.mark.usefixtures("installed")
def test_a_log_that_was_restored_wakes_nobody_and_says_why(
    database: str, valkey: redis.Redis
) -> None:
    record(database, [lead(1)])
    with psycopg.connect(database) as conn:
        row = conn.execute("select identity from installation").fetchone()
        assert row is not None
    valkey.set(f"high_water:{row[0]}", 7)
    told = tick()
    assert isinstance(told, SkipReason)
    assert "it was restored from a backup" in str(told.skip_message)
    valkey.delete(f"high_water:{row[0]}")
    assert isinstance(tick(), RunRequest)


def test_effects_of_a_provider_that_the_file_has_no_more_wake_nobody(
    installed: settings.Settings, database: str
) -> None:
    record(database, [lead(1)])
    assert isinstance(tick(), RunRequest)
    run(installed)
    with psycopg.connect(database) as conn:
        conn.execute("set session_replication_role = replica")
        conn.execute(
            """update effects set provider = 'gone', state = 'PLANNED', settled_at = null,
               provider_ref = null where kind = 'email'"""
        )
        conn.execute("delete from heartbeats")
    assert tick() == SkipReason("nothing is due")


def test_what_only_waits_for_a_paused_provider_wakes_nobody(
    installed: settings.Settings, database: str
) -> None:
    record(database, [lead(1)])
    assembly = assemble(installed)
    now = datetime.now(UTC)

    async def plan(conn: psycopg.AsyncConnection) -> None:
        await planner.keep(conn, assembly.configuration, now)
        await planner.plan_due(conn, assembly.configuration.meaning.rules, now)

    asked(database, plan)
    until = now + timedelta(minutes=10)
    *others, last = (
        Pause(provider=name, until=until, reason="its quota is used up")
        for name in assembly.destinations
        if not name.startswith(("mailgun", "site"))
    )
    assert len(others) == 1, "a lead is two effects, of two providers"
    asked(database, lambda conn: pauses.keep(conn, others[0], now))
    assert isinstance(tick(), RunRequest), "the other provider's work is due"
    with psycopg.connect(database) as conn:
        conn.execute("delete from heartbeats")
    asked(database, lambda conn: pauses.keep(conn, last, now))
    assert tick() == SkipReason("nothing is due")


def checked(check: AssetChecksDefinition) -> AssetCheckEvaluation:
    done = materialize(
        [deliveries, check],
        selection=AssetSelection.checks(check),
        resources={
            "event_log": EventLog(),
            "providers": Providers(),
            "io_manager": mem_io_manager,
        },
        raise_on_error=False,
    )
    [evaluation] = done.get_asset_check_evaluations()
    return evaluation


def test_conservation_holds_until_the_ledger_loses_an_effect(
    installed: settings.Settings, database: str
) -> None:
    record(database, [lead(1), lead(2), post(1)])
    run(installed)
    good = checked(conservation)
    assert good.passed
    assert good.metadata["planned"].value == 5
    assert good.metadata["problems"].value == "none"
    with psycopg.connect(database) as conn:  # the known-bad case
        row = conn.execute("select id, day from effects order by id limit 1").fetchone()
        assert row is not None
        conn.execute("set session_replication_role = replica")  # no trigger refuses it
        conn.execute("delete from attempts where effect_id = %s", [row[0]])
        conn.execute("delete from effects where id = %s", [row[0]])
    bad = checked(conservation)
    assert not bad.passed
    assert bad.metadata["problems"].value == f"{row[1]}: 1 effects planned and not in the ledger"


@pytest.mark.parametrize(
    ("spoiled", "problem"),
    [
        ("delete from effects where kind = 'post'", "effects: 1 missing"),
        (
            """update effects set state = 'PLANNED', provider_ref = null, settled_at = null
               where kind = 'post'""",
            "effects: 1 open",
        ),
        (
            """update effects set state = 'UNKNOWN', doubt_since = first_attempt_at,
               last_error = 'who knows' where kind = 'post'""",
            "effects: 1 unknown",
        ),
        (
            "update effects set state = 'FAILED', last_error = 'no' where kind = 'post'",
            "effects: 1 failed",
        ),
        ("delete from effects where kind = 'post'; delete from plans", "it has no plan"),
    ],
)
def test_an_event_is_not_at_its_end_before_all_its_effects_are(
    installed: settings.Settings, database: str, spoiled: LiteralString, problem: str
) -> None:
    record(database, [post(1)])
    run(installed)
    good = checked(finished)
    assert good.passed
    assert good.metadata["problems"].value == "none"
    with psycopg.connect(database) as conn:  # the known-bad case
        conn.execute("set session_replication_role = replica")  # no trigger refuses it
        conn.execute(spoiled)
        row = conn.execute("select id, day from marketing_events").fetchone()
        assert row is not None
    bad = checked(finished)
    assert not bad.passed
    assert bad.metadata["problems"].value == f"{row[1]}: event {row[0]} is COMPLETED; {problem}"


def test_work_under_way_and_what_could_not_be_planned_pass_the_gate(
    installed: settings.Settings, database: str
) -> None:
    record(database, [lead(1)])
    record(database, [campaign("nobody knows it", "c1")])
    run(installed)
    record(database, [lead(2)])
    assert checked(finished).passed


def begun(instance: DagsterInstance, page: Definitions, day: str) -> DagsterRun:
    """A real record of a run that is to materialize the views of a day."""
    views = {AssetKey("leads"), AssetKey("campaign_performance")}
    whole = page.get_repository_def().get_implicit_global_asset_job_def()
    return instance.create_run_for_job(
        whole.get_subset(asset_selection=views),
        tags={"dagster/partition": day},
        asset_selection=frozenset(views),
        status=DagsterRunStatus.STARTED,
    )


@pytest.mark.usefixtures("installed")
def test_a_view_is_made_again_for_each_day_that_changed_and_for_no_other() -> None:
    page = importlib.import_module("marketing_pipeline.definitions").defs
    with DagsterInstance.ephemeral() as instance:

        def observe(day: str, version: str) -> None:
            tags = {"dagster/data_version": version}
            told = AssetObservation("marketing_events", partition=day, tags=tags)
            instance.report_runless_asset_event(told)

        cursor = None

        def requested() -> set[str]:
            nonlocal cursor
            result = evaluate_automation_conditions(page, instance, cursor=cursor)
            cursor = result.cursor
            days = result.get_requested_partitions(AssetKey("leads"))
            assert result.get_requested_partitions(AssetKey("campaign_performance")) == days
            assert result.total_requested == 2 * len(days), "nothing else is ever requested"
            return {str(day) for day in days}

        observe("2026-02-01", "a")
        assert requested() == set(), "where it begins to look is no change"
        observe("2026-02-01", "b")
        observe("2025-02-01", "a")
        assert requested() == {"2026-02-01", "2025-02-01"}
        assert requested() == set(), "once is enough"
        observe("2026-02-01", "b")
        instance.report_runless_asset_event(
            AssetMaterialization("deliveries", partition="2026-02-01")
        )
        assert requested() == set(), "the same version is no change, nor is a report"
        observe("2026-02-01", "c")
        assert requested() == {"2026-02-01"}
        observe("2026-02-01", "d")
        assert requested() == {"2026-02-01"}, "a change right after a request is another one"
        assert requested() == set()
        under_way = begun(instance, page, "2026-02-01")
        observe("2026-02-01", "e")
        assert requested() == set(), "a run is about to read the day"
        instance.report_run_failed(under_way)
        assert requested() == {"2026-02-01"}, "it may have read before the change"


def test_views_tell_their_counts_and_never_an_address(
    installed: settings.Settings, database: str
) -> None:
    day = datetime.now(UTC).date().isoformat()
    record(database, [lead(1), lead(2)])
    record(database, [campaign(campaign_name(installed.home), "c1")])
    run(installed)
    made = materialize(
        [deliveries, leads, campaign_performance],
        partition_key=day,
        resources={
            "event_log": EventLog(),
            "providers": Providers(),
            "io_manager": mem_io_manager,
        },
    )
    shown = {
        one.asset_key.to_user_string(): {k: v.value for k, v in one.metadata.items()}
        for node in ("deliveries", "leads", "campaign_performance")
        for one in made.asset_materializations_for_node(node)
    }
    assert shown["deliveries"]["sent"] == shown["deliveries"]["verified_effects"] == 6
    assert shown["deliveries"]["differences"] == "none"
    assert shown["leads"]["rows"] == 2
    assert shown["campaign_performance"]["rows"] == 1
    with psycopg.connect(database) as conn:
        kept = conn.execute(
            "select name, rows, digest, content from views order by name"
        ).fetchall()
        people = {str(row[0]) for row in conn.execute("select id from recipients")}
    assert [row[:2] for row in kept] == [("campaign_performance", 1), ("leads", 2)]
    assert {row[0]: row[2] for row in kept} == {
        name: shown[name]["digest"] for name in ("campaign_performance", "leads")
    }
    content = dict((row[0], row[3]) for row in kept)
    assert all(person in content["leads"] for person in people)
    assert "@" not in "".join(content.values())
