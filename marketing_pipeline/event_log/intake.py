"""How events come into the log, and who may send them."""

import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable, Container, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection, AsyncCursor, errors
from psycopg.rows import class_row, tuple_row

from marketing_pipeline.domain import digest, event
from marketing_pipeline.domain.event import NewEvent
from marketing_pipeline.event_log import queries, rows
from marketing_pipeline.event_log.round_trip import one_round_trip

_SQL = queries.load("intake.sql")


class Verdict(StrEnum):
    """What the log said to an event; spelled the same in X-Event-Status."""

    ACCEPTED = "ACCEPTED"  # it is new
    DUPLICATE = "DUPLICATE"  # it had been recorded before, just so
    CONFLICT = "CONFLICT"  # its key stands for something else


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """The verdict on one event, and the id of the event that stands under its key."""

    event_id: UUID
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestKey:
    """A sender's key without its secret."""

    id: str
    source: str
    created_at: datetime
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Standing:
    """What the log holds under a key."""

    idempotency_key: str
    id: UUID
    fingerprint: str
    type: str
    source: str
    scheduled_at: datetime


async def guard(conn: AsyncConnection[Any], patience: timedelta) -> None:
    """Bound the rest of this transaction: each statement ends within `patience`, and its commit
    is on disk before it is reported."""
    milliseconds = str(round(patience.total_seconds() * 1000))
    await conn.execute(_SQL["guard"], {"patience": milliseconds})


async def record(
    conn: AsyncConnection[Any], events: Sequence[NewEvent], now: datetime
) -> list[Recorded]:
    """Record what is new; verdicts in the order of the events.

    Once in a transaction, under READ COMMITTED: rows are locked in one order for all writers, so
    that any number of them may bring the same keys without a deadlock, and a second call would
    start that order again. A repeat is the same payload, type and source, and the same time where
    it names one: a sender who repeats an event without a time still gets DUPLICATE.
    """
    return await _record(conn, events, now, nullcontext)


async def commit(
    conn: AsyncConnection[Any], events: Sequence[NewEvent], now: datetime, patience: timedelta
) -> list[Recorded]:
    """`record` in a guarded transaction of its own: one round trip, and one more for keys that
    were taken.

    conn: in autocommit mode.
    """
    return await _record(conn, events, now, lambda: _guarded(conn, patience))


async def recipient(conn: AsyncConnection[Any], address: str, now: datetime) -> UUID:
    """The id of a person, who gets one where they have none yet.

    Raises:
        InvalidEvent: it is no address.
    """
    normal = event.normal_address(address)
    await conn.execute(_SQL["recipients"], {"addresses": [normal], "now": now})
    cursor = conn.cursor(row_factory=tuple_row)
    row = await (await cursor.execute(_SQL["recipient"], {"address": normal})).fetchone()
    assert row is not None
    found: UUID = row[0]
    return found


async def revision(conn: AsyncConnection[Any]) -> str | None:
    """The schema's revision, to be compared with `schema.newest()`; None: never migrated."""
    cursor = conn.cursor(row_factory=tuple_row)
    try:
        row = await (await cursor.execute(_SQL["revision"])).fetchone()
    except errors.UndefinedTable:
        return None
    return str(row[0]) if row else None


async def create_key(conn: AsyncConnection[Any], source: str, now: datetime) -> str:
    """Make a key for a sender: `mk_<id>_<secret>`, told this once.

    Raises:
        InvalidEvent: the source is no name of a sender.
    """
    key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    values = {
        "id": key_id,
        "source": event.checked_source(source),
        "secret_sha256": digest.sha256(secret.encode()),
        "now": now,
    }
    await conn.execute(_SQL["create key"], values)
    return f"mk_{key_id}_{secret}"


async def revoke_key(conn: AsyncConnection[Any], key_id: str, now: datetime) -> bool:
    """Was there such a key, still active?"""
    cursor = await conn.execute(_SQL["revoke key"], {"id": key_id, "now": now})
    return cursor.rowcount == 1


async def list_keys(conn: AsyncConnection[Any]) -> list[IngestKey]:
    cursor = conn.cursor(row_factory=class_row(IngestKey))
    return await (await cursor.execute(_SQL["list keys"])).fetchall()


async def active_keys(conn: AsyncConnection[Any]) -> Mapping[str, tuple[str, str]]:
    """Source and SHA-256 of the secret, by id."""
    cursor = conn.cursor(row_factory=tuple_row)
    found = await (await cursor.execute(_SQL["active keys"])).fetchall()
    return {key_id: (source, secret_sha256) for key_id, source, secret_sha256 in found}


@asynccontextmanager
async def _guarded(conn: AsyncConnection[Any], patience: timedelta) -> AsyncIterator[None]:
    async with one_round_trip(conn):
        await guard(conn, patience)
        yield


async def _record(
    conn: AsyncConnection[Any],
    events: Sequence[NewEvent],
    now: datetime,
    turn: Callable[[], AbstractAsyncContextManager[None]],
) -> list[Recorded]:
    """turn: what each statement that waits for an answer is executed in."""
    if not events:
        return []
    async with turn():
        inserted = await _insert(conn, events, now)
    new = {key for key, _ in await inserted.fetchall()}
    asked = _taken(events, new)
    if not asked:
        return _verdicts(events, new, [])
    async with turn():
        standing = await _look_up(conn, asked)
    return _verdicts(events, new, await standing.fetchall())


async def _insert(
    conn: AsyncConnection[Any], events: Sequence[NewEvent], now: datetime
) -> AsyncCursor[tuple[str, str]]:
    """The cursor gives the keys that were not there before, in a pipeline after its end."""
    addresses = sorted({e.address for e in events if e.address is not None})
    if addresses:
        await conn.execute(_SQL["recipients"], {"addresses": addresses, "now": now})
    cursor = conn.cursor(row_factory=tuple_row)
    return await cursor.execute(_SQL["events"], {"events": rows.document(events), "now": now})


def _taken(events: Sequence[NewEvent], new: Container[str]) -> list[str]:
    """Keys that were there before, or that come more than once."""
    counts = Counter(e.idempotency_key for e in events)
    return [key for key, count in counts.items() if key not in new or count > 1]


async def _look_up(conn: AsyncConnection[Any], keys: Sequence[str]) -> AsyncCursor[_Standing]:
    cursor = conn.cursor(row_factory=class_row(_Standing))
    return await cursor.execute(_SQL["taken"], {"keys": keys})


def _verdicts(
    events: Sequence[NewEvent], new: set[str], standing: Iterable[_Standing]
) -> list[Recorded]:
    taken = {row.idempotency_key: row for row in standing}
    return [_verdict(e, new, taken) for e in events]


def _verdict(e: NewEvent, new: set[str], taken: Mapping[str, _Standing]) -> Recorded:
    """Takes the key out of `new`: of two events with one key in a call the first is the new one."""
    if e.idempotency_key in new:
        new.remove(e.idempotency_key)
        return Recorded(event_id=e.id, verdict=Verdict.ACCEPTED)
    row = taken[e.idempotency_key]
    same = (row.fingerprint, row.type, row.source) == (e.fingerprint, e.type, e.source)
    on_time = not e.time_given or row.scheduled_at == e.scheduled_at
    verdict = Verdict.DUPLICATE if same and on_time else Verdict.CONFLICT
    return Recorded(event_id=row.id, verdict=verdict)
