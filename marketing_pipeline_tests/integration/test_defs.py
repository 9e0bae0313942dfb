"""What wakes delivery and what watches over it, asked in this process of a real database."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from dagster import (
    AssetSelection,
    DagsterInstance,
    ExecuteInProcessResult,
    RunRequest,
    SkipReason,
    build_sensor_context,
    materialize,
    mem_io_manager,
)

from marketing_pipeline import settings
from marketing_pipeline.defs import resources
from marketing_pipeline.defs.assets import campaign_performance, deliveries, leads
from marketing_pipeline.defs.checks import conservation
from marketing_pipeline.defs.resources import EventLog
from marketing_pipeline.defs.sensors import is_due, pending_events
from marketing_pipeline.delivery import planner
from marketing_pipeline.delivery.assembly import assemble
from marketing_pipeline.event_log import heartbeats, ledger
from marketing_pipeline.event_log.reading import DueWork
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
    resources._settings.cache_clear()
    resources._servers.cache_clear()


def tick() -> RunRequest | SkipReason:
    with DagsterInstance.ephemeral() as instance:
        context = build_sensor_context(instance=instance, resources={"event_log": EventLog()})
        told = pending_events(context)
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
        ledger.Pause(provider=name, until=until, reason="its quota is used up")
        for name in assembly.destinations
        if not name.startswith(("mailgun", "site"))
    )
    assert len(others) == 1, "a lead is two effects, of two providers"
    asked(database, lambda conn: ledger.pause(conn, others[0], now))
    assert isinstance(tick(), RunRequest), "the other provider's work is due"
    with psycopg.connect(database) as conn:
        conn.execute("delete from heartbeats")
    asked(database, lambda conn: ledger.pause(conn, last, now))
    assert tick() == SkipReason("nothing is due")


def checked() -> ExecuteInProcessResult:
    return materialize(
        [deliveries, conservation],
        selection=AssetSelection.checks(conservation),
        resources={"event_log": EventLog(), "io_manager": mem_io_manager},
        raise_on_error=False,
    )


def test_conservation_holds_until_the_ledger_loses_an_effect(
    installed: settings.Settings, database: str
) -> None:
    record(database, [lead(1), lead(2), post(1)])
    run(installed)
    [good] = checked().get_asset_check_evaluations()
    assert good.passed
    assert good.metadata["planned"].value == 5
    assert good.metadata["problems"].value == "none"
    with psycopg.connect(database) as conn:  # the known-bad case
        row = conn.execute("select id, day from effects order by id limit 1").fetchone()
        assert row is not None
        conn.execute("set session_replication_role = replica")  # no trigger refuses it
        conn.execute("delete from attempts where effect_id = %s", [row[0]])
        conn.execute("delete from effects where id = %s", [row[0]])
    [bad] = checked().get_asset_check_evaluations()
    assert not bad.passed
    assert bad.metadata["problems"].value == f"{row[1]}: 1 effects planned and not in the ledger"


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
        resources={"event_log": EventLog(), "io_manager": mem_io_manager},
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
