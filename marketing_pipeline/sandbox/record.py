"""The sandbox's own durable account of what it was asked and what it really did."""

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

SCHEMA = Path(__file__).with_name("record.sql").read_text(encoding="utf-8")
TABLES = ("calls", "acts", "keys", "contacts", "messages", "pressure")

_CALL = "insert into calls values (?, ?, ?, ?, ?, ?, ?)"
_ACT = """
insert into acts (at, provider, operation, key, recipient, ref, body_sha256, repeat)
values (?, ?, ?, ?, ?, ?, ?, ?)
"""
_PRESSURE = """
insert into pressure values (?, ?, ?) on conflict (provider) do update set
  peak = max(peak, excluded.peak), over_limit = over_limit + excluded.over_limit
"""
_LATEST_CALLS = """
select at, status is 429 and fault is null from calls where provider = ? and at > ? order by n
"""
_KEPT = "select body_sha256, ref, at from keys where provider = ? and operation = ? and key = ?"
_UPSERT = """
insert into contacts (email, properties, created_at, updated_at) values (?, ?, ?, ?)
on conflict (email) do update set properties = excluded.properties, updated_at = excluded.updated_at
returning id, created_at
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What a provider remembers of a key."""

    body_sha256: str
    ref: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Contact:
    id: int
    is_new: bool
    properties: Mapping[str, str]
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A mail as one recipient gets it."""

    at: datetime
    domain: str
    message_id: str  # without angle brackets
    recipient: str
    sender: str
    subject: str
    size: int  # bytes


class Record:
    """One connection and one writer; other processes may read the file at any time."""

    def __init__(self, path: Path) -> None:
        # The thread that serves may not be the one that made the application.
        self._connection = sqlite3.connect(path, check_same_thread=False)
        self._connection.executescript(SCHEMA)
        (self.calls,) = self._connection.execute("select ifnull(max(n), 0) from calls").fetchone()
        (self.acts,) = self._connection.execute("select ifnull(max(n), 0) from acts").fetchone()
        self._peaks = dict(self._connection.execute("select provider, peak from pressure"))

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        with self._connection:
            yield

    def rows(self, query: str, parameters: Mapping[str, object] | None = None) -> list[sqlite3.Row]:
        """What is read for the control API and the event search."""
        with closing(self._connection.cursor()) as cursor:
            cursor.row_factory = sqlite3.Row
            return cursor.execute(query, parameters or {}).fetchall()

    def add_call(
        self,
        n: int,
        at: datetime,
        *,
        provider: str,
        operation: str,
        key: str | None,
        status: int | None,
        fault: str | None,
    ) -> None:
        row = (n, at.timestamp(), provider, operation, key, status, fault)
        self._connection.execute(_CALL, row)

    def add_act(
        self,
        at: datetime,
        *,
        provider: str,
        operation: str,
        key: str | None,
        recipient: str | None,
        ref: str | None,
        body_sha256: str,
        repeat: bool = False,
    ) -> None:
        row = (at.timestamp(), provider, operation, key, recipient, ref, body_sha256, int(repeat))
        self.acts = self._connection.execute(_ACT, row).lastrowid or self.acts

    def add_pressure(self, provider: str, seen: int, *, over_limit: bool) -> None:
        if over_limit or seen > self._peaks.get(provider, 0):
            self._connection.execute(_PRESSURE, (provider, seen, int(over_limit)))
            self._peaks[provider] = max(seen, self._peaks.get(provider, 0))

    def forget_peak(self, provider: str) -> None:
        """Another limit begins: peaks of different windows do not compare."""
        self._peaks[provider] = 0
        with self._connection:
            query = "update pressure set peak = 0 where provider = ?"
            self._connection.execute(query, (provider,))

    def latest_calls(self, provider: str, since: datetime) -> list[tuple[datetime, bool]]:
        """When, and whether it got past the limit; oldest first."""
        found = self._connection.execute(_LATEST_CALLS, (provider, since.timestamp()))
        return [(_instant(at), not refused) for at, refused in found]

    def kept(self, provider: str, operation: str, key: str) -> Kept | None:
        found = self._connection.execute(_KEPT, (provider, operation, key)).fetchone()
        if found is None:
            return None
        digest, ref, at = found
        return Kept(body_sha256=digest, ref=ref, at=_instant(at))

    def keep(self, provider: str, operation: str, key: str, kept: Kept) -> None:
        row = (provider, operation, key, kept.body_sha256, kept.ref, kept.at.timestamp())
        self._connection.execute("insert or replace into keys values (?, ?, ?, ?, ?, ?)", row)

    def upsert_contact(self, email: str, properties: Mapping[str, str], at: datetime) -> Contact:
        """Properties that are not named stay as they are."""
        query = "select properties from contacts where email = ?"
        found = self._connection.execute(query, (email,)).fetchone()
        merged = {**({} if found is None else json.loads(found[0])), **properties}
        row = (email, json.dumps(merged), at.timestamp(), at.timestamp())
        contact, created_at = self._connection.execute(_UPSERT, row).fetchone()
        return Contact(
            id=contact,
            is_new=found is None,
            properties=merged,
            created_at=_instant(created_at),
            updated_at=at,
        )

    def add_message(self, message: Message) -> None:
        self._connection.execute(
            "insert into messages (at, domain, message_id, recipient, sender, subject, size)"
            " values (?, ?, ?, ?, ?, ?, ?)",
            (
                message.at.timestamp(),
                message.domain,
                message.message_id,
                message.recipient,
                message.sender,
                message.subject,
                message.size,
            ),
        )

    def empty(self) -> None:
        """Forget everything, keys and contacts too: the next run is judged from nothing."""
        with self._connection:
            for table in TABLES:
                self._connection.execute(f"delete from {table}")  # noqa: S608 - our own names
            self._connection.execute("delete from sqlite_sequence")
        self.calls = self.acts = 0
        self._peaks.clear()


def _instant(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
