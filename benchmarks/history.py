"""A year of history that is over, filled into the log by SQL."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

TABLES = ("recipients", "marketing_events", "plans", "effects", "attempts")
# The numbers of events are those of `seq`; a fifth of them are leads, each of somebody else.
_FILL = (
    """
insert into recipients (id, address, created_at)
select md5('person ' || n)::uuid, 'person' || n || '@history.example.com', now() - interval '1 year'
from generate_series(%(first)s::bigint, %(last)s::bigint) n where n %% 5 = 0
""",
    """
insert into marketing_events (id, seq, idempotency_key, type, payload, source, fingerprint,
    recipient_id, scheduled_at, created_at, status, updated_at)
select md5('event ' || n)::uuid, n, 'history-' || n,
       case when lead then 'LEAD_CAPTURE' else 'CONTENT_PUBLISH' end,
       case when lead then jsonb_build_object('first_name', 'Ada', 'form', 'newsletter', 'page', n)
                      else jsonb_build_object('text', 'What happened on occasion number ' || n) end,
       'history', repeat(md5('event ' || n), 2), case when lead then md5('person ' || n)::uuid end,
       at, at, 'COMPLETED', at
from (select n, n %% 5 = 0 as lead,
             now() - interval '366 days' + interval '365 days' * (n / %(most)s::float8) as at
      from generate_series(%(first)s::bigint, %(last)s::bigint) n) h
""",
    """
insert into plans (event_id, epoch, day, cut_seq, cut_at, config_digest, plan_version, count,
    digest, inserted, created_at)
select id, 0, day, seq, created_at, (select digest from configs limit 1), 1,
       1 + (seq %% 5 = 0)::int, fingerprint, 1 + (seq %% 5 = 0)::int, created_at
from marketing_events where seq between %(first)s and %(last)s
""",
    """
insert into effects (id, event_id, epoch, day, event_seq, route, step, provider, kind, recipient_id,
    ordering_key, template, variables, state, priority, attempts, calls, due_at, claim_id,
    first_attempt_at, last_attempt_at, provider_ref, created_at, updated_at, settled_at)
select md5(s.step || m.seq)::uuid, m.id, 0, m.day, m.seq, m.type, s.step, s.provider, s.kind,
       m.recipient_id, case s.kind when 'contact' then s.provider || ':' || m.recipient_id end,
       case s.kind when 'email' then (select hash from templates where name = 'welcome') end,
       m.payload, 'SENT', s.priority, 1, 1, m.scheduled_at, m.id, m.scheduled_at, m.scheduled_at,
       'ref-' || m.seq, m.scheduled_at, m.scheduled_at, m.scheduled_at
from marketing_events m
join (values ('LEAD_CAPTURE', 'contact', 'hubspot', 'contact', 1),
             ('LEAD_CAPTURE', 'welcome', 'resend', 'email', 0),
             ('CONTENT_PUBLISH', 'post', 'site', 'post', 1))
     as s (type, step, provider, kind, priority) on s.type = m.type
where m.seq between %(first)s and %(last)s
""",
    """
insert into attempts (effect_id, number, purpose, claim_id, provider, started_at, request_sha256,
    finished_at, outcome, status_code, latency)
select id, 1, 'send', claim_id, provider, due_at, repeat(md5(id::text), 2), due_at, 'ACCEPTED', 200,
       interval '80 ms'
from effects where state = 'SENT' and event_seq between %(first)s and %(last)s
""",
)

_LAST = """
select e.event_seq from attempts a join effects e on e.id = a.effect_id
where a.claim_number is not null order by a.claim_number desc limit 1"""
_CUT = (
    """
delete from attempts using effects e
where effect_id = e.id and e.event_seq > %(size)s and e.event_seq <> %(last)s""",
    "delete from effects where event_seq > %(size)s and event_seq <> %(last)s",
    """
delete from plans using marketing_events m
where event_id = m.id and m.seq > %(size)s and m.seq <> %(last)s""",
    "delete from marketing_events where seq > %(size)s and seq <> %(last)s",
)


def cut(url: str, size: int) -> None:
    """Forget what came after so much history, though the log itself refuses to forget.

    The event of the last claim stays: without it this would be a log that had been restored.
    """
    with psycopg.connect(url) as conn:
        conn.execute("set session_replication_role = replica")  # no triggers, foreign keys included
        (last,) = conn.execute(_LAST).fetchone() or (0,)
        for statement in _CUT:
            conn.execute(statement, {"size": size, "last": last})


def grow(url: str, size: int, most: int) -> float:
    """Add history up to that size; seconds it took, indices included."""
    began = time.monotonic()
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("set maintenance_work_mem = '512MB'")
        row = conn.execute("select count(*) from marketing_events where seq <= %s", (most,))
        (there,) = row.fetchone() or (0,)
        with _without_indices(conn):
            for statement in _FILL:
                conn.execute(statement, {"first": there + 1, "last": size, "most": most})
        for table in TABLES:
            conn.execute(f"vacuum (analyze) {table}")
        conn.execute("checkpoint")
    return time.monotonic() - began


@contextmanager
def _without_indices(conn: psycopg.Connection) -> Iterator[None]:
    """Keys and indices are built in one go afterwards, instead of row by row."""
    keys = conn.execute(
        "select conrelid::regclass::text, conname, pg_get_constraintdef(oid) from pg_constraint"
        " where contype in ('p', 'u') and conrelid = any(%(tables)s::regclass[])"
        " or contype = 'f' and (conrelid = any(%(tables)s::regclass[])"
        " or confrelid = any(%(tables)s::regclass[]))"
        " order by contype = 'f', conrelid",
        {"tables": list(TABLES)},
    ).fetchall()
    indices = conn.execute(
        "select i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid) from pg_index i"
        " where i.indrelid = any(%s::regclass[])"
        " and not exists (select from pg_constraint c where c.conindid = i.indexrelid)",
        (list(TABLES),),
    ).fetchall()
    for table, name, _ in reversed(keys):
        conn.execute(f"alter table {table} drop constraint {name}")
    for name, _ in indices:
        conn.execute(f"drop index {name}")
    yield
    for table, name, definition in keys:
        conn.execute(f"alter table {table} add constraint {name} {definition}")
    for _, definition in indices:
        conn.execute(definition)
