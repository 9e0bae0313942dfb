"""Replays one log in every way there is, and compares the digests.

    python -m marketing_pipeline_tests.replay_proof [--events 1000000] [--json FILE]

A month of events that were all sent is replayed by the command line itself, in processes of their
own: with 1, 2 and 8 workers, in pieces, from rows that were loaded in another physical order, in
two time zones, and on PostgreSQL 15 where it is installed. Every way must come to the same digest,
find no difference and reach nobody. Two controls show what a replay is worth: one digit of one
digest changed, and one effect removed, must each be told, and nothing else.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from marketing_pipeline import embedded
from marketing_pipeline.domain import digest
from marketing_pipeline.event_log import schema
from marketing_pipeline_tests import old_postgres, replay_log
from marketing_pipeline_tests.replay_log import DAYS, FIRST, TABLES

EVENTS = 1_000_000
WIDTH = 110  # columns; into a file, rich would fold names at 80
LAST = FIRST + timedelta(days=DAYS - 1)
PIECES = ((0, 9), (10, 10), (11, 30))  # days, both ends included
# What the log's rows refer to goes first; columns that PostgreSQL computes are left out.
COPIED = ("configs", "templates", "recipients", *TABLES)
_COLUMNS = """
select string_agg(quote_ident(attname), ', ' order by attnum),
       string_agg(quote_ident(attname), ', ' order by attnum) filter (where attnum <= 2)
from pg_attribute
where attrelid = %s::regclass and attnum > 0 and not attisdropped and attgenerated = ''"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One way of replaying, and what it came to."""

    name: str
    code: int  # of the command's exit
    effects: int
    days: Mapping[str, str]  # a digest each
    digest: str
    differences: Sequence[Mapping[str, Any]]
    calls: int
    seconds: float

    def agrees(self, other: "Run") -> bool:
        """Found nothing, reached nobody, and came to the same."""
        clean = (self.code, len(self.differences), self.calls) == (0, 0, 0)
        return clean and (self.days, self.digest) == (other.days, other.digest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """A log that was tampered with, and whether exactly that was told."""

    name: str
    effect: str
    told: Sequence[Mapping[str, Any]]
    holds: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """All runs, of which the first is what the others are compared with."""

    events: int
    runs: Sequence[Run]
    controls: Sequence[Control]
    skipped: Sequence[str]

    @property
    def holds(self) -> bool:
        first, *_ = self.runs
        agreed = all(one.agrees(first) for one in self.runs)
        return agreed and first.effects > 0 and all(one.holds for one in self.controls)


def prove(server: str, events: int, workers: Sequence[int], told: Callable[[str], None]) -> Proof:
    """Build a log on a server and replay it in every way; `told` hears what comes next."""
    with ExitStack() as stack:
        told("build a log")
        log = stack.enter_context(database(server))
        replay_log.build(log, events, lambda: told("build a log"))
        runs, version = list[Run](), _version(log)
        for many in workers:
            told(f"{many} workers")
            runs.append(_run(f"PostgreSQL {version}, {many} workers", log, many))
        two = workers[-1] if len(workers) == 1 else 2
        told("in pieces")
        runs.append(_in_pieces(log, two))
        told("shuffle the rows")
        shuffled = stack.enter_context(database(server))
        load_shuffled(log, shuffled)
        for zone in ("UTC", "Asia/Kathmandu"):
            told(f"shuffled, TZ={zone}")
            runs.append(_run(f"rows shuffled, TZ={zone}", shuffled, two, TZ=zone, PGTZ=zone))
        skipped = []
        if old_postgres.is_there():
            told("PostgreSQL 15")
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            old = stack.enter_context(old_postgres.running(folder))
            schema.migrate(old)
            load_shuffled(log, old)
            runs.append(_run(f"PostgreSQL {_version(old)}", old, two))
        else:
            skipped.append(f"PostgreSQL 15: {old_postgres.MISSING}; install it to see it too")
        told("controls")
        controls = [_changed(shuffled, runs[0]), _removed(shuffled, runs[0])]
    return Proof(events=events, runs=runs, controls=controls, skipped=skipped)


@contextmanager
def database(server: str) -> Iterator[str]:
    """An empty log of the present schema, dropped afterwards."""
    name = f"proof_{uuid.uuid4().hex}"
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        url = urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
        try:
            schema.migrate(url)
            yield url
        finally:
            admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def load_shuffled(source: str, target: str) -> None:
    """Copy every row into an empty log, in an order that has nothing to do with the first."""
    with psycopg.connect(source) as old, psycopg.connect(target) as new:
        new.execute("set session_replication_role = replica")  # keys are as they must be
        for table in COPIED:
            columns, key = old.execute(_COLUMNS, (table,)).fetchone() or ("", "")
            order = f"order by md5(row({key})::text)"
            rows = f"select {columns} from {table} {order}"  # noqa: S608 - the catalogue's names
            with (
                old.cursor().copy(f"copy ({rows}) to stdout".encode()) as read,
                new.cursor().copy(f"copy {table} ({columns}) from stdin".encode()) as write,
            ):
                for block in read:
                    write.write(block)
    with psycopg.connect(target, autocommit=True) as new:
        new.execute("vacuum analyze")


def replay(name: str, log: str, first: date, last: date, workers: int, **environment: str) -> Run:
    """What the command says of these days."""
    command = [sys.executable, "-m", "marketing_pipeline", "replay", "--json"]
    span = ["--from", str(first), "--to", str(last), "--workers", str(workers)]
    # No other server is needed, and nobody listens there.
    servers = {
        "MARKETING_DATABASE_URL": log,
        "MARKETING_REDIS_URL": "redis://127.0.0.1:1",
        "DAGSTER_POSTGRES_URL": log,
    }
    done = subprocess.run(
        [*command, *span],
        env={**os.environ, **servers, **environment},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode not in {0, 1} or not done.stdout:
        raise SystemExit(f"{name}: the replay ended with {done.returncode}")
    found = json.loads(done.stdout)
    wanted = ("effects", "days", "digest", "differences", "calls", "seconds")
    return Run(name=name, code=done.returncode, **{key: found[key] for key in wanted})


def _run(name: str, log: str, workers: int, **environment: str) -> Run:
    return replay(name, log, FIRST, LAST, workers, **environment)


def _in_pieces(log: str, workers: int) -> Run:
    """Days replayed piece by piece are those of the whole; only they are compared."""
    pieces = [
        replay("a piece", log, FIRST + timedelta(begin), FIRST + timedelta(end), workers)
        for begin, end in PIECES
    ]
    return Run(
        name=f"in {len(PIECES)} pieces",
        code=max(one.code for one in pieces),
        effects=sum(one.effects for one in pieces),
        days={day: sealed for one in pieces for day, sealed in one.days.items()},
        digest=_digest_of(pieces),
        differences=[told for one in pieces for told in one.differences],
        calls=sum(one.calls for one in pieces),
        seconds=sum(one.seconds for one in pieces),
    )


def _digest_of(pieces: Sequence[Run]) -> str:
    """Of a whole span, from the digests of its days."""
    return digest.running([day, sealed] for one in pieces for day, sealed in one.days.items())


def _changed(log: str, clean: Run) -> Control:
    """One digit of what was sent last for one effect."""
    with psycopg.connect(log) as conn:
        effect, day, before = _one_effect(conn, place=7)
        after = another(before)
        conn.execute(
            "update attempts set request_sha256 = %s where effect_id = %s", (after, effect)
        )
    found = replay("a digit changed", log, day, day, 1)
    expected = [(effect, before, after)]
    told = [(one["effect_id"], one["expected"], one["recorded"]) for one in found.differences]
    same = found.days[str(day)] == clean.days[str(day)]  # what is made again is what it was
    holds = (found.code, told, same) == (1, expected, True)
    return Control(
        name="one digit of one digest", effect=effect, told=found.differences, holds=holds
    )


def another(digest: str) -> str:
    """The same but for its first digit."""
    return ("0" if digest[0] != "0" else "1") + digest[1:]


def _removed(log: str, clean: Run) -> Control:
    """One effect that was planned and sent."""
    with psycopg.connect(log) as conn:
        effect, day, _ = _one_effect(conn, place=-7)
        conn.execute("set session_replication_role = replica")  # as no ledger of ours would
        conn.execute("delete from attempts where effect_id = %s", (effect,))
        conn.execute("delete from effects where id = %s", (effect,))
    found = replay("an effect removed", log, day, day, 1)
    told = [(one["effect_id"], one["what"]) for one in found.differences]
    other = found.days[str(day)] != clean.days[str(day)]
    holds = (found.code, told, other) == (1, [(effect, "missing")], True)
    return Control(name="one effect removed", effect=effect, told=found.differences, holds=holds)


def _one_effect(conn: psycopg.Connection, *, place: int) -> tuple[str, date, str]:
    """An effect of the first or last days, whose person is known, with its day and last digest."""
    row = conn.execute(
        """select e.id::text, e.day, a.request_sha256
           from effects e join attempts a on a.effect_id = e.id and a.number = e.calls
           left join recipients r on r.id = e.recipient_id
           where e.day = %(day)s and r.erased_at is null and e.calls = 1
           order by e.id limit 1""",
        {"day": FIRST + timedelta(days=place % DAYS)},
    ).fetchone()
    assert row is not None
    return row


def _version(url: str) -> int:
    with psycopg.connect(url) as conn:
        return conn.info.server_version // 10000


def show(proof: Proof, console: Console) -> None:
    """A line for each run, and what was not tried."""
    title = f"{proof.events:,} events, {proof.runs[0].effects:,} effects"
    table = Table("replayed", "digest", "same", title=title)
    for name in ("differences", "calls", "effects/s"):
        table.add_column(name, justify="right")
    for one in proof.runs:
        mark = "yes" if one.agrees(proof.runs[0]) else "[red]NO[/]"
        found = (len(one.differences), one.calls, round(one.effects / one.seconds))
        table.add_row(one.name, one.digest[:16], mark, *(f"{value:,}" for value in found))
    console.print(table)
    for control in proof.controls:
        mark = "was told, and nothing else" if control.holds else "[red]WAS NOT TOLD AS IT IS[/]"
        console.print(f"{control.name}: effect {control.effect} {mark}", highlight=False)
    for one in proof.skipped:
        console.print(f"[yellow]not tried[/]: {one}", highlight=False)
    console.print("the replay is the same in every way" if proof.holds else "[red]IT DIFFERS[/]")


def document(proof: Proof) -> dict[str, Any]:
    """For programs."""
    runs = [asdict(one) | {"effects_per_second": one.effects / one.seconds} for one in proof.runs]
    return {
        "holds": proof.holds,
        "events": proof.events,
        "effects": proof.runs[0].effects,
        "digest": proof.runs[0].digest,
        "runs": runs,
        "controls": [asdict(one) for one in proof.controls],
        "skipped": list(proof.skipped),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--events", type=int, default=EVENTS)
    parser.add_argument("--json", type=Path, help="write the result to this file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as state, Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=DAYS + 10)
        server = embedded.attach(Path(state)).database_url
        try:
            proof = prove(
                server,
                arguments.events,
                (1, 2, 8),
                lambda now: bar.update(task, advance=1, description=now),
            )
        finally:
            embedded.stop(Path(state), force=True)
    usual = Console()
    show(proof, usual if usual.is_terminal else Console(width=WIDTH))
    if arguments.json:
        arguments.json.write_text(json.dumps(document(proof), indent=2) + "\n")
    return 0 if proof.holds else 1


if __name__ == "__main__":
    sys.exit(main())
