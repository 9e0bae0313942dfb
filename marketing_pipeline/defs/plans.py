"""Campaigns' plans on Dagster's pages: read as an asset's metadata, approved by a job."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from dagster import (
    AssetExecutionContext,
    Config,
    Failure,
    MarkdownMetadataValue,
    MetadataValue,
    OpExecutionContext,
    asset,
    in_process_executor,
    job,
    op,
)
from pydantic import Field

from marketing_pipeline.campaigns.configuration import Configuration
from marketing_pipeline.campaigns.document import ConfigError
from marketing_pipeline.defs import reports
from marketing_pipeline.defs.resources import EventLog, Providers
from marketing_pipeline.delivery import plan_document, plan_requests
from marketing_pipeline.delivery.proposals import CannotPlan
from marketing_pipeline.domain.rules import Unplannable
from marketing_pipeline.event_log.approvals import CannotApprove
from marketing_pipeline.event_log.travel import NoPast

_REFUSALS = (CannotApprove, CannotPlan, ConfigError, NoPast, Unplannable)
_WIDEST = 20  # characters of a bar
_Told = Mapping[str, Any]  # a plan's document
_Rows = Sequence[Sequence[str]]


class PlanConfig(Config):
    """Which campaigns are planned, and as of when."""

    campaign: str = Field(default="", description="its name; none: all campaigns of the file")
    at: str | None = Field(
        default=None, description="of this occurrence, 2026-03-01T09:00+01:00; none: the next"
    )
    as_of: str | None = Field(
        default=None, description="as it would have been sent at this instant of the past"
    )


@asset(group_name="campaigns")
def campaign_plan(
    context: AssetExecutionContext, config: PlanConfig, event_log: EventLog, providers: Providers
) -> None:
    """Who would get what, who would not and why, and the digest to approve; sends nothing."""
    try:
        used = providers.assembly().configuration
        for name in _asked(config, used):
            told = _plan(name, config, event_log, used)
            context.log.info("%s: %d mails, digest %s", name, told["count"], told["digest"])
            context.add_output_metadata(of_plan(told))
    except _REFUSALS as error:
        raise Failure(str(error), allow_retries=False) from error


class ApproveConfig(Config):
    """Which plan is approved, and why."""

    campaign: str = Field(description="its name")
    digest: str = Field(description="of the plan you read; its first digits do")
    why: str = Field(description="kept in the log")
    who: str | None = Field(default=None, description="kept in the log; none: this run")


@op
def approve(
    context: OpExecutionContext, config: ApproveConfig, event_log: EventLog, providers: Providers
) -> None:
    """Let a campaign be sent as the plan that was read, once and exactly so."""
    who, name = config.who or f"run {context.run_id}", config.campaign
    try:
        used = providers.assembly().configuration
        plan_requests.check_known("campaign", used, name)
        found = event_log.ask(
            lambda conn: plan_requests.approve(
                conn, used, name, config.digest, who=who, why=config.why
            )
        )
    except _REFUSALS as error:
        raise Failure(str(error), allow_retries=False) from error
    of, until = found.proposal, found.expires_at.astimezone(UTC).isoformat(timespec="seconds")
    context.log.info("%s is sent as plan %s until %s", name, of.digest, until)
    context.add_output_metadata(
        {"campaign": name, "digest": of.digest, "mails": of.count, "until": until, "who": who}
    )


@job(executor_def=in_process_executor)
def approve_campaign() -> None:
    """Approve a campaign's plan; materialize `campaign_plan` to read it first."""
    approve()


def of_plan(told: _Told) -> dict[str, int | str | MarkdownMetadataValue]:
    """A page to read, what is pasted from it, and the numbers that Dagster plots over time."""
    name, left = told["campaign"], sum(told["left_out"].values())
    command = plan_document.command(told)
    return {
        name: MetadataValue.md(_page(told)),
        f"{name}: mails": told["count"],
        f"{name}: left out": left,
        f"{name}: digest": told["digest"],
        **({f"{name}: to approve": command} if command else {}),
    }


def _asked(config: PlanConfig, used: Configuration) -> Sequence[str]:
    plan_requests.check_times(config.at, config.as_of)
    if config.at is not None and not config.campaign:
        raise CannotPlan("campaign: is missing; an occurrence (at) is one campaign's: name it")
    if not config.campaign:
        return list(used.file.campaigns)
    if config.as_of is None:  # the file of then may have had other campaigns
        plan_requests.check_known("campaign", used, config.campaign)
    return [config.campaign]


def _plan(name: str, config: PlanConfig, event_log: EventLog, used: Configuration) -> _Told:
    at = plan_requests.instant("at", config.at)
    as_of, now = plan_requests.instant("as_of", config.as_of), datetime.now(UTC)
    return plan_document.document(
        event_log.ask(
            lambda conn: plan_requests.plan(conn, used, name, at=at, as_of=as_of, now=now)
        )
    )


def _page(told: _Told) -> str:
    parts = [f"### {told['campaign']}", reports.table(_facts(told))]
    everybody = told["count"] + sum(told["left_out"].values())
    if told["mails"]:
        parts += ["**Who gets what**", reports.table(_mails(told, everybody))]
    if told["reasons"]:
        parts += ["**Who gets nothing**", reports.table(_left_out(told, everybody))]
    return "\n\n".join(parts)


def _facts(told: _Told) -> _Rows:
    cut = told["cut"]
    return [
        ["due", told["occurrence"]],
        ["---", "---"],
        ["as of", f"{cut['at']}, facts up to {cut['seq']:,}; epoch {told['epoch']}"],
        ["mails", f"{told['count']:,}, {plan_document.lasts(told)}"],
        ["cost", plan_document.cost(told)],
        ["changes", plan_document.since(told)],
        *(["approval", reports.cell(line)] for line in plan_document.standing(told)),
    ]


def _mails(told: _Told, everybody: int) -> _Rows:
    rows = [["step", "mail", "provider", "people", ""], ["---"] * 5]
    for one in told["mails"]:
        mail = " ".join(filter(None, [one["variant"], one["template_name"]]))
        shares = [f"{one['people']:,}", _bar(one["people"], everybody)]
        rows.append([one["step"], mail, one["provider"], *shares])
    return rows


def _left_out(told: _Told, everybody: int) -> _Rows:
    rows = [["why", "detail", "people", ""], ["---"] * 4]
    for one in told["reasons"]:
        shares = [f"{one['people']:,}", _bar(one["people"], everybody)]
        rows.append([one["why"], reports.cell(one["detail"]), *shares])
    return rows


def _bar(many: int, of: int) -> str:
    return "█" * max(1, round(_WIDEST * many / of)) if many else ""
