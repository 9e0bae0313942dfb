"""What a record can testify to: its own log's effects, since it began."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from marketing_pipeline.cli import evidence
from marketing_pipeline.cli.reconciliation import LedgerEntry, reconcile
from marketing_pipeline.sandbox.record import SCHEMA


@pytest.fixture
def record(tmp_path: Path) -> Path:
    return tmp_path / "demo" / "sandbox.sqlite"


def do(record: Path, *keys: str) -> None:
    record.parent.mkdir(exist_ok=True)
    with closing(sqlite3.connect(record)) as file, file:
        file.executescript(SCHEMA)
        file.executemany(
            "insert into acts (at, provider, operation, key, body_sha256, repeat)"
            " values (0, 'resend', 'send', ?, '', 0)",
            [(key,) for key in keys],
        )


def ledger(*ids: str, state: str = "SENT") -> list[LedgerEntry]:
    return [LedgerEntry(id=id, state=state) for id in ids]


def agree(record: Path, entries: list[LedgerEntry], found: evidence.Evidence) -> bool:
    return reconcile(entries, evidence.acts(record), earlier=found.earlier).agrees


def test_a_new_log_and_a_new_record_need_no_word(record: Path) -> None:
    assert evidence.prepare(record, []).notice == ""


def test_a_record_that_was_deleted_makes_no_losses_of_what_was_sent_before(record: Path) -> None:
    found = evidence.prepare(record, ledger("old", "older"))
    assert "2 effects" in found.notice
    do(record, "new")
    assert agree(record, ledger("old", "older", "new"), found)
    assert not agree(record, ledger("old", "older", "new", "lost"), found)


def test_the_run_after_that_one_knows_it_too(record: Path) -> None:
    evidence.prepare(record, ledger("old"))
    do(record, "new")
    again = evidence.prepare(record, ledger("old", "new"))
    assert "1 effects" in again.notice
    assert agree(record, ledger("old", "new"), again)


def test_what_was_open_when_the_record_began_can_still_be_lost(record: Path) -> None:
    found = evidence.prepare(record, ledger("open", state="PLANNED"))
    assert not agree(record, ledger("open"), found)


def test_what_was_sent_before_the_record_began_and_is_done_again_was_done_twice(
    record: Path,
) -> None:
    found = evidence.prepare(record, ledger("old"))
    do(record, "old")
    assert reconcile(ledger("old"), evidence.acts(record), earlier=found.earlier).twice == ("old",)


def test_a_record_of_another_log_is_set_aside(record: Path) -> None:
    do(record, "foreign")
    found = evidence.prepare(record, [])
    assert "of another log" in found.notice
    assert not record.exists()
    assert len(evidence.acts(record.with_name("sandbox-1.sqlite"))) == 1
    do(record, "foreign")
    evidence.prepare(record, [])
    assert record.with_name("sandbox-2.sqlite").exists()


def test_a_record_of_this_log_keeps_counting_acts_that_it_does_not_know(record: Path) -> None:
    do(record, "ours", "stray")
    found = evidence.prepare(record, ledger("ours"))
    assert not agree(record, ledger("ours"), found)
