"""What the log looks like as a whole: counts for people and programs that watch it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

from psycopg import Connection
from psycopg.rows import class_row, dict_row

from marketing_pipeline.event_log import queries

T = TypeVar("T")
_SQL = queries.load("overview.sql")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """A provider that is not called for now."""

    provider: str
    until: datetime
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """The log at one moment."""

    events: Mapping[str, int]  # by status
    effects: Mapping[str, int]  # by state
    pauses: tuple[Pause, ...]
    lag: timedelta | None  # of the oldest event that is due and unplanned
    awake: int  # delivery runs at work


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far some events have come."""

    planned: int
    finished: int  # COMPLETED or FAILED
    under_way: int  # neither finished nor waiting for a person only


@dataclass(frozen=True, slots=True, kw_only=True)
class Promised:
    """Plans against the ledger: the two are written apart."""

    planned: int  # effects that plans promise
    held: int  # effects on the ledger
    unplanned: int  # events without a plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """What it took to deliver."""

    calls: int  # look-ups included
    retries: int  # calls that were not the first for their effect


@dataclass(frozen=True, slots=True, kw_only=True)
class Latencies:
    """From accepted to delivered; None where nothing was."""

    p50: timedelta | None
    p95: timedelta | None
    p99: timedelta | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerLine:
    """An effect as the ledger has it."""

    id: UUID
    provider: str
    state: str


def read(conn: Connection[Any]) -> Overview:
    lag = conn.cursor(row_factory=dict_row).execute(_SQL["lag"]).fetchone()
    awake = conn.cursor(row_factory=dict_row).execute(_SQL["awake"]).fetchone()
    assert lag is not None
    assert awake is not None
    return Overview(
        events=dict(conn.execute(_SQL["events"]).fetchall()),
        effects=dict(conn.execute(_SQL["effects"]).fetchall()),
        pauses=tuple(conn.cursor(row_factory=class_row(Pause)).execute(_SQL["pauses"])),
        lag=lag["lag"],
        awake=awake["n"],
    )


def unfinished_elsewhere(conn: Connection[Any], source: str) -> int:
    """Events of other sources that a delivery run would work on."""
    row = conn.execute(_SQL["unfinished elsewhere"], {"source": source}).fetchone()
    assert row is not None
    return int(row[0])


def progress(conn: Connection[Any], events: Sequence[UUID]) -> Progress:
    return _one(conn, Progress, "progress", events)


def settled(conn: Connection[Any], events: Sequence[UUID]) -> Mapping[str, int]:
    """Effects by state."""
    return dict(conn.execute(_SQL["settled"], {"events": list(events)}).fetchall())


def promised(conn: Connection[Any], events: Sequence[UUID]) -> Promised:
    return _one(conn, Promised, "promised", events)


def effort(conn: Connection[Any], events: Sequence[UUID]) -> Effort:
    return _one(conn, Effort, "effort", events)


def latencies(conn: Connection[Any], events: Sequence[UUID]) -> Latencies:
    return _one(conn, Latencies, "latencies", events)


def ledger(conn: Connection[Any], source: str, also: Sequence[UUID]) -> list[LedgerLine]:
    """Every effect of a source, and those of `also` wherever they come from."""
    cursor = conn.cursor(row_factory=class_row(LedgerLine))
    return cursor.execute(_SQL["ledger"], {"source": source, "also": list(also)}).fetchall()


def _one(conn: Connection[Any], kind: type[T], name: str, events: Sequence[UUID]) -> T:
    cursor = conn.cursor(row_factory=class_row(kind))
    row = cursor.execute(_SQL[name], {"events": list(events)}).fetchone()
    assert row is not None
    return row
