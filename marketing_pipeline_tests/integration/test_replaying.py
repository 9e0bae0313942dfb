"""Replays of many days: what is asked of the command, of workers, of units and of the asset."""

import asyncio
import itertools
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import date, timedelta
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from dagster import AssetKey, DagsterInstance, ExecuteInProcessResult, Failure, materialize
from psycopg import AsyncConnection

from marketing_pipeline import embedded
from marketing_pipeline.defs.assets import deliveries
from marketing_pipeline.defs.resources import EventLog, Providers
from marketing_pipeline.delivery import replay, replaying, units
from marketing_pipeline.delivery.replay import Replayer
from marketing_pipeline.delivery.units import EVERY, Renderings, Slice, Unit
from marketing_pipeline.delivery.verification import Findings, Verification, What
from marketing_pipeline.domain.event import EventType
from marketing_pipeline.event_log.history import NO_SEQ
from marketing_pipeline_tests import replay_log, replay_proof
from marketing_pipeline_tests.fresh_settings import forget_settings
from marketing_pipeline_tests.patience import until
from marketing_pipeline_tests.replay_log import FIRST

EVENTS = 31 * 20 + replay_log.CAMPAIGNS + replay_log.STEPS  # twenty a day, and these
CAMPAIGN_DAY = FIRST + timedelta(days=7)
COMMAND = (sys.executable, "-m", "marketing_pipeline", "replay")
Ran = subprocess.CompletedProcess[str]
Cli = Callable[..., Ran]


@pytest.fixture(scope="module")
def log(servers: embedded.Servers) -> Iterator[str]:
    """A month that was sent; nothing here changes it."""
    with replay_proof.database(servers.database_url) as url:
        replay_log.build(url, EVENTS)
        yield url


@pytest.fixture
def env(log: str, servers: embedded.Servers) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "MARKETING_DATABASE_URL": log,
        "MARKETING_REDIS_URL": servers.redis_url,
        "DAGSTER_POSTGRES_URL": servers.dagster_url,
    }


@pytest.fixture
def cli(env: dict[str, str]) -> Cli:
    def run(*words: str) -> Ran:
        return subprocess.run(
            [*COMMAND, *words], env=env, capture_output=True, text=True, timeout=60, check=False
        )

    return run


def asked(url: str, question: Callable[[AsyncConnection], Awaitable[Verification]]) -> Verification:
    async def ask() -> Verification:
        async with await AsyncConnection.connect(url, autocommit=True) as conn:
            return await question(conn)

    return asyncio.run(ask())


def verified(url: str, day: date, types: tuple[EventType, ...] = EVERY) -> Verification:
    return asked(url, lambda conn: replay.verify(conn, day, types))


@contextmanager
def tampered(log: str) -> Iterator[tuple[date, str]]:
    """One rendering was recorded otherwise, on a day and of an effect."""
    day, other = FIRST + timedelta(days=4), "0" * 64
    change = "update attempts set request_sha256 = %s where effect_id = %s"
    with psycopg.connect(log, autocommit=True) as conn:
        found = conn.execute(
            """select e.id::text, request_sha256
               from effects e join attempts a on a.effect_id = e.id
               join recipients r on r.id = e.recipient_id
               where e.day = %s and e.calls = 1 and r.erased_at is null order by e.id limit 1""",
            (day,),
        )
        effect, before = found.fetchone() or ("", "")
        conn.execute(change, (other, effect))
        yield day, effect
        conn.execute(change, (before, effect))


def test_a_difference_is_told_to_programs_and_people_and_fails(cli: Cli, log: str) -> None:
    with tampered(log) as (day, effect):
        span = ("--from", str(day), "--to", str(day), "--workers", "1")
        as_json, as_text = cli(*span, "--json"), cli(*span)
    assert (as_json.returncode, as_text.returncode) == (1, 1)
    (told,) = json.loads(as_json.stdout)["differences"]
    assert (told["what"], told["effect_id"], told["recorded"]) == ("rendering", effect, "0" * 64)
    assert told["expected"] != told["recorded"]
    assert f"{day} effect {effect}: its bytes come out differently\n" in as_text.stdout
    assert f"    recorded  {'0' * 64}\n" in as_text.stdout
    assert cli(*span, "--json").returncode == 0


def test_the_command_tells_programs_what_was_found(cli: Cli, log: str) -> None:
    ran = cli("--from", "2026-03-07", "--to", "2026-03-09", "--workers", "1", "--json")
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    by_day = [verified(log, date(2026, 3, day)) for day in (7, 8, 9)]
    assert found["days"] == {str(one.day): one.digest for one in by_day}
    for name in ("events", "effects", "rendered", "erased"):
        assert found[name] == sum(getattr(one, name) for one in by_day), name
    assert found["events"] == 61, "twenty a day, and a campaign"
    assert found["effects"] == found["rendered"] + found["erased"]
    assert found["erased"] > 0
    assert (found["differences"], found["different"], found["calls"]) == ([], 0, 0)
    assert (found["workers"], len(found["digest"])) == (1, 64)
    assert found["seconds"] > 0


def test_the_command_tells_people_what_was_found(cli: Cli) -> None:
    ran = cli("--from", "2026-03-08", "--to", "2026-03-08", "--workers", "1")
    assert ran.returncode == 0, ran.stderr
    assert "2026-03-08" in ran.stdout
    assert "no call was made" in ran.stdout
    assert "differences" not in ran.stdout


def test_a_day_without_plans_is_no_error(cli: Cli) -> None:
    ran = cli("--from", "2025-01-01", "--to", "2025-02-01", "--json")
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["days"] == {}


def test_types_restrict_what_is_replayed(cli: Cli, log: str) -> None:
    span = ("--from", str(CAMPAIGN_DAY), "--to", str(CAMPAIGN_DAY), "--workers", "1", "--json")
    found = json.loads(cli(*span, "--types", "content_publish,CAMPAIGN_TRIGGER").stdout)
    chosen = (EventType.CONTENT_PUBLISH, EventType.CAMPAIGN_TRIGGER)
    assert found["events"] == 7
    assert found["days"] == {str(CAMPAIGN_DAY): verified(log, CAMPAIGN_DAY, chosen).digest}
    parts = [verified(log, CAMPAIGN_DAY, (type,)) for type in EventType]
    whole = verified(log, CAMPAIGN_DAY)
    assert sum(int(one.digest, 16) for one in parts) % 2**256 == int(whole.digest, 16)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--from", "March", "--to", "2026-03-01"), "from: 'March' is not a day; write YYYY"),
        (("--from", "2026-03-02", "--to", "2026-03-01"), "from: 2026-03-02 is after"),
        (
            ("--from", "2026-03-01", "--to", "2026-03-01", "--types", "LEADS"),
            "types: 'LEADS' is not known; write LEAD_CAPTURE",
        ),
        (
            ("--from", "2026-03-01", "--to", "2026-03-01", "--workers", "0"),
            "workers: 0 is not enough; write 1 or more",
        ),
        (
            ("--from", "2026-03-01", "--to", "2026-03-01", "--mode", "send"),
            "mode: 'send' is not known; write resend",
        ),
    ],
)
def test_bad_input_is_one_line_with_its_remedy(cli: Cli, words: tuple[str, ...], told: str) -> None:
    ran = cli(*words)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith(f"marketing-pipeline: {told}")
    assert ran.stderr.count("\n") == 1


def test_units_cut_anywhere_come_to_what_the_day_is(log: str) -> None:
    """A day of a million events is divided as this one of twenty is here."""

    async def replayed(parts: list[Unit]) -> Findings:
        async with await AsyncConnection.connect(log, autocommit=True) as conn:
            replayer, found = Replayer(conn), list[Findings]()
            for part in parts:
                async with conn.transaction():
                    await conn.execute(replay.ONLY_READ)
                    found.append(await replayer.replay(part))
            return reduce(add, found[::-1], Findings())

    async def whole() -> list[Unit]:
        async with await AsyncConnection.connect(log, autocommit=True) as conn:
            return await units.of_day(conn, CAMPAIGN_DAY, EVERY)

    parts = list[Unit]()
    for unit in asyncio.run(whole()):
        match unit:
            case Slice():
                bounds = [unit.since, unit.since + 3, unit.since + 4, unit.since + 15, NO_SEQ]
                parts += [
                    Slice(day=unit.day, types=unit.types, since=since, before=before)
                    for since, before in itertools.pairwise(bounds)
                ]
            case Renderings():
                middle = UUID("80000000-0000-0000-0000-000000000000")
                below = UUID(int=middle.int - 1)
                of = {"day": unit.day, "event_id": unit.event_id, "epoch": unit.epoch}
                parts.append(Renderings(**of, first=unit.first, last=below))  # type: ignore[arg-type]
                parts.append(Renderings(**of, first=middle, last=unit.last))  # type: ignore[arg-type]
            case _:
                parts.append(unit)
    assert len(parts) == 4 + 2 + 1
    assert asyncio.run(replayed(parts)) == asyncio.run(replayed(asyncio.run(whole())))
    assert asyncio.run(replayed(parts[1:])) != asyncio.run(replayed(parts)), "the known-bad case"


def test_steps_of_a_sequence_are_replayed_beside_other_events(log: str) -> None:
    day, types = FIRST + timedelta(days=replay_log.CHANGED), (EventType.CAMPAIGN_TRIGGER,)
    steps = -(-replay_log.STEPS // 3)
    found = verified(log, day, types)
    assert (found.events, found.differences) == (1 + steps, ())
    assert found.effects > steps

    async def alone() -> list[Unit]:
        async with await AsyncConnection.connect(log, autocommit=True) as conn:
            return await units.of_day(conn, day, types)

    kinds = [type(unit).__name__ for unit in asyncio.run(alone())]
    assert kinds == ["Books", "Renderings", "Slice"], "a step is no unit of its own"


@pytest.mark.parametrize(
    ("type", "poison", "told"),
    [
        ("CAMPAIGN_TRIGGER", '{"campaign": "gone"}', "no campaign 'gone'; the file has: news"),
        ("CONTENT_PUBLISH", '{"number": 12345678901234567890}', "ValueError: "),
    ],
)
def test_an_event_that_can_no_longer_be_planned_is_told_and_stops_no_others(
    log: str, type: str, poison: str, told: str
) -> None:
    change = "update marketing_events set payload = %s where id = %s"
    clean = verified(log, CAMPAIGN_DAY)
    with psycopg.connect(log, autocommit=True) as conn:
        conn.execute("set session_replication_role = replica")  # the log lets nobody change facts
        found = conn.execute(
            """select id, payload::text from marketing_events
               where day = %s and type = %s order by id limit 1""",
            (CAMPAIGN_DAY, type),
        )
        event_id, before = found.fetchone() or (None, "")
        conn.execute(change, (poison, event_id))
        try:
            poisoned = verified(log, CAMPAIGN_DAY)
        finally:
            conn.execute(change, (before, event_id))
    (one,) = poisoned.shown
    assert (one.what, one.event_id, one.effect_id) == (What.UNPLANNABLE, event_id, None)
    assert told in one.expected
    assert (poisoned.events, poisoned.rendered) == (clean.events, clean.rendered)
    assert poisoned.digest != clean.digest == verified(log, CAMPAIGN_DAY).digest


def test_a_replay_cannot_write(log: str) -> None:
    async def write() -> None:
        async with (
            await AsyncConnection.connect(log, autocommit=True) as conn,
            conn.transaction(),
        ):
            await conn.execute(replay.ONLY_READ)
            await conn.execute("update effects set priority = 0")

    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        asyncio.run(write())


def test_progress_ends_with_all_that_was_promised(log: str) -> None:
    heard = list[replaying.Progress]()
    wanted = replaying.asked(str(FIRST), str(FIRST + timedelta(days=2)), [], "verify")
    found = replaying.run(log, wanted, 2, heard.append)
    assert heard[-1].effects == heard[-1].of_effects == sum(one.effects for one in found.days)
    assert heard[-1].days == heard[-1].of_days == 3
    assert [one.effects for one in heard] == sorted(one.effects for one in heard)


def test_a_killed_worker_is_told_and_a_second_replay_is_right(log: str) -> None:
    wanted = replaying.asked(str(FIRST), str(FIRST + timedelta(days=5)), [], "verify")

    def kill(_: replaying.Progress) -> None:
        for worker in multiprocessing.active_children():
            worker.kill()

    with pytest.raises(replaying.CannotReplay, match="workers: one was killed"):
        replaying.run(log, wanted, 1, kill)
    found = replaying.run(log, wanted, 1, lambda _: None)
    assert [one.digest for one in found.days] == [
        verified(log, FIRST + timedelta(days=number)).digest for number in range(6)
    ]


@pytest.mark.parametrize("told", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_of_a_replay_that_was_interrupted(
    log: str, env: dict[str, str], told: signal.Signals
) -> None:
    span = ("--from", str(FIRST), "--to", str(FIRST + timedelta(days=30)), "--workers", "2")
    with psycopg.connect(log) as conn:
        conn.execute("lock table attempts")  # which its workers want to read
        with subprocess.Popen(
            [*COMMAND, *span], env=env, stderr=subprocess.PIPE, text=True, start_new_session=True
        ) as process:
            until(lambda: waiting(conn) == 2)
            assert len(living(process.pid)) >= 3, "itself and its workers"
            if told is signal.SIGKILL:
                process.kill()
            else:
                os.killpg(process.pid, told)  # as a terminal does
                conn.rollback()
            until(lambda: not living(process.pid))
            _, said = process.communicate()
    assert "Traceback" not in said
    assert process.returncode == (130 if told is signal.SIGINT else -told)


def waiting(conn: psycopg.Connection) -> int:
    query = """select count(*) from pg_stat_activity
               where datname = current_database() and wait_event_type = 'Lock'"""
    (found,) = conn.execute(query).fetchone() or (0,)
    conn.execute("select pg_stat_clear_snapshot()")
    return int(found)


def living(session: int) -> set[int]:
    """Processes of a session that are more than a line in a table."""
    found = set[int]()
    for place in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):  # gone meanwhile
            state, _, _, of = place.read_text().rpartition(")")[2].split()[:4]
            if int(of) == session and state != "Z":
                found.add(int(place.parent.name))
    return found


@pytest.fixture
def installed(
    log: str, servers: embedded.Servers, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Dagster's resources as a process with this environment has them."""
    monkeypatch.setenv("MARKETING_DATABASE_URL", log)
    monkeypatch.setenv("MARKETING_REDIS_URL", servers.redis_url)
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", servers.dagster_url)
    forget_settings()
    yield
    forget_settings()


@pytest.mark.usefixtures("installed")
@pytest.mark.filterwarnings("ignore::dagster.BetaWarning")
def test_the_asset_fails_and_names_what_differs(log: str) -> None:
    with tampered(log) as (day, effect), pytest.raises(Failure, match=f"effect {effect}: its by"):
        materialized({}, day, day)


@pytest.mark.usefixtures("installed")
@pytest.mark.filterwarnings("ignore::dagster.BetaWarning")
def test_a_run_that_fails_for_a_difference_still_shows_each_day(log: str, tmp_path: Path) -> None:
    with tampered(log) as (day, effect), DagsterInstance.ephemeral(str(tmp_path)) as instance:
        span = day - timedelta(days=1), day
        done = run_of({}, *span, instance=instance, raise_on_error=False)
        made = instance.fetch_materializations(AssetKey("deliveries"), limit=10).records
    assert not done.success
    shown = {
        str(one.partition_key): str(one.asset_materialization.metadata["differences"].value)
        for one in made
        if one.asset_materialization
    }
    assert set(shown) == {str(one) for one in span}
    assert shown[str(span[0])] == "none"
    assert effect in shown[str(day)]


def materialized(config: dict[str, object], first: date, last: date) -> dict[str, object]:
    """The digest of each day of a range that one run materialized."""
    made = run_of(config, first, last).asset_materializations_for_node("deliveries")
    return {str(one.partition): one.metadata["digest"].value for one in made}


def run_of(
    config: dict[str, object], first: date, last: date, **options: Any
) -> ExecuteInProcessResult:
    return materialize(
        [deliveries],
        tags={
            "dagster/asset_partition_range_start": str(first),
            "dagster/asset_partition_range_end": str(last),
        },
        run_config={"ops": {"deliveries": {"config": config}}},
        resources={"event_log": EventLog(), "providers": Providers()},
        **options,
    )


@pytest.mark.usefixtures("installed")
@pytest.mark.filterwarnings("ignore::dagster.BetaWarning")
def test_a_range_of_the_asset_tells_each_day_its_own_digest(log: str) -> None:
    first, last = CAMPAIGN_DAY, CAMPAIGN_DAY + timedelta(days=1)
    told = materialized({}, first, last)
    assert told == {str(day): verified(log, day).digest for day in (first, last)}
    only = materialized({"types": ["CONTENT_PUBLISH"]}, first, last)
    types = (EventType.CONTENT_PUBLISH,)
    assert only == {str(day): verified(log, day, types).digest for day in (first, last)}
    assert not set(only.values()) & set(told.values())


@pytest.mark.usefixtures("installed")
@pytest.mark.filterwarnings("ignore::dagster.BetaWarning")
@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"mode": "verfy"}, "mode: 'verfy' is not known; write verify"),
        ({"types": ["LEADS"]}, "types: 'LEADS' is not known; write LEAD_CAPTURE"),
    ],
)
def test_the_asset_refuses_what_it_does_not_know(config: dict[str, object], told: str) -> None:
    with pytest.raises(Failure, match=told):
        materialized(config, FIRST, FIRST)
