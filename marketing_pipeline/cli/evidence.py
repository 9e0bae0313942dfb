"""The sandbox's record beside the log it belongs to: what of it can be compared."""

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from marketing_pipeline.cli.reconciliation import Act, LedgerEntry

_SENT = "SENT"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """A record of what providers did, and since when it speaks for this log."""

    record: Path
    earlier: frozenset[str]  # effects SENT before the record began: it cannot know of them
    notice: str  # what the operator has to know of it; empty where all can be compared


def prepare(record: Path, ledger: Iterable[LedgerEntry]) -> Evidence:
    """See what the record can testify to, before anything of this run is sent.

    A record that was deleted knows nothing of effects sent before; without a word about it each
    would count as lost. Their ids are kept beside the record, so that the next run knows too.
    A record none of whose acts this log knows belongs to another log (one given by URL, or one
    that was thrown away): it is set aside, for its acts would all be unaccounted for.
    """
    record.parent.mkdir(parents=True, exist_ok=True)
    entries = list(ledger)
    began = record.with_name("sent-before-the-record")
    done = acts(record)
    if done and not {act.key for act in done} & {entry.id for entry in entries}:
        notice = f"the sandbox's record was of another log; it is now {_set_aside(record)}. "
    elif done:
        kept = began.read_text().split() if began.exists() else ()
        return Evidence(record=record, earlier=frozenset(kept), notice=_missing(len(kept)))
    else:
        notice = ""
    sent = sorted(entry.id for entry in entries if entry.state == _SENT)
    began.write_text("".join(f"{id}\n" for id in sent))
    return Evidence(record=record, earlier=frozenset(sent), notice=notice + _missing(len(sent)))


def acts(record: Path) -> list[Act]:
    """Everything in the record; nothing where there is none yet."""
    if not record.exists():
        return []
    with closing(sqlite3.connect(f"file:{record}?mode=ro", uri=True)) as file:
        if not file.execute("select 1 from sqlite_master where name = 'acts'").fetchone():
            return []
        rows = file.execute("select provider, operation, key, repeat from acts").fetchall()
    return [
        Act(provider=provider, operation=operation, key=key, repeat=bool(repeat))
        for provider, operation, key, repeat in rows
    ]


def _missing(earlier: int) -> str:
    if not earlier:
        return ""
    return (
        f"the sandbox's record is younger than this log: {earlier:,} effects that were sent "
        "before it began are left out of the comparison"
    )


def _set_aside(record: Path) -> Path:
    number = 1
    while (aside := record.with_name(f"{record.stem}-{number}{record.suffix}")).exists():
        number += 1
    with closing(sqlite3.connect(record)) as file:
        file.execute("pragma wal_checkpoint(truncate)")  # what the -wal file holds moves along
    for suffix in ("-wal", "-shm"):
        record.with_name(record.name + suffix).unlink(missing_ok=True)
    record.rename(aside)
    return aside
