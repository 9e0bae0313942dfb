"""Every earlier schema, with data in it, becomes the present one and works."""

import asyncio
import json
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
import sqlalchemy
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from psycopg import AsyncConnection, sql

from marketing_pipeline import embedded
from marketing_pipeline.domain.effect import EffectState
from marketing_pipeline.embedded.account import account, hand_over, launcher
from marketing_pipeline.event_log import ledger, reading, schema
from marketing_pipeline.event_log.ledger import NewAttempt, Purpose, Settlement

OLD_POSTGRES = Path("/usr/lib/postgresql/15/bin")  # Debian's, and the oldest that is promised
MIGRATING = 0x6D61726B  # the advisory lock of `migrate`
DELAY = timedelta(seconds=45)

# What a log of revision 0001 may hold. Later revisions take it too, for what they add has defaults.
HISTORY = """
insert into recipients (id, address, created_at, erased_at) values
    ('00000000-0000-0000-0000-0000000000a1', 'ada@example.com', '2026-03-01T08:00Z', null),
    ('00000000-0000-0000-0000-0000000000a2', null, '2026-03-01T08:00Z', '2026-03-02T08:00Z');
insert into marketing_events (id, seq, idempotency_key, type, payload, source, fingerprint,
                              recipient_id, scheduled_at, created_at, status, retry_count,
                              last_error, updated_at)
select ('00000000-0000-0000-0000-0000000000e' || n)::uuid, nextval('fact_seq'), 'key-' || n, type,
       payload::jsonb, 'web', repeat('a', 64), recipient::uuid, '2026-03-01T09:00Z',
       '2026-03-01T09:00Z', status, 0, error, '2026-03-01T09:01Z'
from (values
    (1, 'LEAD_CAPTURE', '{"name": "Ada: 100% \\"x\\""}',
     '00000000-0000-0000-0000-0000000000a1', 'PROCESSING', null),
    (2, 'LEAD_CAPTURE', '{}', '00000000-0000-0000-0000-0000000000a2', 'COMPLETED', null),
    (3, 'CONTENT_PUBLISH', '{"text": "news"}', null, 'FAILED', 'refused'),
    (4, 'CAMPAIGN_TRIGGER', '{"campaign": "news"}', null, 'PENDING', null))
    as event (n, type, payload, recipient, status, error);
insert into configs values (repeat('c', 64), '{"version": 1}', '2026-03-01T08:00Z');
insert into templates
values (repeat('d', 64), 'welcome', 'Hello', '<p>Hello</p>', '2026-03-01T08:00Z');
insert into plans (event_id, day, cut_seq, cut_at, config_digest, plan_version, count, digest,
                   inserted, created_at)
select id, day, seq, created_at, repeat('c', 64), 1, promised, repeat('f', 64), promised,
       created_at
from marketing_events
join (values ('key-1', 5), ('key-2', 2), ('key-3', 1)) as plan (key, promised)
    on key = idempotency_key;
insert into effects (id, event_id, epoch, day, event_seq, route, step, provider, kind,
                     recipient_id, ordering_key, template, state, priority, attempts, calls, due_at,
                     claim_id, lease_until, first_attempt_at, last_attempt_at, doubt_since,
                     provider_ref, last_error,
                     created_at, updated_at, settled_at)
select ('00000000-0000-0000-0000-0000000000f' || n)::uuid, m.id, 0, m.day, m.seq, m.type,
       'step-' || n, provider, kind, m.recipient_id,
       case kind when 'contact' then 'crm:' || m.recipient_id end,
       case kind when 'email' then repeat('d', 64) end, state, 1, calls, calls, m.scheduled_at,
       case state when 'SENDING' then '00000000-0000-0000-0000-0000000000c1'::uuid end,
       case state when 'SENDING' then m.scheduled_at + interval '30 seconds' end,
       case when calls > 0 then m.scheduled_at end, case when calls > 0 then m.scheduled_at end,
       case when state in ('DOUBT', 'UNKNOWN') then m.scheduled_at end,
       case state when 'SENT' then 'ref-' || n end,
       case when state in ('FAILED', 'SUPPRESSED', 'UNKNOWN') then 'why' end, m.created_at,
       m.updated_at,
       case when state in ('SENT', 'FAILED', 'SUPPRESSED', 'UNKNOWN') then m.updated_at end
from (values
    (1, 'key-1', 'crm', 'contact', 'PLANNED', 0), (2, 'key-1', 'mail', 'email', 'SENDING', 1),
    (3, 'key-1', 'mail', 'email', 'DOUBT', 1), (4, 'key-1', 'mail', 'email', 'UNKNOWN', 2),
    (5, 'key-1', 'mail', 'email', 'SENT', 1), (6, 'key-2', 'crm', 'contact', 'SENT', 1),
    (7, 'key-2', 'mail', 'email', 'SUPPRESSED', 0), (8, 'key-3', 'site', 'post', 'FAILED', 1))
    as effect (n, key, provider, kind, state, calls)
join marketing_events m on m.idempotency_key = key;
insert into attempts (effect_id, number, purpose, claim_id, provider, started_at, request_sha256,
                      request_body, finished_at, outcome, status_code, latency)
select e.id, number, 'send', '00000000-0000-0000-0000-0000000000c1', e.provider, e.first_attempt_at,
       repeat('e', 64), case when e.state in ('SENDING', 'DOUBT') then '\\x00ff'::bytea end,
       case when e.state <> 'SENDING' then e.updated_at end,
       case e.state when 'SENT' then 'ACCEPTED' when 'FAILED' then 'REFUSED'
                    when 'SENDING' then null else 'AMBIGUOUS' end,
       case e.state when 'SENT' then 200 when 'FAILED' then 422 end, interval '20 milliseconds'
from effects e cross join lateral generate_series(1, e.calls) as number;
insert into suppressions (recipient_id, scope, reason, created_at)
values ('00000000-0000-0000-0000-0000000000a2', 'email', 'unsubscribed', '2026-03-01T08:30Z');
insert into pauses values ('mail', '2026-03-01T10:00Z', 'told to wait', '2026-03-01T09:00Z');
insert into ingest_keys values ('k1', 'web', repeat('9', 64), '2026-03-01T08:00Z', null);
insert into views values ('leads', '2026-03-01', 'digest', 1, 'a,b', '2026-03-02T08:00Z');
insert into observed_days values ('2026-03-01', 'digest.4.open', '2026-03-02T08:00Z');
"""
FILLED = {
    "attempts",
    "configs",
    "effects",
    "ingest_keys",
    "marketing_events",
    "observed_days",
    "pauses",
    "plans",
    "recipients",
    "suppressions",
    "templates",
    "views",
}

Rows = dict[str, list[dict[str, Any]]]


def _migrations() -> Config:
    config = Config()
    room = resources.files("marketing_pipeline.event_log").joinpath("migrations")
    config.set_main_option("script_location", str(room))
    return config


def earlier() -> list[str]:
    """Every revision but the newest, the oldest first."""
    script = ScriptDirectory.from_config(_migrations())
    found = [one.revision for one in script.walk_revisions()]
    return [revision for revision in reversed(found) if revision != schema.newest()]


@pytest.fixture
def empty(servers: embedded.Servers) -> Iterator[str]:
    """The URL of a database that was never migrated."""
    name = f"migrated_{uuid.uuid4().hex}"
    with psycopg.connect(servers.database_url, autocommit=True) as admin:
        admin.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        yield urlunsplit(urlsplit(servers.database_url)._replace(path=f"/{name}"))
        admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def migrate_to(url: str, revision: str) -> None:
    """What an installation of that age has done."""
    engine = sqlalchemy.create_engine(
        url.replace("postgresql://", "postgresql+psycopg://"), poolclass=sqlalchemy.NullPool
    )
    with engine.connect() as connection:
        config = _migrations()
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        connection.commit()
    engine.dispose()


def upgrade_from(url: str, revision: str) -> Rows:
    """A log of that revision brought to the present one; its rows as they were before."""
    migrate_to(url, revision)
    with psycopg.connect(url) as conn:
        conn.execute(HISTORY.encode())
        before = rows(conn)
    assert schema.present(url) == revision
    assert schema.migrate(url) == schema.newest() == schema.present(url)
    return before


def rows(conn: psycopg.Connection) -> Rows:
    tables = conn.execute(
        "select tablename from pg_tables where schemaname = 'public'"
        " and tablename <> 'alembic_version'"
    ).fetchall()
    query = sql.SQL("select to_jsonb(t) from {} t")
    return {
        table: [row for (row,) in conn.execute(query.format(sql.Identifier(table)))]
        for (table,) in tables
    }


def lost(before: Rows, after: Rows) -> set[str]:
    """Tables whose rows are not what they were, columns that are new left out."""

    def content(found: list[dict[str, Any]], columns: Mapping[str, Any]) -> list[str]:
        return sorted(json.dumps({k: row.get(k) for k in columns}, sort_keys=True) for row in found)

    return {
        table
        for table, old in before.items()
        if old and content(old, old[0]) != content(after.get(table, []), old[0])
    }


async def work_off(url: str) -> dict[str, str]:
    """Sweep, claim and settle as the engine does; the state of each step's effect afterwards."""
    async with await AsyncConnection.connect(url, autocommit=True) as conn:
        assert await ledger.sweep(conn, "mail", DELAY) == 1
        for provider in ("crm", "mail"):
            claim_id, now = uuid.uuid4(), datetime.now(UTC)
            async with conn.transaction():
                found = await ledger.lock_due(conn, provider, 10)
                attempts = [
                    NewAttempt(
                        effect_id=one.id,
                        purpose=Purpose.SEND,
                        request_sha256="e" * 64,
                        request_body=None,
                    )
                    for one in found
                ]
                lease = timedelta(seconds=30)
                await ledger.claim(
                    conn, provider, claim_id, attempts, setup="s", lease=lease, now=now
                )
            settlements = [
                Settlement(
                    effect_id=one.id,
                    claim_id=claim_id,
                    number=one.calls + 1,
                    outcome="ACCEPTED",
                    status_code=200,
                    latency=timedelta(milliseconds=20),
                    reason=None,
                    state=EffectState.SENT,
                    due_at=None,
                    given_back=False,
                    in_doubt=False,
                    reference="new",
                )
                for one in found
            ]
            assert len(await ledger.settle(conn, settlements, now)) == len(found) > 0
        [balance] = await reading.balances(conn, [date(2026, 3, 1)])
        assert (balance.planned, balance.missing, balance.open) == (8, 0, 0)
        return dict(await (await conn.execute("select step, state from effects")).fetchall())


WORKED_OFF = {
    "step-1": "SENT",  # was PLANNED
    "step-2": "SENT",  # was SENDING, and its lease had run out
    "step-3": "SENT",  # was DOUBT
    "step-4": "UNKNOWN",
    "step-5": "SENT",
    "step-6": "SENT",
    "step-7": "SUPPRESSED",
    "step-8": "FAILED",
}


@pytest.mark.parametrize("revision", earlier())
def test_an_earlier_log_keeps_its_rows_and_works(empty: str, revision: str) -> None:
    before = upgrade_from(empty, revision)
    with psycopg.connect(empty) as conn:
        assert {table for table, found in before.items() if found} >= FILLED
        assert lost(before, rows(conn)) == set()
    assert asyncio.run(work_off(empty)) == WORKED_OFF


@pytest.mark.parametrize("revision", earlier())
def test_a_row_that_an_upgrade_changed_or_dropped_would_be_seen(empty: str, revision: str) -> None:
    """The known-bad case of the comparison above."""
    before = upgrade_from(empty, revision)
    with psycopg.connect(empty) as conn:
        conn.execute("update effects set priority = 2 where step = 'step-8'")
        conn.execute("delete from suppressions")
        assert lost(before, rows(conn)) == {"effects", "suppressions"}


def test_an_empty_database_is_at_no_revision_until_it_is_migrated(empty: str) -> None:
    assert schema.present(empty) is None
    assert schema.migrate(empty) == schema.newest()
    assert schema.present(empty) == schema.newest()


def test_migrating_again_changes_nothing(empty: str) -> None:
    before = upgrade_from(empty, earlier()[0])
    with psycopg.connect(empty) as conn:
        once = rows(conn)
    assert schema.migrate(empty) == schema.newest()
    with psycopg.connect(empty) as conn:
        assert rows(conn) == once
        assert lost(before, once) == set()


def test_two_who_migrate_at_once_both_succeed(empty: str) -> None:
    migrate_to(empty, earlier()[0])
    start = threading.Barrier(2)

    def migrate() -> str:
        start.wait()
        return schema.migrate(empty)

    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(migrate) for _ in range(2)]
        assert [one.result() for one in both] == [schema.newest()] * 2
    with psycopg.connect(empty) as conn:
        assert conn.execute("select count(*) from installation").fetchone() == (1,)


def test_whoever_migrates_waits_for_another_who_does(empty: str) -> None:
    with ThreadPoolExecutor(1) as pool, psycopg.connect(empty, autocommit=True) as other:
        other.execute("select pg_advisory_lock(%s)", (MIGRATING,))
        second = pool.submit(schema.migrate, empty)
        time.sleep(0.3)
        assert not second.done()
        assert schema.present(empty) is None
        other.execute("select pg_advisory_unlock(%s)", (MIGRATING,))
        assert second.result() == schema.newest()


@contextmanager
def _postgres_15(folder: Path) -> Iterator[str]:
    """The URL of a server of that version, reached over a socket in `folder`."""
    data = folder / "data"
    runs_as = account(data)
    data.mkdir(mode=0o700)
    sockets = folder / "s"
    sockets.mkdir(mode=0o700)
    hand_over(data, runs_as)
    hand_over(sockets, runs_as)
    under = launcher(runs_as, parent_death=signal.SIGINT)
    options = ["-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
    initdb = [*under, str(OLD_POSTGRES / "initdb"), "-D", str(data), *options]
    subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL, cwd="/")
    settings = ["-k", str(sockets), "-c", "listen_addresses=", "-c", "fsync=off"]
    server = [*under, str(OLD_POSTGRES / "postgres"), "-D", str(data), *settings]
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(server, stdout=log, stderr=log, cwd="/") as process,
    ):
        try:
            url = f"postgresql://postgres@/postgres?host={sockets}"
            _await_answer(url, process, folder / "log")
            yield url
        finally:
            process.send_signal(signal.SIGINT)


def _await_answer(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    end = time.monotonic() + 30
    while True:
        try:
            psycopg.connect(url).close()
        except psycopg.OperationalError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.05)
        else:
            return


@pytest.mark.skipif(
    not (OLD_POSTGRES / "initdb").exists(), reason=f"no PostgreSQL 15 in {OLD_POSTGRES}"
)
def test_postgresql_15_is_enough(tmp_path: Path) -> None:
    with _postgres_15(tmp_path) as url:
        with psycopg.connect(url) as conn:
            assert conn.info.server_version // 10000 == 15
        before = upgrade_from(url, earlier()[0])
        with psycopg.connect(url) as conn:
            assert lost(before, rows(conn)) == set()
        assert asyncio.run(work_off(url)) == WORKED_OFF
