"""The log, the deliveries made of it, and the views of both; none of these calls a provider."""

import warnings
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, date, datetime
from typing import Any

import pandas as pd
from dagster import (
    AssetExecutionContext,
    BackfillPolicy,
    BetaWarning,
    Config,
    DataVersionsByPartition,
    Failure,
    asset,
    observable_source_asset,
)
from psycopg import AsyncConnection
from pydantic import Field

from marketing_pipeline.defs import reports
from marketing_pipeline.defs.automation import CHANGED_DAYS
from marketing_pipeline.defs.partitions import DAYS
from marketing_pipeline.defs.resources import EventLog, Providers
from marketing_pipeline.delivery import replay, replaying, resending
from marketing_pipeline.delivery.replaying import Asked, CannotReplay, Mode
from marketing_pipeline.delivery.resending import Resend
from marketing_pipeline.domain import digest
from marketing_pipeline.domain.event import EventType
from marketing_pipeline.event_log import reading, story
from marketing_pipeline.views import text
from marketing_pipeline.views.campaign_performance import campaign_performance as performance_of
from marketing_pipeline.views.leads import leads as leads_of

# Used knowingly, with Dagster pinned to a minor version (`owners` by Dagster itself); said by each
# command, these would teach people to overlook warnings. Anything else in beta still warns.
warnings.filterwarnings(
    "ignore",
    r"(Function `observable_source_asset`|Parameter `(backfill_policy|owners)`)",
    BetaWarning,
)


@observable_source_asset(partitions_def=DAYS, group_name="log")
def marketing_events(event_log: EventLog) -> DataVersionsByPartition:
    """The event log by the UTC day on which events are due; only days that changed are told."""
    versions = event_log.ask(reading.observe_changed)
    return DataVersionsByPartition({day.isoformat(): seal for day, seal in versions.items()})


class DeliveriesConfig(Config):
    """How days are materialized."""

    mode: str = Field(
        default="verify",
        description="verify: recompute and compare, nothing is ever sent; resend: plan a new epoch",
    )
    types: list[str] = Field(
        default=[], description="of events: LEAD_CAPTURE, CONTENT_PUBLISH, ...; none: all of them"
    )
    epoch: int | None = Field(default=None, description="of a resend: 1 or more, a new one")
    plan_digest: str | None = Field(
        default=None,
        description="of a resend: the digest that it was proposed with; without it, it is proposed",
    )


@asset(
    partitions_def=DAYS,
    deps=[marketing_events],
    group_name="log",
    backfill_policy=BackfillPolicy.single_run(),
)
def deliveries(
    context: AssetExecutionContext,
    config: DeliveriesConfig,
    event_log: EventLog,
    providers: Providers,
) -> None:
    """Tally each day and verify it: plans and renderings recomputed, compared byte for byte.

    In mode `resend` the days are planned again in a new epoch, which a delivery run then sends.
    """
    try:
        types, mode = replaying.types_of(config.types), replaying.mode_of(config.mode)
        if mode is Mode.RESEND:
            _resend(context, config, event_log, providers, types)
    except CannotReplay as error:
        raise Failure(str(error), allow_retries=False) from error
    problems: list[str] = []
    told: dict[str, Mapping[str, reports.Value]] = {}
    for key in context.partition_keys:
        day = date.fromisoformat(key)
        tally = event_log.ask(_about(reading.tally, day))
        found = event_log.ask(_about(replay.verify, day, types))
        balances = event_log.ask(_about(reading.balances, [day]))
        troubles = reports.of_troubles(event_log.ask(_about(story.troubles, day)))
        told[key] = {**reports.of_day(tally), **troubles, **reports.of_verification(found)}
        problems += [*reports.unbalanced(balances), *found.differences]
    if problems:  # what is added to an asset goes with its run: each day has to be told by itself
        for key, shown in told.items():
            context.log_event(reports.shown(key, shown))
        raise Failure("\n".join(problems), allow_retries=False)
    for key, shown in told.items():
        context.add_asset_metadata(shown, asset_key=context.asset_key, partition_key=key)


def _resend(
    context: AssetExecutionContext,
    config: DeliveriesConfig,
    event_log: EventLog,
    providers: Providers,
    types: tuple[EventType, ...],
) -> None:
    """Propose what sending the days again comes to, or write what was proposed."""
    days = [date.fromisoformat(key) for key in context.partition_keys]
    asked = Asked(first=min(days), last=max(days), types=types, mode=Mode.RESEND)
    of, now = Resend(asked=asked, epoch=config.epoch or 0), datetime.now(UTC)
    used = providers.assembly().configuration
    if config.plan_digest is None:
        found = event_log.ask(_about(resending.propose, used, of, now))
        context.log.info("proposed %d effects; plan_digest: %s", found.effects, found.digest)
    else:
        who = f"run {context.run_id}"
        found = event_log.ask(_about(resending.resend, used, of, config.plan_digest, who, now))
        context.log.info("wrote %d plans of %s", found.written, found.digest)
    shown = {
        "plan_digest": found.digest,
        "epoch": of.epoch,
        "effects_of_all_days": found.effects,
        "plans_written_for_all_days": found.written,
    }
    for key in context.partition_keys:
        context.add_asset_metadata(shown, asset_key=context.asset_key, partition_key=key)


@asset(
    partitions_def=DAYS,
    deps=[deliveries],
    group_name="views",
    backfill_policy=BackfillPolicy.single_run(),
    automation_condition=CHANGED_DAYS,
)
def leads(context: AssetExecutionContext, event_log: EventLog) -> None:
    """Who left an address on a day, and what was done about it."""
    _materialize(context, event_log, "leads", reading.lead_rows, leads_of)


@asset(
    partitions_def=DAYS,
    deps=[deliveries],
    group_name="views",
    backfill_policy=BackfillPolicy.single_run(),
    automation_condition=CHANGED_DAYS,
)
def campaign_performance(context: AssetExecutionContext, event_log: EventLog) -> None:
    """How far each campaign of a day has come."""
    _materialize(context, event_log, "campaign_performance", reading.campaign_rows, performance_of)


def _materialize(
    context: AssetExecutionContext,
    event_log: EventLog,
    name: str,
    rows_of: Callable[[AsyncConnection, date], Awaitable[list[dict[str, Any]]]],
    view: Callable[[pd.DataFrame], pd.DataFrame],
) -> None:
    now = datetime.now(UTC)
    for key in context.partition_keys:
        day = date.fromisoformat(key)
        rows = event_log.ask(_about(rows_of, day))
        frame = view(pd.DataFrame(rows, dtype=object)) if rows else pd.DataFrame()
        content = text.csv(frame) if rows else ""
        seal = digest.sha256(content.encode())
        event_log.ask(_about(reading.keep_view, name, day, seal, len(frame), content, now))
        shown: dict[str, Any] = {"rows": len(frame), "digest": seal}
        context.add_asset_metadata(shown, asset_key=context.asset_key, partition_key=key)


def _about(
    question: Callable[..., Awaitable[Any]], *about: Any
) -> Callable[[AsyncConnection], Awaitable[Any]]:
    return lambda conn: question(conn, *about)
