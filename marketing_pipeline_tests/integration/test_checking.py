"""`marketing-pipeline check` as a program that is run; it needs no server."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from marketing_pipeline import settings
from marketing_pipeline.cli import checking
from marketing_pipeline.delivery import assembly
from marketing_pipeline_tests.pipeline import CHECKOUT

Ran = subprocess.CompletedProcess[str]
FOLDER = CHECKOUT / "campaigns"
NOW = datetime(2026, 12, 24, 12, tzinfo=UTC)


def check(*words: str, **env: str) -> Ran:
    command = [sys.executable, "-m", "marketing_pipeline", "check", *words]
    usual = {"PATH": os.environ["PATH"], "COLUMNS": "200"}
    return subprocess.run(
        command, env=usual | env, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def copied(home: Path) -> Path:
    """A file of the operator's that may be changed."""
    return home / "campaigns" / "pipeline.yaml"


def document(file: Path, **env: str) -> dict[str, Any]:
    used = settings.read({"MARKETING_CAMPAIGNS": str(file)} | env)
    return checking.document(assembly.assemble(used), NOW)


@pytest.mark.parametrize("name", ["pipeline.yaml", "demo.yaml"])
def test_a_shipped_file_is_in_order_without_any_secret(name: str) -> None:
    ran = check(str(FOLDER / name), "--json")
    told = json.loads(ran.stdout)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert told["problems"] == told["warnings"] == []
    assert "mailgun: MAILGUN_API_KEY is not set; until then its effects wait" in told["notes"]


def test_it_shows_what_the_file_in_use_has() -> None:
    ran = check(MARKETING_CAMPAIGNS="campaigns/pipeline.yaml", MAILGUN_API_KEY="sk-SECRET")
    assert ran.returncode == 0
    for told in (
        "mailgun, email, class B", "contact by hubspot, welcome by resend",
        "consent, did_not, tags",
        "news or digest to readers, next", "once approved", "after LEAD_CAPTURE: tour, more",
        "reads company, first_name, topics", "note: resend: RESEND_API_KEY is not set",
    ):  # fmt: skip
        assert told in ran.stdout, ran.stdout
    assert "MAILGUN_API_KEY" not in ran.stdout
    assert "SECRET" not in ran.stdout


def test_a_campaign_is_told_with_the_local_time_at_which_it_is_next_due() -> None:
    campaigns = document(FOLDER / "pipeline.yaml")["campaigns"]
    assert campaigns["monthly"] == {
        "audience": "readers",
        "templates": ["news", "digest"],
        "approve": True,
        "next": "Fri 2027-01-01T09:00+01:00",
    }
    assert campaigns["news"]["next"] is None
    assert campaigns["spring"]["next"] == "Wed 2030-03-20T08:30+01:00"


def test_all_problems_are_told_by_file_and_line_and_it_ends_with_2(copied: Path) -> None:
    text = copied.read_text()
    copied.write_text(
        text.replace("{env: RESEND_API_KEY}", "re_SECRET")
        .replace("holdout: 10%", "holdot: 10%")
        .replace("stop_when: clickers", "stop_when: clickrs")
        .replace("Europe/Vienna", "Europe/Wien")
    )
    ran = check(str(copied))
    assert (ran.returncode, ran.stdout) == (2, "")
    lines = ran.stderr.splitlines()
    assert len(lines) == 4
    for line, (place, remedy) in zip(
        lines,
        [
            ("providers.resend.api_key", "write {env: NAME}"),
            ("campaigns.monthly.split.holdot", "did you mean 'holdout'?"),
            ("campaigns.spring.schedule.timezone", "write an IANA name"),
            ("sequences.first_steps.stop_when", "did you mean 'clickers'?"),
        ],
        strict=True,
    ):
        file, number, rest = line.split(":", 2)
        assert file == str(copied)
        key = place.rpartition(".")[2]
        assert f"{key}:" in copied.read_text().splitlines()[int(number) - 1]
        assert rest.startswith(f" {place}: ")
        assert remedy in rest
    assert "SECRET" not in ran.stderr
    told = json.loads(check(str(copied), "--json").stdout)["problems"]
    assert [
        f"{one['file']}:{one['line']}: {one['where']}: {one['problem']}" for one in told
    ] == lines


def test_a_file_that_is_not_there_is_one_problem(tmp_path: Path) -> None:
    ran = check(str(tmp_path / "none.yaml"))
    assert ran.returncode == 2
    assert ran.stderr.startswith(f"{tmp_path}/none.yaml:1: there is no such file; ")
    assert len(ran.stderr.splitlines()) == 1


def test_what_is_right_and_hardly_meant_is_a_warning(copied: Path) -> None:
    text = copied.read_text().replace("2030-03-20", "2020-03-20")
    text = text.replace("stop_when: clickers", "stop_when: regulars").replace(
        "campaigns:\n", "campaigns:\n  old: {audience: everybody, template: news}\n"
    )
    text = text.replace("  welcome: {subject", "  bye: {subject: Bye, html: templates/news.html}\n"
                        "  welcome: {subject")  # fmt: skip
    text = text.replace("\nroutes:", "  idle: {adapter: webhook, url: 'https://e.com/SECRET', "
                        "limits: [{calls: 1, per: 1s}]}\n\nroutes:")  # fmt: skip
    copied.write_text(text)
    ran = check(str(copied))
    assert ran.returncode == 0, ran.stderr
    assert [line for line in ran.stdout.splitlines() if line.startswith("warning: ")] == [
        "warning: providers.idle is not used; use it, or leave it out",
        "warning: templates.bye is not used; use it, or leave it out",
        "warning: audiences.clickers is not used; use it, or leave it out",
        "warning: campaigns.spring is never due again; give it a time to come, or leave it out",
    ]
    assert "SECRET" not in ran.stdout


def test_the_schema_is_printed_for_editors() -> None:
    ran = check("--schema")
    assert ran.stdout == (FOLDER / "pipeline.schema.json").read_text()
