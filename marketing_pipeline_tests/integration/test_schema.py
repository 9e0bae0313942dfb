"""What the database itself refuses, what it allows, and how it finds what is due."""

import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from psycopg import Connection, errors, sql
from psycopg.types.json import Jsonb

from marketing_pipeline import embedded
from marketing_pipeline.event_log import queries

NOW = datetime(2026, 3, 1, 9, tzinfo=UTC)
PERSON, LEAD, POST, CAMPAIGN, EFFECT = (uuid.UUID(int=n) for n in range(1, 6))
HASH = "a" * 64
STATE = {"status", "retry_count", "last_error", "updated_at"}  # every other column is a fact

_EVENT: dict[str, Any] = {
    "id": LEAD,
    "idempotency_key": "k",
    "type": "LEAD_CAPTURE",
    "payload": Jsonb({"name": "Ada"}),
    "source": "web",
    "fingerprint": HASH,
    "recipient_id": PERSON,
    "scheduled_at": NOW,
    "created_at": NOW,
    "updated_at": NOW,
}
_EFFECT: dict[str, Any] = {
    "id": uuid.UUID(int=9),
    "event_id": LEAD,
    "epoch": 0,
    "day": NOW.date(),
    "event_seq": 1,
    "route": "LEAD_CAPTURE",
    "step": "welcome",
    "provider": "mail",
    "kind": "email",
    "recipient_id": PERSON,
    "template": HASH,
    "state": "PLANNED",
    "priority": 1,
    "due_at": NOW,
    "created_at": NOW,
    "updated_at": NOW,
}
_TRIED = {"attempts": 1, "calls": 1, "first_attempt_at": NOW, "last_attempt_at": NOW}
_ATTEMPT: dict[str, Any] = {
    "effect_id": EFFECT,
    "number": 1,
    "purpose": "send",
    "claim_id": uuid.UUID(int=7),
    "provider": "mail",
    "started_at": NOW,
    "request_sha256": HASH,
}
_PLAN: dict[str, Any] = {
    "event_id": POST,
    "day": NOW.date(),
    "cut_seq": 1,
    "cut_at": NOW,
    "config_digest": HASH,
    "plan_version": 1,
    "count": 2,
    "digest": HASH,
    "inserted": 1,
    "created_at": NOW,
}
_PROPOSAL: dict[str, Any] = {
    "digest": "b" * 64,
    "epoch": 0,
    "cut_seq": 1,
    "cut_at": NOW,
    "config_digest": HASH,
    "plan_version": 3,
    "count": 2,
    "excluded": Jsonb({}),
    "created_at": NOW,
}

VALID: dict[str, tuple[str, Mapping[str, Any]]] = {
    "event": ("marketing_events", _EVENT | {"id": uuid.UUID(int=8), "idempotency_key": "new"}),
    "PLANNED": ("effects", _EFFECT),
    "SENDING": (
        "effects",
        _EFFECT | _TRIED | {"state": "SENDING", "claim_id": LEAD, "lease_until": NOW},
    ),
    "DOUBT": ("effects", _EFFECT | _TRIED | {"state": "DOUBT", "doubt_since": NOW}),
    "SENT": (
        "effects",
        _EFFECT | _TRIED | {"state": "SENT", "provider_ref": "m1", "settled_at": NOW},
    ),
    "FAILED": ("effects", _EFFECT | {"state": "FAILED", "last_error": "no", "settled_at": NOW}),
    "SUPPRESSED": (
        "effects",
        _EFFECT | {"state": "SUPPRESSED", "last_error": "left", "settled_at": NOW},
    ),
    "UNKNOWN": (
        "effects",
        _EFFECT
        | _TRIED
        | {"state": "UNKNOWN", "last_error": "?", "settled_at": NOW, "doubt_since": NOW},
    ),
    "sending": ("attempts", _ATTEMPT),
    "sent": ("attempts", _ATTEMPT | {"finished_at": NOW, "outcome": "ACCEPTED"}),
    "looked up": (
        "attempts",
        _ATTEMPT
        | {"purpose": "look_up", "request_sha256": None, "finished_at": NOW, "outcome": "FOUND"},
    ),
    "plan": ("plans", _PLAN),
    "recipient": (
        "recipients",
        {"id": uuid.UUID(int=6), "address": "b@example.com", "created_at": NOW},
    ),
    "erased": ("recipients", {"id": uuid.UUID(int=6), "created_at": NOW, "erased_at": NOW}),
    "config": ("configs", {"digest": "b" * 64, "body": Jsonb({}), "created_at": NOW}),
    "template": (
        "templates",
        {"hash": "b" * 64, "name": "n", "subject": "s", "html": "h", "created_at": NOW},
    ),
    "suppression": ("suppressions", {"recipient_id": PERSON, "reason": "left", "created_at": NOW}),
    "key": (
        "ingest_keys",
        {"id": "k", "source": "web", "secret_sha256": HASH, "created_at": NOW},
    ),
    "installation": ("installation", {"identity": LEAD, "created_at": NOW}),
    "resolution": (
        "resolutions",
        {
            "effect_id": EFFECT,
            "number": 1,
            "action": "sent",
            "why": "seen in the mailbox",
            "who": "ada",
            "calls": 1,
            "created_at": NOW,
        },
    ),
    "heartbeat": (
        "heartbeats",
        {"worker": LEAD, "kind": "delivery", "started_at": NOW, "expires_at": NOW},
    ),
    "feedback": (
        "feedback",
        {
            "id": LEAD,
            "provider": "mail",
            "kind": "opened",
            "effect_id": EFFECT,
            "occurred_at": NOW,
            "created_at": NOW,
        },
    ),
    "proposal": (
        "proposals",
        _PROPOSAL | {"kind": "campaign", "campaign": "news", "event_id": CAMPAIGN},
    ),
    "resend": (
        "proposals",
        _PROPOSAL
        | {"kind": "resend", "from_day": NOW.date(), "to_day": NOW.date()}
        | {"types": ["LEAD_CAPTURE"], "days": Jsonb({})},
    ),
    "approval": (
        "approvals",
        {
            "proposal": 1,
            "number": 1,
            "who": "ada",
            "why": "read",
            "expires_at": NOW,
            "created_at": NOW,
        },
    ),
    "hold": (
        "holds",
        {"event_id": CAMPAIGN, "state": "paused", "reason": "a typo", "since": NOW},
    ),
    "intervention": (
        "interventions",
        {
            "event_id": CAMPAIGN,
            "number": 1,
            "action": "pause",
            "why": "a typo",
            "who": "ada",
            "created_at": NOW,
        },
    ),
}

# A valid row, and the change that makes it impossible.
IMPOSSIBLE: list[tuple[str, dict[str, Any]]] = [
    ("event", {"type": "LEAD_LOST", "recipient_id": None}),
    ("event", {"payload": Jsonb([1])}),
    ("event", {"source": ""}),
    ("event", {"origin": "invented"}),
    ("event", {"fingerprint": "A" * 64}),
    ("event", {"fingerprint": "a" * 63}),
    ("event", {"fingerprint": "a" * 65}),
    ("event", {"fingerprint": "a" * 63 + "g"}),
    ("event", {"fingerprint": "a" * 63 + "\n"}),
    ("event", {"scheduled_at": datetime(2019, 12, 31, 23, 59, tzinfo=UTC)}),
    ("event", {"scheduled_at": NOW + timedelta(days=402)}),
    ("event", {"status": "DONE"}),
    ("event", {"retry_count": -1}),
    ("event", {"recipient_id": None}),
    ("event", {"type": "CONTENT_PUBLISH"}),
    ("PLANNED", {"state": "QUEUED"}),
    ("PLANNED", {"kind": "letter", "template": None}),
    ("PLANNED", {"attempts": -1}),
    ("PLANNED", {"attempts": 1}),
    ("PLANNED", {"lease_until": NOW}),
    ("PLANNED", {"settled_at": NOW}),
    ("PLANNED", {"first_attempt_at": NOW}),
    ("PLANNED", {"template": None}),
    ("PLANNED", {"kind": "post", "template": None}),
    ("PLANNED", {"kind": "contact"}),
    ("PLANNED", {"recipient_id": None}),
    ("PLANNED", {"kind": "contact", "template": None, "recipient_id": None}),
    ("SENDING", {"lease_until": None}),
    ("SENDING", {"claim_id": None}),
    ("SENDING", {"attempts": 0, "calls": 0}),
    ("SENDING", {"settled_at": NOW}),
    ("SENDING", {"attempts": 2}),
    ("PLANNED", _TRIED | {"doubt_since": NOW}),
    ("DOUBT", {"doubt_since": None}),
    ("DOUBT", {"lease_until": NOW}),
    ("DOUBT", {"first_attempt_at": None, "last_attempt_at": None}),
    ("SENT", {"provider_ref": None}),
    ("SENT", {"settled_at": None}),
    ("SENT", {"attempts": 0, "calls": 0}),
    ("SENT", {"doubt_since": NOW}),
    ("SENT", {"lease_until": NOW}),
    ("FAILED", {"last_error": None}),
    ("FAILED", {"settled_at": None}),
    ("FAILED", _TRIED | {"doubt_since": NOW}),
    ("SUPPRESSED", {"last_error": None}),
    ("SUPPRESSED", {"settled_at": None}),
    ("SUPPRESSED", _TRIED | {"doubt_since": NOW}),
    ("UNKNOWN", {"doubt_since": None}),
    ("UNKNOWN", {"last_error": None}),
    ("UNKNOWN", {"settled_at": None}),
    ("UNKNOWN", {"last_attempt_at": None}),
    ("sending", {"number": 0}),
    ("sending", {"purpose": "guess"}),
    ("sending", {"request_sha256": None}),
    ("sending", {"request_sha256": "not a digest"}),
    ("sending", {"request_sha256": "A" * 64}),
    ("sending", {"outcome": "ACCEPTED"}),
    ("sent", {"outcome": None}),
    ("sent", {"outcome": "FOUND"}),
    ("sent", {"outcome": "LUCKY"}),
    ("looked up", {"outcome": "ACCEPTED"}),
    ("plan", {"digest": "A" * 64}),
    ("plan", {"digest": "a" * 63}),
    ("plan", {"epoch": -1}),
    ("plan", {"inserted": 3}),
    ("plan", {"inserted": -1}),
    ("plan", {"count": -1}),
    ("plan", {"digest": "short"}),
    ("recipient", {"address": "B@example.com"}),
    ("recipient", {"address": " b@example.com"}),
    ("recipient", {"address": None}),
    ("recipient", {"erased_at": NOW}),
    ("config", {"digest": "short"}),
    ("template", {"hash": "short"}),
    ("suppression", {"scope": "sometimes"}),
    ("key", {"source": ""}),
    ("heartbeat", {"kind": "idle"}),
    ("PLANNED", {"redrives": -1}),
    ("installation", {"one": False}),
    ("installation", {"adopted_at": NOW, "look_at": NOW}),
    ("installation", {"adopted_at": NOW, "adopted_why": "restored"}),
    ("resolution", {"number": 0}),
    ("resolution", {"action": "forget"}),
    ("resolution", {"why": " "}),
    ("feedback", {"kind": "adored"}),
    ("plan", {"excluded": Jsonb([])}),
    ("proposal", {"digest": "short"}),
    ("proposal", {"kind": "guess", "campaign": None, "event_id": None}),
    ("proposal", {"epoch": -1}),
    ("proposal", {"count": -1}),
    ("proposal", {"excluded": Jsonb([])}),
    ("proposal", {"event_id": None}),
    ("resend", {"to_day": None}),
    ("approval", {"number": 0}),
    ("hold", {"state": "sleepy"}),
    ("hold", {"resumed_at": NOW, "state": "cancelled"}),
    ("intervention", {"number": 0}),
    ("intervention", {"action": "shout"}),
    ("intervention", {"why": " "}),
]
IMPLIED = {"plans_count_check"}  # nothing breaks it without breaking `inserted <= count` first


def insert(conn: Connection, table: str, row: Mapping[str, Any]) -> None:
    conn.execute(
        sql.SQL("insert into {} ({}) values ({})").format(
            sql.Identifier(table),
            sql.SQL(", ").join(map(sql.Identifier, row)),
            sql.SQL(", ").join(map(sql.Placeholder, row)),
        ),
        row,
    )


def _small(conn: Connection) -> None:
    conn.execute("delete from installation")  # makes room for the valid one
    insert(conn, "recipients", {"id": PERSON, "address": "ada@example.com", "created_at": NOW})
    insert(conn, "marketing_events", _EVENT)
    other = {"recipient_id": None, "status": "PROCESSING"}
    post = {"id": POST, "idempotency_key": "p", "type": "CONTENT_PUBLISH"}
    insert(conn, "marketing_events", _EVENT | other | post)
    campaign = {"id": CAMPAIGN, "idempotency_key": "c", "type": "CAMPAIGN_TRIGGER"}
    insert(conn, "marketing_events", _EVENT | other | campaign | {"status": "COMPLETED"})
    insert(conn, "configs", {"digest": HASH, "body": Jsonb({}), "created_at": NOW})
    template = VALID["template"][1]
    insert(conn, "templates", {**template, "hash": HASH})
    insert(conn, "plans", _PLAN | {"event_id": LEAD, "inserted": 2})
    insert(conn, "effects", _EFFECT | {"id": EFFECT})
    shown = {"kind": "campaign", "campaign": "news", "event_id": CAMPAIGN}
    insert(conn, "proposals", _PROPOSAL | shown)


@pytest.fixture(scope="module")
def small(servers: embedded.Servers, template: str) -> Iterator[str]:
    """One database for the whole module; its tests roll back what they do."""
    with psycopg.connect(servers.database_url, autocommit=True) as admin:
        name = f"schema_{uuid.uuid4().hex}"
        admin.execute(f'create database "{name}" template "{template}"')
        url = urlunsplit(urlsplit(servers.database_url)._replace(path=f"/{name}"))
        with psycopg.connect(url) as conn:
            _small(conn)
        yield url
        admin.execute(f'drop database "{name}" with (force)')


@pytest.fixture
def conn(small: str) -> Iterator[Connection]:
    with psycopg.connect(small) as conn:
        yield conn
        conn.rollback()


FACTS = {
    "id": "gen_random_uuid()",
    "seq": "seq + 1000",
    "idempotency_key": "'other'",
    "type": "'CONTENT_PUBLISH'",
    "payload": """'{"name": "Eve"}'""",
    "source": "'elsewhere'",
    "origin": "'history'",
    "fingerprint": "repeat('b', 64)",
    "recipient_id": "null",
    "scheduled_at": "scheduled_at + interval '1 second'",
    "created_at": "created_at - interval '1 second'",
    "traceparent": "'00-trace'",
    "caused_by": "id",
}


@pytest.mark.parametrize(("column", "value"), FACTS.items())
def test_a_fact_cannot_be_changed(conn: Connection, column: LiteralString, value: Any) -> None:
    change = sql.SQL("update marketing_events set {} = {} where id = %s")
    with pytest.raises(errors.RaiseException, match=f"the facts of event {LEAD}"):
        conn.execute(change.format(sql.Identifier(column), sql.SQL(value)), (LEAD,))


def test_every_column_is_a_known_fact_or_state(conn: Connection) -> None:
    """A column that a migration adds is a fact, refused above, unless it is named in STATE."""
    found = conn.execute(
        """select column_name from information_schema.columns
           where table_name = 'marketing_events' and is_generated = 'NEVER'"""
    ).fetchall()
    assert {name for (name,) in found} == FACTS.keys() | STATE


def test_the_day_follows_from_when_it_is_due_and_cannot_be_set(conn: Connection) -> None:
    with pytest.raises(errors.GeneratedAlways):
        conn.execute("update marketing_events set day = '2026-01-01'")


def test_a_state_can_be_changed(conn: Connection) -> None:
    """The known-bad case of the refusals above: they do not come from updating as such."""
    changed = conn.execute(
        "update marketing_events set status = 'FAILED', retry_count = 3, last_error = 'e',"
        " updated_at = now()"
    )
    assert changed.rowcount == 3


def test_an_event_cannot_be_deleted(conn: Connection) -> None:
    with pytest.raises(errors.RaiseException, match=f"event {CAMPAIGN} cannot be deleted"):
        conn.execute("delete from marketing_events where id = %s", (CAMPAIGN,))


@pytest.mark.parametrize(
    "table", ["marketing_events", "attempts", "effects", "plans", "recipients", "templates"]
)
def test_the_record_cannot_be_truncated(conn: Connection, table: str) -> None:
    with pytest.raises(errors.RaiseException, match="cannot be truncated"):
        conn.execute(sql.SQL("truncate {} cascade").format(sql.Identifier(table)))


def test_the_queries_that_people_paste_work(conn: Connection) -> None:
    twice = conn.execute(
        "SELECT idempotency_key, COUNT(*) FROM marketing_events"
        " GROUP BY idempotency_key HAVING COUNT(*) > 1"
    ).fetchall()
    assert twice == []
    times = conn.execute(
        "SELECT scheduled_at, scheduled_at AT TIME ZONE 'UTC' FROM marketing_events"
        " WHERE status = 'PENDING'"
    ).fetchall()
    assert times == [(NOW, NOW.replace(tzinfo=None))]


@pytest.mark.parametrize(
    ("recipe", "reset"),
    [
        ("UPDATE marketing_events SET status = 'PENDING' WHERE status = 'PROCESSING'", {POST}),
        (
            "UPDATE marketing_events SET status = 'PENDING' WHERE type = 'CAMPAIGN_TRIGGER'"
            " AND created_at BETWEEN '2026-03-01' AND '2026-03-02'",
            {CAMPAIGN},
        ),
    ],
)
def test_the_recipes_that_people_paste_change_nothing_but_the_status(
    conn: Connection, recipe: LiteralString, reset: set[uuid.UUID]
) -> None:
    def rows() -> dict[uuid.UUID, dict[str, Any]]:
        return dict(conn.execute("select id, to_jsonb(m) from marketing_events m").fetchall())

    before = rows()
    conn.execute(recipe)
    after = rows()
    assert {key for key in after if before[key] != after[key]} == reset
    assert all(after[key] == before[key] | {"status": "PENDING"} for key in reset)


@pytest.mark.parametrize("valid", VALID)
def test_a_possible_row_is_taken(conn: Connection, valid: str) -> None:
    table, row = VALID[valid]
    insert(conn, table, row)


def _refusing(conn: Connection, valid: str, change: Mapping[str, Any]) -> str | None:
    """The check that refuses the row; None: it is taken."""
    table, row = VALID[valid]
    try:
        with conn.transaction(force_rollback=True):
            insert(conn, table, {**row, **change})
    except errors.CheckViolation as error:
        return error.diag.constraint_name
    return None


@pytest.mark.parametrize(("valid", "change"), IMPOSSIBLE)
def test_an_impossible_row_is_refused(
    conn: Connection, valid: str, change: Mapping[str, Any]
) -> None:
    assert _refusing(conn, valid, change) is not None


def _checks(conn: Connection) -> dict[str, str]:
    """The table of each check."""
    return dict(
        conn.execute(
            """select conname, conrelid::regclass::text from pg_constraint
               where contype = 'c' and connamespace = 'public'::regnamespace"""
        ).fetchall()
    )


def test_every_check_of_the_schema_refuses_something(conn: Connection) -> None:
    seen = {_refusing(conn, valid, change) for valid, change in IMPOSSIBLE}
    assert _checks(conn).keys() - seen == IMPLIED


def test_without_the_checks_every_impossible_row_would_be_taken(conn: Connection) -> None:
    """The known-bad case: it is the checks that refuse, and not something else in the row."""
    for name, table in _checks(conn).items():
        drop = sql.SQL("alter table {} drop constraint {}")
        conn.execute(drop.format(sql.Identifier(table), sql.Identifier(name)))
    assert [one for one in IMPOSSIBLE if _refusing(conn, *one) is not None] == []


@pytest.mark.parametrize(
    ("table", "change"),
    [
        ("effects", {"event_id": uuid.UUID(int=99)}),
        ("effects", {"epoch": 1}),
        ("effects", {"template": "b" * 64}),
        ("effects", {"recipient_id": uuid.UUID(int=99)}),
        ("plans", {"config_digest": "b" * 64}),
        ("attempts", {"effect_id": uuid.UUID(int=99)}),
    ],
)
def test_what_a_row_refers_to_must_be_there(
    conn: Connection, table: str, change: Mapping[str, Any]
) -> None:
    row = {"effects": _EFFECT, "plans": _PLAN, "attempts": _ATTEMPT}[table]
    with pytest.raises(errors.ForeignKeyViolation):
        insert(conn, table, {**row, **change})


# Partial indexes hold only what is open, so that each does for the work it covers.
_WAITING = {"effects_due", "effects_open"}
_LEASED = {"effects_leased", "effects_open"}
_PENDING = {"marketing_events_pending", "marketing_events_unfinished"}
_UNDER_WAY = {"marketing_events_processing", "marketing_events_unfinished"}
HOT: list[tuple[str, str, tuple[set[str], ...]]] = [
    ("ledger.sql", "due", (_WAITING,)),
    ("ledger.sql", "next due", (_WAITING,)),
    ("ledger.sql", "lock due", (_WAITING,)),
    ("ledger.sql", "sweep", (_LEASED,)),
    ("ledger.sql", "stranded", (_UNDER_WAY,)),
    ("planning.sql", "triggers due", ({"marketing_events_triggers"},)),
    ("planning.sql", "due events", (_PENDING,)),
    ("planning.sql", "campaign to plan", ({"marketing_events_triggers"},)),
    ("planning.sql", "unfinished plans", ({"plans_unfinished"},)),
    ("reading.sql", "due work", (_PENDING, _WAITING, _LEASED, {"plans_unfinished"})),
    ("reading.sql", "unfinished days", (_PENDING | _UNDER_WAY,)),
]
# Of these an index is searched from a place on, and up to now: neither what was done before nor
# what comes later is walked over, however much there is.
BOUNDED = [
    ("ledger.sql", "due", "due_at >= p.since"),
    ("ledger.sql", "due", "due_at <= statement_timestamp"),
    ("ledger.sql", "lock due", "due_at >= p.since"),
    ("ledger.sql", "lock due", "due_at <= statement_timestamp"),
    ("ledger.sql", "next due", "due_at >= p.since"),
    ("ledger.sql", "sweep", "lease_until > (statement_timestamp"),
    ("ledger.sql", "sweep", "lease_until < statement_timestamp"),
    ("ledger.sql", "recent calls", "started_at > (statement_timestamp"),
    ("planning.sql", "due events", "ROW(scheduled_at, seq) > ROW"),
    ("planning.sql", "due events", "scheduled_at <= "),
    ("reading.sql", "due work", "due_at <= statement_timestamp"),
    ("reading.sql", "due work", "scheduled_at <= statement_timestamp"),
    ("reading.sql", "due work", "lease_until < statement_timestamp"),
]
# Rows that are known by their keys are found by them, however many there are.
KEYED = [
    ("ledger.sql", "bodies"),
    ("ledger.sql", "claim"),
    ("ledger.sql", "close unsent"),
    ("ledger.sql", "complete"),
    ("ledger.sql", "forget bodies"),
    ("ledger.sql", "lock events"),
    ("ledger.sql", "mark moved"),
    ("ledger.sql", "people"),
    ("ledger.sql", "settle"),
    ("planning.sql", "promise"),
    ("planning.sql", "standing plans"),
]
TYPES = {
    "attempts": ("text", "'[]'"),
    "claim_id": ("uuid", "gen_random_uuid()"),
    "closed": ("text", "'[]'"),
    "epochs": ("int[]", "array[0]"),
    "event_ids": ("uuid[]", "array[gen_random_uuid()]"),
    "ids": ("uuid[]", "array[gen_random_uuid(), gen_random_uuid()]"),
    "keys": ("text[]", "array['mail:a', 'mail:b']"),
    "settlements": ("text", "'[]'"),
    "plans": ("text", "'[]'"),
    "people": ("uuid[]", "array[gen_random_uuid()]"),
    "passed": ("uuid[]", "array[gen_random_uuid()]"),
    "under_way": ("uuid[]", "array[gen_random_uuid()]"),
    "provider": ("text", "'mail'"),
    "providers": ("text[]", "array['mail']"),
    "limit": ("int", "100"),
    "now": ("timestamptz", "now()"),
    "settle_delay": ("interval", "'1 minute'"),
    "cut": ("bigint", "1000000"),
    "since": (
        "timestamptz[]",
        "array[now() - interval '1 hour', '-infinity', now() - interval '1 day']",
    ),
    "span": ("interval", "'1 minute'"),
    "slot": ("float8", "50"),
    "within": ("interval", "'10000 days'"),
    "after_at": ("timestamptz", "'-infinity'"),
    "after_seq": ("bigint", "0"),
}


def _history(conn: Connection) -> None:
    """Long settled history, a little that is open, a few triggers among much that is pending."""
    conn.execute(
        """
        insert into recipients (id, address, created_at)
        select md5('r' || n)::uuid, n || '@example.com', now() from generate_series(1, 50000) n;
        insert into marketing_events (id, idempotency_key, type, payload, source, fingerprint,
            recipient_id, scheduled_at, created_at, updated_at, status)
        select md5('e' || n)::uuid, n,
            case when n > 50000 - 20 then 'CAMPAIGN_TRIGGER' else 'LEAD_CAPTURE' end, '{}', 'web',
            repeat('a', 64), case when n <= 50000 - 20 then md5('r' || n)::uuid end, t, t, t,
            case when n > 50000 - 2000 then 'PENDING' when n > 50000 - 2040 then 'PROCESSING'
                 else 'COMPLETED' end
        from generate_series(1, 50000) n,
            lateral (select now() - n * interval '1 minute') x (t);
        insert into configs values (repeat('a', 64), '{}', now());
        insert into templates values (repeat('a', 64), 'n', 's', 'h', now());
        insert into plans select id, 0, day, seq, created_at, repeat('a', 64), 1, 1,
            repeat('a', 64),
            case when seq % 10000 = 7 then 0 else 1 end, created_at
        from marketing_events where status <> 'PENDING';
        insert into effects (id, event_id, epoch, day, event_seq, route, step, provider, kind,
            recipient_id, template, ordering_key, state, priority, attempts, calls, due_at,
            claim_id, lease_until, first_attempt_at, last_attempt_at, provider_ref, created_at,
            updated_at,
            settled_at)
        select md5(id::text)::uuid, id, 0, day, seq, type, 's', 'mail', 'email', recipient_id,
            repeat('a', 64), 'mail:' || recipient_id, s.state, seq % 3, s.calls, s.calls,
            created_at, id, case when s.state = 'SENDING' then created_at end,
            case when s.calls = 1 then created_at end, case when s.calls = 1 then created_at end,
            case when s.state = 'SENT' then 'ref' end, created_at, created_at,
            case when s.state = 'SENT' then created_at end
        from marketing_events, lateral (select
            case when status = 'COMPLETED' then 'SENT' when seq % 2 = 0 then 'SENDING'
                 else 'PLANNED' end, (status = 'COMPLETED' or seq % 2 = 0)::int) s (state, calls)
        where status <> 'PENDING';
        insert into attempts (effect_id, number, purpose, claim_id, provider, started_at,
            request_sha256)
        select id, 1, 'send', claim_id, provider, created_at, repeat('a', 64)
        from effects where calls = 1
        """
    )


@pytest.fixture(scope="module")
def grown(servers: embedded.Servers, template: str) -> Iterator[str]:
    with psycopg.connect(servers.database_url, autocommit=True) as admin:
        name = f"grown_{uuid.uuid4().hex}"
        admin.execute(f'create database "{name}" template "{template}"')
        url = urlunsplit(urlsplit(servers.database_url)._replace(path=f"/{name}"))
        with psycopg.connect(url, autocommit=True) as conn:
            _history(conn)
            conn.execute("vacuum analyze")
        yield url
        admin.execute(f'drop database "{name}" with (force)')


def _plan(conn: Connection, file: str, name: str, mode: str, volatile: str = "") -> str:
    """volatile: a text of the query in whose place stands what changes from row to row."""
    query = queries.load(file)[name]
    if volatile:
        assert volatile in query
        query = query.replace(volatile, "clock_timestamp()")
    names: list[str] = []

    def numbered(found: re.Match[str]) -> str:
        if found[1] not in names:
            names.append(found[1])
        return f"${names.index(found[1]) + 1}"

    text = re.sub(r"%\((\w+)\)s", numbered, query).replace("%%", "%")
    types = ", ".join(TYPES[name][0] for name in names)
    values = ", ".join(TYPES[name][1] for name in names)
    conn.execute(f"set plan_cache_mode = {mode}".encode())
    conn.execute("select set_config('marketing.ended', array[gen_random_uuid()]::text, false)")
    conn.execute(f"prepare hot{f'({types})' if names else ''} as {text}".encode())
    execute = f"explain execute hot{f'({values})' if names else ''}"
    lines = conn.execute(execute.encode()).fetchall()
    conn.execute("deallocate hot")
    return "\n".join(line for (line,) in lines)


def _faults(plan: str, needed: Sequence[set[str]]) -> list[str]:
    """What of a plan would grow with history: a table read as a whole, partial indexes unused."""
    used = set(re.findall(r"Scan (?:using|on) (\w+)", plan))
    whole = re.findall(r"Seq Scan on (?:effects|marketing_events|plans|attempts)\b", plan)
    return whole + [f"none of {sorted(any_of)}" for any_of in needed if not any_of & used]


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize(("file", "name", "needed"), HOT)
def test_finding_work_reads_only_what_is_open(
    grown: str, file: str, name: str, needed: Sequence[set[str]], mode: str
) -> None:
    with psycopg.connect(grown) as conn:
        plan = _plan(conn, file, name, mode)
    assert _faults(plan, needed) == [], plan


@pytest.mark.parametrize(("file", "name", "needed"), HOT)
def test_without_its_index_finding_work_would_be_seen_to_read_more(
    grown: str, file: str, name: str, needed: Sequence[set[str]]
) -> None:
    """The known-bad case of the test above."""
    with psycopg.connect(grown) as conn:
        for index in sorted({one for any_of in needed for one in any_of}):
            conn.execute(sql.SQL("drop index {}").format(sql.Identifier(index)))
        assert _faults(_plan(conn, file, name, "force_custom_plan"), needed)
        conn.rollback()


def _is_searched(plan: str, bound: str) -> bool:
    conditions = re.findall(r"Index Cond: (.*)", plan)
    return any(bound in re.sub(r"\bp_1\.", "p.", one) for one in conditions)


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize(("file", "name", "bound"), BOUNDED)
def test_finding_work_walks_over_nothing_before_its_place_or_after_now(
    grown: str, file: str, name: str, bound: str, mode: str
) -> None:
    with psycopg.connect(grown) as conn:
        plan = _plan(conn, file, name, mode)
    assert _is_searched(plan, bound), plan


@pytest.mark.parametrize(("file", "name", "bound"), BOUNDED)
def test_a_bound_that_no_index_is_searched_by_would_be_seen(
    grown: str, file: str, name: str, bound: str
) -> None:
    """The known-bad case of the test above: what changes from row to row is compared with."""
    compared = {
        "due_at >= p.since": "p.since",
        "scheduled_at <= ": "%(now)s",
        "ROW(scheduled_at, seq) > ROW": "%(after_at)s::timestamptz",
    }
    with psycopg.connect(grown) as conn:
        volatile = compared.get(bound, "statement_timestamp()")
        plan = _plan(conn, file, name, "force_custom_plan", volatile)
    assert not _is_searched(plan, bound), plan


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize(("file", "name"), KEYED)
def test_what_is_known_by_its_key_is_found_by_it(
    grown: str, file: str, name: str, mode: str
) -> None:
    with psycopg.connect(grown) as conn:
        plan = _plan(conn, file, name, mode)
    assert _faults(plan, ()) == [], plan


@pytest.mark.parametrize(("file", "name"), KEYED)
def test_a_key_that_is_not_used_would_be_seen(grown: str, file: str, name: str) -> None:
    """The known-bad case of the test above."""
    with psycopg.connect(grown) as conn:
        for way in ("indexscan", "indexonlyscan", "bitmapscan"):
            conn.execute(f"set enable_{way} = off".encode())
        assert _faults(_plan(conn, file, name, "force_custom_plan"), ())
