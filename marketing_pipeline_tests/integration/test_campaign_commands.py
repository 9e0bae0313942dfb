"""Campaigns at the command line: read, approved, triggered and sent; refused with the remedy."""

import csv
import json
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from marketing_pipeline.settings import Settings
from marketing_pipeline_tests.pipeline import Sandbox, lead, record, run

MORE = """
  careful: {audience: everybody, template: news, approve: true}
  tried:
    audience: everybody
    split: {holdout: 50%, variants: {one: {template: news}, two: {template: welcome}}}
"""


@pytest.fixture
def asked(used: Settings, home: Path) -> Settings:
    file = home / "campaigns" / "demo.yaml"
    text = file.read_text().replace("audiences:\n", "audiences:\n  everybody: {}\n")
    file.write_text(text.rstrip() + MORE)
    return used


def command(used: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "marketing_pipeline", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=dict(used.environment) | {"PATH": "/usr/bin:/bin", "COLUMNS": "200"},
        timeout=60,
    )


def told(used: Settings, *arguments: str) -> dict[str, Any]:
    done = command(used, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_campaign_is_read_approved_triggered_and_sent_just_so(
    asked: Settings, database: str, sandbox: Sandbox, tmp_path: Path
) -> None:
    record(database, [lead(number) for number in range(5)])
    run(asked)
    before = set(sandbox.acts())
    people = tmp_path / "people.csv"
    plan = told(asked, "plan", "careful", "--people", str(people))
    assert (plan["count"], plan["recorded"], plan["approval"]["approved"]) == (5, False, False)
    with people.open() as file:
        rows = list(csv.DictReader(file))
    assert len({row["person"] for row in rows}) == len(rows) == 5
    assert "@" not in people.read_text()
    page = command(asked, "plan", "careful")
    assert f"approve careful --digest {plan['digest'][:12]}" in page.stdout
    done = command(asked, "approve", "careful", "--digest", plan["digest"][:12], "--why", "read it")
    assert done.returncode == 0, done.stderr
    record(database, [lead(5)])  # too late for the plan that was approved
    run(asked)
    triggered = command(asked, "trigger", "careful")
    assert plan["event_id"] in triggered.stdout, "it is the one that was approved"
    again = told(asked, "plan", "careful")
    assert again["approval"]["approved"]
    assert again["drift"]["added"] == 1
    run(asked)
    assert len(set(sandbox.acts()) - before) == 5 + 2, "five mails, and the late lead's two effects"
    sent = told(asked, "plan", "careful", "--at", plan["occurrence"])
    assert sent["sent"] == {"digest": plan["digest"], "count": 5}
    with psycopg.connect(database) as conn:
        row = conn.execute("select cut_at from plans where campaign = 'careful'").fetchone()
    assert row is not None
    then = told(asked, "plan", "careful", "--as-of", row[0].isoformat())
    assert then["digest"] == plan["digest"]
    assert set(sandbox.acts().values()) == {1}


def test_a_split_is_written_down_person_by_person(
    asked: Settings, database: str, tmp_path: Path
) -> None:
    record(database, [lead(number) for number in range(40)])
    run(asked, linger=0.2)
    people = tmp_path / "people.csv"
    plan = told(asked, "plan", "tried", "--people", str(people))
    with people.open() as file:
        rows = list(csv.DictReader(file))
    counts = Counter(row["variant"] or row["left_out"] for row in rows)
    assert counts["holdout"] == plan["left_out"]["holdout"]
    assert counts["one"] + counts["two"] == plan["count"]
    assert counts.total() == 40


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("plan", "carefull"), "CAMPAIGN: 'carefull' is not in demo.yaml; did you mean 'careful'?"),
        (("plan", "careful", "--at", "tomorrow"), "--at: 'tomorrow' is no instant; write"),
        (("plan", "careful", "--at", "2026-03-01T09:00"), "has no offset from UTC; write"),
        (("plan", "careful", "--as-of", "2020-01-01T00:00Z"), "no delivery run had been awake"),
        (
            ("plan", "careful", "--at", "2026-03-01T09:00Z", "--as-of", "2026-03-01T09:00Z"),
            "give one of them",
        ),
        (("approve", "careful", "--digest", "abc", "--why", "x"), "give the first 8 digits"),
        (("approve", "careful", "--digest", "0" * 64, "--why", "x"), "no plan of 'careful' was"),
        (
            ("approve", "careful", "--digest", "0" * 64, "--why", "x", "--life", "soon"),
            "--life: 'soon' is no duration",
        ),
        (("trigger", "carefull"), "did you mean 'careful'?"),
        (
            ("replay", "--from", "2026-03-01", "--to", "2026-03-01", "--mode", "resend"),
            "epoch: is missing; write --epoch 1",
        ),
    ],
)
def test_what_cannot_be_done_is_one_line_with_the_remedy(
    asked: Settings, arguments: tuple[str, ...], problem: str
) -> None:
    done = command(asked, *arguments)
    assert done.returncode == 2
    assert problem in done.stderr
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_a_day_is_sent_again_by_the_digest_of_what_was_proposed(
    asked: Settings, database: str, sandbox: Sandbox
) -> None:
    record(database, [lead(number) for number in range(5)])
    run(asked)
    command(asked, "trigger", "tried")
    run(asked)
    before = set(sandbox.acts())
    today = datetime.now(UTC).date()
    span = ("--from", str(today - timedelta(days=1)), "--to", str(today))
    resend = ("replay", *span, "--types", "CAMPAIGN_TRIGGER", "--mode", "resend", "--epoch", "1")
    proposed = told(asked, *resend)
    assert (proposed["events"], proposed["calls"], proposed["plans_written"]) == (1, 0, 0)
    page = command(asked, *resend)
    assert f"--plan-digest {proposed['digest'][:12]}" in page.stdout
    run(asked)
    assert set(sandbox.acts()) == before, "a proposal sends nothing"
    for written in (1, 0):
        done = told(asked, *resend, "--plan-digest", proposed["digest"])
        assert done["plans_written"] == written
        run(asked)
        assert len(set(sandbox.acts()) - before) == proposed["effects"]
    assert set(sandbox.acts().values()) == {1}
    verified = told(asked, "replay", *span, "--workers", "1")
    assert (verified["differences"], verified["calls"]) == ([], 0)
