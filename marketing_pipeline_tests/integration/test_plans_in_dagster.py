"""A campaign's plan on Dagster's pages: read as metadata, approved by a job, sent just so."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from dagster import (
    DagsterEventType,
    ExecuteInProcessResult,
    MarkdownMetadataValue,
    materialize,
    mem_io_manager,
)

from marketing_pipeline import settings
from marketing_pipeline.defs.plans import approve_campaign, campaign_plan
from marketing_pipeline.defs.resources import EventLog, Providers
from marketing_pipeline_tests.fresh_settings import forget_settings
from marketing_pipeline_tests.pipeline import Sandbox, campaign, lead, record, run, statuses

# Dagster warns of what it does itself: it reads old attributes, and hands on beta parameters.
pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning")
MORE = """
  careful: {audience: everybody, template: news, approve: true}
  tried:
    audience: everybody
    split: {holdout: 50%, variants: {one: {template: news}, two: {template: welcome}}}
"""
AGREED = "audiences:\n  everybody: {}\n  agreed: {consent: news}\n"


@pytest.fixture
def installed(
    used: settings.Settings, home: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[settings.Settings]:
    """Dagster's resources as a process with this environment has them, and more campaigns."""
    file = home / "campaigns" / "demo.yaml"
    file.write_text(file.read_text().replace("audiences:\n", AGREED).rstrip() + MORE)
    for name, value in used.environment.items():
        monkeypatch.setenv(name, value)
    forget()
    yield used
    forget()


def forget() -> None:
    """Resources read the environment once a process."""
    forget_settings()


def plan(**config: str) -> Mapping[str, Any]:
    """What Dagster shows of the plans."""
    done = planned(**config)
    assert done.success
    [shown] = done.asset_materializations_for_node("campaign_plan")
    return {
        label: value.md_str if isinstance(value, MarkdownMetadataValue) else value.value
        for label, value in shown.metadata.items()
    }


def planned(**config: str) -> ExecuteInProcessResult:
    return materialize(
        [campaign_plan],
        resources=page(),
        run_config={"ops": {"campaign_plan": {"config": config}}},
        raise_on_error=False,
    )


def approved(**config: str) -> ExecuteInProcessResult:
    return approve_campaign.execute_in_process(
        resources=page(),
        run_config={"ops": {"approve": {"config": config}}},
        raise_on_error=False,
    )


def page() -> dict[str, Any]:
    return {"event_log": EventLog(), "providers": Providers(), "io_manager": mem_io_manager}


def refusal(done: ExecuteInProcessResult) -> str:
    """The one line that an operator reads."""
    assert not done.success
    [failed] = [one for one in done.all_events if one.event_type is DagsterEventType.STEP_FAILURE]
    told = failed.step_failure_data.user_failure_data
    assert told is not None
    assert told.description is not None
    assert "\n" not in told.description
    return told.description


def approvals(database: str) -> list[tuple[str, str]]:
    with psycopg.connect(database) as conn:
        return conn.execute("select who, why from approvals").fetchall()


def test_a_plan_is_read_in_the_ui_approved_there_and_sent_just_so(
    installed: settings.Settings, database: str, sandbox: Sandbox
) -> None:
    record(database, [lead(number) for number in range(5)])
    record(database, [campaign("careful", "one")])
    run(installed)
    assert statuses(database) == {"COMPLETED": 5, "PENDING": 1}, "it waits for a person"
    before = set(sandbox.acts())
    shown = plan(campaign="careful")
    assert list(shown) == [
        "careful",
        "careful: mails",
        "careful: left out",
        "careful: digest",
        "careful: to approve",
    ]
    assert (shown["careful: mails"], shown["careful: left out"]) == (5, 0)
    digest = str(shown["careful: digest"])
    command = f'marketing-pipeline approve careful --digest {digest[:12]} --why "..."'
    assert shown["careful: to approve"] == command
    assert "its plan waits for somebody's approval" in shown["careful"]
    done = approved(campaign="careful", digest=digest[:12], why="read it")
    assert done.success
    assert approvals(database) == [(f"run {done.run_id}", "read it")]
    record(database, [lead(5)])  # too late for the plan that was approved
    drifted = plan(campaign="careful")
    assert "since the approved plan, left for the next: 1 more, 0 fewer" in drifted["careful"]
    run(installed)
    assert len(set(sandbox.acts()) - before) == 5 + 2, "five mails, and the late lead's two effects"
    assert set(sandbox.acts().values()) == {1}
    again = approved(campaign="careful", digest=digest[:12], why="once more")
    assert "has been planned already" in refusal(again)


def test_the_page_has_tables_of_who_gets_what_and_who_does_not_and_nobodys_address(
    installed: settings.Settings, database: str
) -> None:
    record(database, [lead(number) for number in range(40)])
    run(installed, linger=0.2)
    shown = plan()
    assert {label for label in shown if ":" not in label} == {"news", "careful", "tried"}
    text = shown["tried"]
    assert shown["tried: mails"] + shown["tried: left out"] == 40
    assert "| mail | one news | mailgun" in text
    assert "| mail | two welcome | mailgun" in text
    assert f"| holdout |  | {shown['tried: left out']} | █" in text
    assert "nobody has to approve it" in text
    assert "| changes | no earlier plan |" in text
    assert "the file says no price" in text
    assert not any("@" in str(value) for value in shown.values())


def test_a_plan_of_the_past_is_shown_and_cannot_be_approved(
    installed: settings.Settings, database: str
) -> None:
    record(database, [lead(1)])
    run(installed, linger=0.2)
    then = datetime.now(UTC).isoformat()
    record(database, [lead(2)])
    shown = plan(campaign="careful", as_of=then)
    assert shown["careful: mails"] == 1
    assert "careful: to approve" not in shown
    assert plan(campaign="careful")["careful: mails"] == 2


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"campaign": "carefull"}, "campaign: 'carefull' is not in demo.yaml; did you mean"),
        ({"campaign": "careful", "at": "tomorrow"}, "at: 'tomorrow' is no instant; write"),
        ({"at": "2026-03-01T09:00Z"}, "campaign: is missing; an occurrence (at) is"),
        (
            {"campaign": "careful", "at": "2026-03-01T09:00Z", "as_of": "2026-03-01T09:00Z"},
            "give one of them",
        ),
        ({"campaign": "careful", "as_of": "2020-01-01T00:00Z"}, "no delivery run had been awake"),
    ],
)
def test_what_cannot_be_planned_is_one_line_with_the_remedy(
    config: dict[str, str], problem: str
) -> None:
    assert problem in refusal(planned(**config))


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"campaign": "carefull", "digest": "0" * 64}, "did you mean 'careful'?"),
        ({"campaign": "careful", "digest": "abc"}, "give the first 8 digits"),
        ({"campaign": "careful", "digest": "0" * 64}, "no plan of 'careful' was shown"),
    ],
)
def test_what_cannot_be_approved_is_one_line_with_the_remedy(
    database: str, config: dict[str, str], problem: str
) -> None:
    assert problem in refusal(approved(**config, why="read it"))
    assert approvals(database) == []


def test_a_file_that_cannot_be_used_is_told_with_its_line(installed: settings.Settings) -> None:
    installed.campaigns_file.write_text("version: 2\n")
    assert "demo.yaml:1: version: " in refusal(planned(campaign="careful"))
