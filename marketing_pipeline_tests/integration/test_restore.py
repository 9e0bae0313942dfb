"""A restored or copied log does not send again by itself, and once adopted sends nothing twice."""

import asyncio
import shutil
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import httpx
import psycopg
import pytest
import redis
from redis.asyncio import Redis

from marketing_pipeline import embedded, settings
from marketing_pipeline.delivery import high_water
from marketing_pipeline.delivery.assembly import marks
from marketing_pipeline.event_log import heartbeats
from marketing_pipeline.event_log.installation import Adoption, StillAtWork
from marketing_pipeline_tests.pipeline import (
    Sandbox,
    campaign,
    campaign_name,
    lead,
    post,
    record,
    run,
    sent,
    states,
)


@contextmanager
def backup(servers: embedded.Servers, database: str) -> Iterator[str]:
    """The database as it is now, under another name."""
    name = f"backup_{uuid.uuid4().hex}"
    original = urlsplit(database).path[1:]
    with psycopg.connect(servers.database_url, autocommit=True) as admin:
        admin.execute(f'create database "{name}" template "{original}"')
        yield urlunsplit(urlsplit(servers.database_url)._replace(path=f"/{name}"))
        admin.execute(f'drop database "{name}" with (force)')


def with_log(used: settings.Settings, database: str) -> settings.Settings:
    return replace(used, database_url=database)


def adopt(used: settings.Settings) -> Adoption:
    async def adopted() -> Adoption:
        assert used.database_url is not None
        assert used.redis_url is not None
        async with (
            await psycopg.AsyncConnection.connect(used.database_url, autocommit=True) as conn,
            Redis.from_url(used.redis_url) as client,
        ):
            why, slowest = "restored from a backup", timedelta(seconds=2)
            return await high_water.adopt(conn, marks(used), client, why, slowest)

    return asyncio.run(adopted())


def identity(database: str) -> str:
    with psycopg.connect(database) as conn:
        row = conn.execute("select identity from installation").fetchone()
    assert row is not None
    return str(row[0])


def people(database: str) -> set[str]:
    with psycopg.connect(database) as conn:
        return {str(row[0]) for row in conn.execute("select id from recipients")}


def test_a_restored_log_refuses_and_once_adopted_sends_nothing_twice(
    used: settings.Settings,
    database: str,
    servers: embedded.Servers,
    sandbox: Sandbox,
    home: Path,
) -> None:
    record(database, [lead(n) for n in range(10)])
    run(used)
    record(database, [post(1), lead(50)])
    record(database, [campaign(campaign_name(home), "after-the-backup")])
    with backup(servers, database) as restored:
        run(used)
        before = sandbox.acts()
        assert len(before) == 20 + 1 + 2 + 11
        again = with_log(used, restored)
        with pytest.raises(high_water.ReadOnly, match="restored from a backup"):
            run(again)
        assert sandbox.acts() == before
        adopt(again)
        run(again, linger=4)
        assert sandbox.acts() == before, "each was found, or known by its key"
        assert states(restored) == {"SENT": len(before)}
        assert sent(restored) == sent(database)


def test_a_lead_that_is_new_to_the_restored_log_and_posted_again_is_not_mailed_twice(
    used: settings.Settings, database: str, servers: embedded.Servers, sandbox: Sandbox
) -> None:
    record(database, [lead(1)])
    run(used)
    with backup(servers, database) as restored:
        record(database, [lead(2)])  # its person is in no backup
        run(used)
        before = sandbox.acts()
        assert len(before) == 2 + 2
        again = with_log(used, restored)
        adopt(again)
        record(restored, [lead(2)])
        run(again, linger=4)
        assert people(restored) != people(database), "who they are is drawn by chance, twice"
        assert sent(restored) == sent(database), "and yet the effects are the same"
        assert sandbox.acts() == before, "so the provider knows their keys"


def test_without_its_mark_the_same_restored_log_would_send_twice(
    used: settings.Settings,
    database: str,
    servers: embedded.Servers,
    sandbox: Sandbox,
    valkey: redis.Redis,
    home: Path,
) -> None:
    """The known-bad case: it is the mark that stands between a restore and a second mail."""
    record(database, [lead(1)])
    record(database, [campaign(campaign_name(home), "c")])
    with backup(servers, database) as restored:
        run(used)
        shutil.rmtree(marks(used))
        valkey.delete(f"high_water:{identity(restored)}")
        run(with_log(used, restored))
        assert sorted(sandbox.acts().values()) == [1, 1, 2]


def test_a_copy_elsewhere_refuses(
    used: settings.Settings,
    database: str,
    servers: embedded.Servers,
    valkey: redis.Redis,
    tmp_path: Path,
) -> None:
    record(database, [lead(1)])
    run(used)
    with backup(servers, database) as copy:
        valkey.delete(f"high_water:{identity(copy)}")  # elsewhere is another Valkey, too
        elsewhere = replace(with_log(used, copy), state_dir=tmp_path / "elsewhere")
        with pytest.raises(high_water.ReadOnly, match="it is a copy, or has moved here"):
            run(elsewhere)
        adopt(elsewhere)
        assert run(elsewhere).calls == 0
        assert identity(copy) != identity(database)


@pytest.mark.parametrize("lost", ["file", "valkey"])
def test_either_mark_suffices_and_mends_the_other(
    lost: str, used: settings.Settings, database: str, valkey: redis.Redis
) -> None:
    record(database, [lead(1)])
    run(used)
    key, file = f"high_water:{identity(database)}", marks(used) / identity(database)
    mark = int(valkey.get(key))  # type: ignore[arg-type]
    assert mark == int(file.read_text()) > 0
    if lost == "file":
        file.unlink()
    else:
        valkey.delete(key)
    run(used, linger=0.1)
    assert int(valkey.get(key)) == int(file.read_text()) == mark  # type: ignore[arg-type]


def test_a_log_with_a_delivery_run_awake_is_not_adopted(
    used: settings.Settings, database: str
) -> None:
    async def beat() -> None:
        async with await psycopg.AsyncConnection.connect(database, autocommit=True) as conn:
            await heartbeats.beat(conn, uuid.uuid4(), None, timedelta(seconds=15))

    asyncio.run(beat())
    before = identity(database)
    with pytest.raises(StillAtWork):
        adopt(used)
    assert identity(database) == before


def test_a_log_that_goes_back_in_time_under_a_running_engine_is_noticed(
    tmp_path: Path, servers: embedded.Servers
) -> None:
    async def reach() -> None:
        async with Redis.from_url(servers.redis_url) as client:
            water = high_water.HighWater(tmp_path, client, uuid.uuid4())
            await water.reach(7, remembered=0, after=water.seen)
            await water.reach(9, remembered=7, after=water.seen)
            await water.reach(8, remembered=7, after=7)  # two at once may end in either order
            with pytest.raises(high_water.ReadOnly, match="remembers 7 claims, and 9"):
                await water.reach(140, remembered=7, after=water.seen)  # whatever its number is

    asyncio.run(reach())


def test_an_engine_whose_log_goes_back_in_time_ends_before_it_calls_again(
    used: settings.Settings, database: str, sandbox: Sandbox
) -> None:
    """In the middle of a backlog, where claims are made beside calls."""
    slow = {"latency": {"webhook": 0.3}}
    httpx.put(f"{sandbox.url}/_sandbox/settings", json=slow).raise_for_status()
    record(database, [post(n) for n in range(150)])
    ended: list[ExceptionGroup] = []

    def engine() -> None:
        try:
            run(used)
        except ExceptionGroup as error:
            ended.append(error)

    thread = threading.Thread(target=engine)
    thread.start()
    with psycopg.connect(database, autocommit=True) as conn:
        while sum(sandbox.acts().values()) < 30:
            assert thread.is_alive()
        conn.execute("update attempts set claim_number = null")  # as if they had never been
    thread.join(30)
    acts = sum(sandbox.acts().values())
    assert not thread.is_alive()
    assert [one.subgroup(high_water.ReadOnly) is not None for one in ended] == [True]
    assert acts < 150 - 50, "it stopped in the middle"


def test_a_sequence_that_recovery_set_ahead_hides_no_restore(
    used: settings.Settings, database: str, servers: embedded.Servers
) -> None:
    """PostgreSQL logs sequences 32 ahead: after a crash or a restore they have run on."""
    record(database, [lead(1)])
    run(used)
    record(database, [lead(2)])
    with backup(servers, database) as restored:
        run(used)
        with psycopg.connect(restored) as conn:
            conn.execute("select setval('claim_seq', last_value + 32) from claim_seq")
        with pytest.raises(high_water.ReadOnly, match="restored from a backup"):
            run(with_log(used, restored))


def test_what_was_due_is_asked_about_when_the_slowest_provider_shows_it(
    used: settings.Settings, database: str
) -> None:
    record(database, [lead(n) for n in range(3)])
    run(used)
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute("set session_replication_role = replica")
        conn.execute(
            """update effects set state = 'PLANNED', settled_at = null, provider_ref = null
               where kind = 'email'"""
        )
        conn.execute(
            """update effects set state = 'DOUBT', settled_at = null, provider_ref = null,
               doubt_since = first_attempt_at, due_at = now() - interval '1 hour'
               where kind = 'contact'"""
        )
        record(database, [lead(9)])  # it waits for its plan
        adopted = adopt(used)
        assert adopted.doubtful == 3
        left = conn.execute(
            """select count(*), min(due_at) >= (select look_at from installation) from effects
               where state = 'DOUBT'"""
        ).fetchone()
        assert left == (6, True)
        run(used, linger=0.2)
        waiting = conn.execute(
            """select count(*), min(e.due_at) >= min(i.look_at) from effects e, installation i
               where e.state = 'DOUBT'"""
        ).fetchone()
    assert waiting in {(8, True), (0, None)}, "unless the two seconds had passed"
