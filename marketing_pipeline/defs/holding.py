"""The job by which campaigns are paused, resumed and cancelled from Dagster's pages."""

from typing import Literal

from dagster import Config, OpExecutionContext, in_process_executor, job, op
from pydantic import Field

from marketing_pipeline.defs.resources import EventLog
from marketing_pipeline.delivery import holding
from marketing_pipeline.event_log.holding import Action, Said


class ControlConfig(Config):
    """What is done to which campaign, and why."""

    action: Literal["pause", "resume", "cancel"]
    campaign: str = Field(description="its name, or the id of one event")
    why: str = Field(description="kept in the log")
    who: str = Field(default="somebody in Dagster", description="kept in the log")


@op
def control(context: OpExecutionContext, config: ControlConfig, event_log: EventLog) -> None:
    """Pause, resume or cancel a campaign; a run that dies is launched again and goes on."""
    action, said = Action(config.action), Said(why=config.why, who=config.who)
    report = event_log.ask(
        lambda conn: holding.control(conn, action, config.campaign, said, lambda _: None)
    )
    for one in report.events:
        told = one.refused or f"{one.tally.sent} sent, {one.tally.open} open"
        context.log.info("%s %s of %s: %s", action, one.event_id, one.campaign, told)
    done = [one.tally for one in report.events if one.refused is None]
    context.add_output_metadata(
        {
            "events": len(done),
            "sent": sum(one.sent for one in done),
            "open": sum(one.open for one in done),
            "parked": sum(one.parked for one in done),
            "later": report.later,
        }
    )


@job(executor_def=in_process_executor)
def control_campaign() -> None:
    """Pause, resume or cancel a campaign that is under way; see `marketing-pipeline campaign`."""
    control()
