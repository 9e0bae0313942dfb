"""Every earlier schema, with data in it, becomes the present one and works."""

import asyncio
import json
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

import psycopg
import pytest
import sqlalchemy
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from psycopg import AsyncConnection, sql
from psycopg.types.json import Json

from marketing_pipeline import embedded
from marketing_pipeline.delivery import campaigns, crowds, replay
from marketing_pipeline.delivery.crowds import Sending
from marketing_pipeline.domain.effect import EffectState
from marketing_pipeline.event_log import cuts, ledger, planning, reading, schema
from marketing_pipeline.event_log.ledger import Settlement
from marketing_pipeline_tests import campaigning, old_postgres
from marketing_pipeline_tests.attempting import attempts

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
# What 0002 added to it.
AND_AGAIN = """
update plans set plan_version = 2;
update effects set expires_at = due_at + interval '1000 years', redrives = 1
where state = 'PLANNED';
update effects set once_key = 'LEAD_CAPTURE/' || step || '/email/0/' || recipient_id
where step in ('step-3', 'step-5');
insert into once_taken (key, effect_id, since, until)
select once_key, id, due_at, 'infinity' from effects where once_key is not null;
update attempts set claim_number = nextval('claim_seq'), setup = repeat('b', 64)
where (effect_id, number) in (select effect_id, max(number) from attempts group by effect_id);
insert into resolutions (effect_id, number, action, why, who, calls, created_at)
select id, 1, 'resend', 'it never came', 'ada', 1, updated_at from effects where state = 'UNKNOWN';
insert into observed_days (day, data_version, observed_at, moved)
values ('2026-02-28', 'moved', '2026-03-02T08:00Z', true);
"""
# What 0003 added to that.
CAMPAIGNS = """
update effects set sent_seq = nextval('fact_seq') where state = 'SENT';
update plans set plan_version = 3, campaign = 'news', starts_at = '2026-03-01T10:00Z',
    excluded = '{"unsubscribed": 2}' where count = 1;
update templates set preheader = 'In short';
insert into feedback (id, provider, kind, effect_id, recipient_id, occurred_at, created_at)
select gen_random_uuid(), 'mail', 'delivered', id, recipient_id, updated_at, updated_at
from effects where step = 'step-5';
insert into config_uses values ('2026-03-01T08:00Z', repeat('c', 64));
insert into proposals (digest, kind, campaign, event_id, epoch, cut_seq, cut_at, config_digest,
                       plan_version, count, excluded, created_at)
select repeat('f', 64), 'campaign', 'news', id, 0, seq, created_at, repeat('c', 64), 3, 1, '{}',
       created_at
from marketing_events where idempotency_key = 'key-3';
insert into approvals
select id, 1, 'ada', 'read it', '2026-03-02T08:00Z', created_at from proposals;
insert into holds (event_id, state, reason, since)
select id, 'cancelled', 'a typo', updated_at from marketing_events where idempotency_key = 'key-3';
insert into interventions
select event_id, 1, 'cancel', reason, 'ada', since from holds;
"""
HISTORIES = {
    "0001": HISTORY,
    "0002": HISTORY + AND_AGAIN,
    "0003": HISTORY + AND_AGAIN + CAMPAIGNS,
}
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
FILLED_AGAIN = FILLED | {"installation", "once_taken", "resolutions"}
FILLED_BY = {
    "0001": FILLED,
    "0002": FILLED_AGAIN,
    "0003": FILLED_AGAIN
    | {"approvals", "config_uses", "feedback", "holds", "interventions", "proposals"},
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
        conn.execute(HISTORIES[revision].encode())
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
                lease = timedelta(seconds=30)
                await ledger.claim(conn, provider, claim_id, attempts(found, lease), now)
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
        filled = {table for table, found in before.items() if found}
        assert filled == FILLED_BY[revision]
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


@pytest.mark.parametrize("revision", [one for one in earlier() if one < "0003"])
def test_what_was_there_before_campaigns_could_be_held_has_the_defaults(
    empty: str, revision: str
) -> None:
    upgrade_from(empty, revision)
    with psycopg.connect(empty) as conn:
        found = conn.execute("select state, sent_seq, held_due_at from effects").fetchall()
        assert {state for state, _, _ in found} == set(EffectState)
        assert {(seq, held) for _, seq, held in found} == {(0, None)}, "sent before any cut"
        plans = conn.execute("select campaign, starts_at, excluded from plans").fetchall()
        assert plans == [(None, None, {})] * 3
        uses = conn.execute("select since, digest from config_uses").fetchall()
        assert uses == [(datetime(2026, 3, 1, 8, tzinfo=UTC), "c" * 64)]


async def plan_as_version_2(url: str, folder: Path) -> list[UUID]:
    """A lead and a campaign to two people, of whom one is suppressed: its effects, none sent."""
    async with campaigning.log(url, campaigning.write(folder)) as log:
        await log.leads([1, 2])
        await log.unsubscribe(2)
        await log.plan()
        await log.trigger("news")
        at = log.later()
        cut = await cuts.take(log.conn, at, timedelta(seconds=5))
        due = await planning.campaign_to_plan(log.conn, at, cut)
        assert due is not None
        rules = log.used.meaning.rules
        sending = Sending(event=due.event, rules=rules, epoch=0, cut=cut, version=2)
        promised = await crowds.count(log.conn, sending, asyncio.Event())
        assert promised is not None
        async with log.conn.transaction():
            await planning.promise(log.conn, [promised], [due.event.id], at)
        while await campaigns.write_unfinished(log.conn, at, asyncio.Event(), rules):
            pass
        await log.conn.execute("update plans set plan_version = 2")
        return [row["id"] for row in await log.rows("select id from effects where kind = 'email'")]


def copy_rows(new: str, old: str) -> None:
    """Bring a log's rows to one of an earlier revision, which has fewer columns for them."""
    tables = ("configs", "templates", "recipients", "marketing_events", "suppressions", "plans")
    with psycopg.connect(new) as source, psycopg.connect(old) as target:
        there = rows(source)
        for table in (*tables, "effects"):
            columns = sql.SQL(", ").join(
                sql.Identifier(name)
                for (name,) in target.execute(
                    "select column_name from information_schema.columns"
                    " where table_name = %s and is_generated = 'NEVER'",
                    [table],
                )
            )
            target.execute(
                sql.SQL(
                    "insert into {table} ({columns})"
                    " select {columns} from json_populate_recordset(null::{table}, %s)"
                ).format(table=sql.Identifier(table), columns=columns),
                [Json(there[table])],
            )
        target.execute("select setval('fact_seq', (select max(seq) from marketing_events) + 9)")


async def verified_and_claimable(url: str) -> tuple[tuple[str, ...], set[UUID]]:
    """What a replay of today finds different, and what could be claimed of the mails."""
    async with await AsyncConnection.connect(url, autocommit=True) as conn:
        today = await conn.execute("select distinct day from marketing_events")
        differences: list[str] = []
        for (day,) in await today.fetchall():
            differences += (await replay.verify(conn, day)).differences
        async with conn.transaction(force_rollback=True):
            due = await ledger.lock_due(conn, "mail", 10)
        return tuple(differences), {one.id for one in due}


def test_what_was_planned_by_version_2_is_verified_and_sent_after_the_upgrade(
    empty: str, database: str, tmp_path: Path
) -> None:
    planned = asyncio.run(plan_as_version_2(database, tmp_path / "home"))
    migrate_to(empty, "0002")
    copy_rows(database, empty)
    assert schema.migrate(empty) == schema.newest()
    assert len(planned) == 2
    assert asyncio.run(verified_and_claimable(empty)) == ((), set(planned))
    with psycopg.connect(empty, autocommit=True) as conn:
        conn.execute("update plans set plan_version = 3")
    differences, _ = asyncio.run(verified_and_claimable(empty))
    assert differences, "known bad: version 3 leaves out whoever is suppressed"


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


@pytest.mark.skipif(not old_postgres.is_there(), reason=old_postgres.MISSING)
def test_postgresql_15_is_enough(tmp_path: Path) -> None:
    with old_postgres.running(tmp_path) as url:
        with psycopg.connect(url) as conn:
            assert conn.info.server_version // 10000 == 15
        before = upgrade_from(url, earlier()[0])
        with psycopg.connect(url) as conn:
            assert lost(before, rows(conn)) == set()
        assert asyncio.run(work_off(url)) == WORKED_OFF
