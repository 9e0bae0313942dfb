"""Compares what was due, what the ledger says and what the sandbox did, in SQL of its own."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

_OPEN = ("PLANNED", "SENDING", "DOUBT")

_PROGRESS = """
select (select count(*) from marketing_events where status = 'PENDING'),
       (select count(*) from marketing_events where status = 'PROCESSING'),
       (select count(*) from plans where inserted < count),
       (select count(*) from effects where state = any(%(open)s)),
       (select count(*) from effects)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How far a log is."""

    pending: int  # events without a plan
    processing: int  # events under way
    unwritten: int  # plans of which effects are missing
    open: int  # effects that are not at their end
    effects: int

    @property
    def settled(self) -> bool:
        """No effect is open and none is to come; events may still have to be told."""
        return not (self.pending or self.unwritten or self.open)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What is wrong with the books of one trial; all empty where they agree."""

    effects: int
    twice: tuple[str, ...]  # acted on more than once
    lost: tuple[str, ...]  # planned, or to be planned, and neither done nor honestly held
    unaccounted: tuple[str, ...]  # done, and the ledger does not say so
    unknown: tuple[str, ...]
    unbalanced: tuple[str, ...]  # conservation and status: what was planned is not what is there

    @property
    def clean(self) -> bool:
        return not (self.twice or self.lost or self.unaccounted or self.unbalanced)

    def words(self) -> str:
        found = {
            "twice": self.twice,
            "lost": self.lost,
            "unaccounted": self.unaccounted,
            "unknown": self.unknown,
            "unbalanced": self.unbalanced,
        }
        return "; ".join(f"{name}: {', '.join(rows)}" for name, rows in found.items() if rows)


def standing(conn: psycopg.Connection) -> Standing:
    row = conn.execute(_PROGRESS, {"open": list(_OPEN)}).fetchone()
    assert row is not None
    pending, processing, unwritten, open_, effects = row
    return Standing(
        pending=pending, processing=processing, unwritten=unwritten, open=open_, effects=effects
    )


def judge(conn: psycopg.Connection, acts: Sequence[Mapping[str, Any]], expected: int) -> Verdict:
    """Judge a log of which `expected` effects should have been planned and done.

    acts: the sandbox's record, as its control API gives it.
    """
    rows = conn.execute("select id::text, state from effects").fetchall()
    states: dict[str, str] = {id: state for id, state in rows}
    times = Counter(str(act["key"]) for act in acts if not act["repeat"])
    unknown = sorted(id for id, state in states.items() if state == "UNKNOWN")
    lost = [
        f"{id} {state}, {times[id]} acts"
        for id, state in states.items()
        if state != "UNKNOWN" and (state != "SENT" or not times[id])
    ]
    missing = expected - len(states)
    return Verdict(
        effects=expected,
        twice=tuple(f"{key} {n} times" for key, n in sorted(times.items()) if n > 1),
        lost=tuple(lost + ([f"{missing} never planned"] if missing > 0 else [])),
        unaccounted=tuple(
            sorted(key for key in times if states.get(key) not in {"SENT", "UNKNOWN"})
        ),
        unknown=tuple(unknown),
        unbalanced=tuple(_unbalanced(conn, expected)),
    )


def untouched(conn: psycopg.Connection, struck: float | None) -> list[str]:
    """What ended UNKNOWN though it was not in flight at the strike: it was attempted only later.

    struck: seconds since the epoch by this machine's clock, which is the database's too.
    """
    rows = conn.execute(
        """select e.id::text from effects e
           where e.state = 'UNKNOWN' and e.last_attempt_at > to_timestamp(%s)""",
        [struck or 0],
    ).fetchall()
    return [id for (id,) in rows]


def _unbalanced(conn: psycopg.Connection, expected: int) -> list[str]:
    """From tables that are written apart: plans, effects, attempts, events."""
    found = []
    promised, written, ledger = _row(
        conn,
        """select (select coalesce(sum(count), 0) from plans),
                  (select coalesce(sum(inserted), 0) from plans), (select count(*) from effects)""",
    )
    if not promised == written == ledger == expected:
        found.append(f"{expected} due, {promised} promised, {written} counted, {ledger} in ledger")
    (silent,) = _row(
        conn,
        """select count(*) from effects e where state = 'SENT' and not exists (
               select from attempts a
               where a.effect_id = e.id and a.outcome in ('ACCEPTED', 'FOUND'))""",
    )
    if silent:
        found.append(f"{silent} SENT without an attempt that says so")
    (events,) = _row(
        conn,
        """select count(*) from marketing_events m where status <> 'COMPLETED' and not exists (
               select from effects e where e.event_id = m.id and e.state <> 'SENT')""",
    )
    if events:
        found.append(f"{events} events of which all is sent are not COMPLETED")
    return found


def _row(conn: psycopg.Connection, query: Any) -> tuple[int, ...]:
    row = conn.execute(query).fetchone()
    assert row is not None
    return tuple(row)
