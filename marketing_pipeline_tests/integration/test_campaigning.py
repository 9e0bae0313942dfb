"""Campaigns from the command line: triggered by hand, and looked at."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest

from marketing_pipeline import embedded, settings
from marketing_pipeline.delivery import triggering
from marketing_pipeline_tests.pipeline import lead, record, run

Ran = subprocess.CompletedProcess[str]
Cli = Callable[..., Ran]
FILE = """
campaigns:
  news: {audience: newcomers, template: news}
  weekly:
    audience: newcomers
    template: news
    approve: true
    schedule: {cron: "0 9 * * 1", timezone: Europe/Berlin}
  past: {audience: newcomers, template: news, schedule: {at: 2026-01-01T09:00, timezone: UTC}}

sequences:
  tour:
    steps: [{step: first, after: 2d, template: news}, {step: second, after: 3d, template: news}]
"""


@pytest.fixture
def cli(database: str, servers: embedded.Servers, home: Path, tmp_path: Path) -> Cli:
    """Runs the command on an operator's folder whose file has the campaigns above."""
    file = home / "campaigns" / "demo.yaml"
    file.write_text(file.read_text().partition("\ncampaigns:")[0] + FILE)
    env = {
        "PATH": os.environ["PATH"],
        "COLUMNS": "240",
        "MARKETING_HOME": str(home),
        "MARKETING_CAMPAIGNS": "campaigns/demo.yaml",
        "MARKETING_STATE": str(tmp_path / "state"),
        "MARKETING_DATABASE_URL": database,
        "MARKETING_REDIS_URL": servers.redis_url,
    }

    def run(*words: str) -> Ran:
        command = [sys.executable, "-m", "marketing_pipeline", *words]
        return subprocess.run(
            command, env=env, capture_output=True, text=True, timeout=60, check=False
        )

    return run


def is_one_line(ran: Ran) -> bool:
    """Said in one line on standard error, with exit code 2 and no traceback."""
    return (
        ran.returncode == 2
        and not ran.stdout
        and bool(re.fullmatch(r"marketing-pipeline: .+\n", ran.stderr))
    )


def payloads(database: str) -> list[dict[str, Any]]:
    with psycopg.connect(database) as conn:
        return [row[0] for row in conn.execute("select payload from marketing_events order by seq")]


def shown(cli: Cli) -> dict[str, Any]:
    ran = cli("campaigns", "--json")
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    return {one["campaign"]: one for one in told["campaigns"]} | {"steps": told["sequences"]}


def test_a_campaign_is_triggered_at_an_instant_once_in_every_zone(cli: Cli, database: str) -> None:
    first = cli("trigger", "news", "--at", "2026-03-02T13:00:00+01:00", "--why", "the fair")
    again = cli("trigger", "news", "--at", "2026-03-02T12:00Z")
    event_id = triggering.event_id("news", datetime(2026, 3, 2, 12, tzinfo=UTC))
    assert (first.stdout, again.stdout) == (f"{event_id} NEW\n", f"{event_id} DUPLICATE\n")
    [payload] = payloads(database)
    assert payload.pop("who")
    assert payload == {
        "campaign": "news",
        "occurrence": "2026-03-02T12:00:00Z",
        "why": "the fair",
    }


def test_a_campaign_is_triggered_now_and_told_to_wait_where_it_must(
    cli: Cli, database: str
) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    told = cli("trigger", "weekly").stdout.splitlines()
    assert UUID(told[0].removesuffix(" NEW"))
    assert told[1:] == ["it waits for approval: marketing-pipeline plan weekly"]
    with psycopg.connect(database) as conn:
        [(at,)] = conn.execute("select scheduled_at from marketing_events").fetchall()
    assert before <= at <= datetime.now(UTC)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["nwes"], "did you mean 'news'?"),
        (["news", "--at", "tomorrow"], "'tomorrow' is no instant; write 2026-03-01T09"),
        (["news", "--at", "2026-03-02T12:00"], "has no offset from UTC; write"),
        (["news", "--at", "2036-03-02T12:00Z"], "400 days ahead"),
    ],
)
def test_what_cannot_be_triggered_is_told_in_a_line(
    cli: Cli, database: str, words: list[str], problem: str
) -> None:
    ran = cli("trigger", *words)
    assert is_one_line(ran), ran
    assert problem in ran.stderr
    assert payloads(database) == []


def test_campaigns_tell_when_they_are_due_and_that_they_never_were(cli: Cli) -> None:
    told = shown(cli)
    assert (told["news"]["schedule"], told["news"]["next"], told["news"]["last"]) == (None,) * 3
    assert told["weekly"]["schedule"] == "At 09:00 on Monday, Europe/Berlin (0 9 * * 1)"
    following = told["weekly"]["next"]
    assert following["timezone"] == "Europe/Berlin"
    local, utc = (datetime.fromisoformat(following[name]) for name in ("local", "utc"))
    assert (local.hour, local.weekday()) == (9, 0)
    assert local == utc > datetime.now(UTC)
    assert told["past"]["next"] is None
    assert told["steps"] == []


def test_campaigns_tell_what_became_of_the_last_time(
    cli: Cli, used: settings.Settings, database: str
) -> None:
    record(database, [lead(1), lead(2)])
    cli("trigger", "news", "--at", f"{datetime.now(UTC) - timedelta(hours=1):%Y-%m-%dT%H:%MZ}")
    assert shown(cli)["news"]["last"]["waits_for"] == "for its plan, by the next delivery run"
    cli("trigger", "weekly")
    cli("trigger", "past", "--at", f"{datetime.now(UTC) + timedelta(days=1):%Y-%m-%dT%H:%MZ}")
    run(used)
    told = shown(cli)
    last = told["news"]["last"]
    assert (last["status"], last["sent"], last["open"], last["failed"]) == ("COMPLETED", 2, 0, 0)
    assert last["waits_for"] is None
    held = told["weekly"]["last"]
    assert (held["status"], held["held"], held["sent"]) == ("PENDING", "unapproved", 0)
    assert held["waits_for"].endswith("marketing-pipeline plan weekly")
    assert told["past"]["last"] is None, "it is to come"
    assert [(one["sequence"], one["step"], one["waiting"]) for one in told["steps"]] == [
        ("tour", "first", 2)
    ]
    text = cli("campaigns").stdout
    for words in ("COMPLETED", "unapproved", "tour", "At 09:00 on Monday"):
        assert words in text
    assert "@" not in text


def test_a_campaign_that_failed_tells_why(cli: Cli, used: settings.Settings, home: Path) -> None:
    file = home / "campaigns" / "demo.yaml"
    whole = file.read_text()
    at = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=1)
    schedule = f"at: {at:%Y-%m-%dT%H:%M}, timezone: UTC"
    file.write_text(whole.replace("at: 2026-01-01T09:00, timezone: UTC", schedule))
    cli("trigger", "past", "--at", f"{at:%Y-%m-%dT%H:%MZ}")
    with_past = file.read_text()
    file.write_text(re.sub(r"^  past: .*\n", "", with_past, flags=re.MULTILINE))
    run(used)
    file.write_text(with_past)
    last = shown(cli)["past"]["last"]
    assert last["status"] == "FAILED", "found by its id: it has no plan"
    assert "no campaign 'past'" in last["waits_for"]
