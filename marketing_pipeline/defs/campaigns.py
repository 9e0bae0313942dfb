"""A schedule for each campaign of the operator's file that says when it is due."""

import logging
from datetime import UTC, datetime

import yaml
from dagster import (
    DagsterInstance,
    DefaultScheduleStatus,
    RunRequest,
    ScheduleDefinition,
    ScheduleEvaluationContext,
    SkipReason,
    schedule,
)
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.scheduler.instigation import InstigatorStatus, ScheduleInstigatorData

from marketing_pipeline import telemetry
from marketing_pipeline.defs.jobs import deliver_pending
from marketing_pipeline.defs.resources import EventLog, Providers, SharedRateLimit
from marketing_pipeline.defs.sensors import why_no_run
from marketing_pipeline.delivery import timetable, triggering
from marketing_pipeline.delivery.assembly import Assembly
from marketing_pipeline.delivery.triggering import Tick
from marketing_pipeline.domain import occurrences, ticks
from marketing_pipeline.domain.occurrences import Occurrence, Schedule

TAG = "marketing/campaign"
_WAKES = "Dagster's own times only wake it to look at the clock."
_ON = {InstigatorStatus.RUNNING, InstigatorStatus.DECLARED_IN_CODE}


def campaign_schedules() -> list[ScheduleDefinition]:
    """What the file says now; none, with a warning, where it cannot be read.

    The rest of the project does not go down with it: what is due is delivered by a later reading.
    """
    try:
        campaigns = Providers().assembly().configuration.file.campaigns
    except (ValueError, OSError, yaml.YAMLError) as error:
        telemetry.configure_logging()
        telemetry.emit("schedules_lost", level=logging.WARNING, reason=str(error))
        return []
    return [
        of_campaign(name, entry.schedule.schedule())
        for name, entry in campaigns.items()
        if entry.schedule is not None
    ]


def of_campaign(campaign: str, said: Schedule) -> ScheduleDefinition:
    """The schedule of one campaign, which an operator switches on.

    Dagster's cron only wakes it; whether an occurrence is due is for `triggering` to say, by the
    file as it is then. No run is needed for the event to be in the log.
    """
    name, waking = f"campaign_{campaign}", ticks.wake_minutes(said)

    @schedule(
        name=name,
        job=deliver_pending,
        cron_schedule=waking,
        execution_timezone="UTC",
        default_status=DefaultScheduleStatus.STOPPED,
        description=f"{timetable.in_words(said)}. {timetable.rules(said)} {_WAKES}",
        tags={TAG: campaign},
    )
    def wakes(
        context: ScheduleEvaluationContext,
        event_log: EventLog,
        rate_limit: SharedRateLimit,
        providers: Providers,
    ) -> RunRequest | SkipReason:
        used = providers.assembly()
        since = switched_on(context.instance, name)
        story, recorded = _looked(event_log, used, campaign, since, waking)
        if not recorded:
            return SkipReason(story)
        if reason := why_no_run(event_log, rate_limit, used):
            return SkipReason(f"{story}; {reason}")
        context.log.info(story)
        return RunRequest(tags={TAG: campaign})

    return wakes


def _looked(
    event_log: EventLog, used: Assembly, campaign: str, since: datetime | None, waking: str
) -> tuple[str, bool]:
    """What a look at the clock found, in words, and whether it recorded something."""
    present, now = _present(used, campaign), datetime.now(UTC)
    if isinstance(present, str):
        return present, False
    if since is None:
        following = _next(occurrences.next_after(present, now), present)
        return f"is switched off, and records nothing; {following}", False
    tick = event_log.ask(
        lambda conn: triggering.tick(conn, campaign, present, since=since, now=now)
    )
    story = told(campaign, tick, present)
    if ticks.wake_minutes(present) != waking:
        story += "; the file has other times by now: reload the definitions"
    return story, bool(tick.recorded)


def _present(used: Assembly, campaign: str) -> Schedule | str:
    """The campaign's schedule as the file has it now, or why it has none."""
    entry = used.configuration.file.campaigns.get(campaign)
    if entry is None:
        return f"campaign {campaign!r} is not in the file any more: reload the definitions"
    if entry.schedule is None:
        return f"campaign {campaign!r} has no schedule any more: reload the definitions"
    return entry.schedule.schedule()


def switched_on(instance: DagsterInstance, name: str) -> datetime | None:
    """Since when the schedule has been on; None where it is off.

    Kept by Dagster's storage, so that no restart moves it. Where several code locations have the
    schedule, the one that was switched on last counts.
    """
    states = instance.all_instigator_state(
        instigator_type=InstigatorType.SCHEDULE, instigator_statuses=_ON
    )
    starts = [
        state.instigator_data.start_timestamp
        for state in states
        if state.instigator_name == name
        and isinstance(state.instigator_data, ScheduleInstigatorData)
        and state.instigator_data.start_timestamp is not None
    ]
    return datetime.fromtimestamp(max(starts), UTC) if starts else None


def told(campaign: str, tick: Tick, said: Schedule) -> str:
    """What a look did, in a line for the UI."""
    parts = [
        f"recorded CAMPAIGN_TRIGGER {triggering.event_id(campaign, one.instant)} "
        f"for {timetable.moment(one.instant, said.timezone)}"
        for one in tick.recorded
    ]
    if tick.repeated:
        parts.append(f"in the log already: {_moments(tick.repeated, said)}")
    if tick.missed:
        parts.append(f"missed, and not sent ({said.missed.policy}): {_moments(tick.missed, said)}")
    return "; ".join([*parts, _next(tick.next, said)])


def _moments(found: tuple[Occurrence, ...], said: Schedule) -> str:
    """How many there are, and the last."""
    last = timetable.moment(found[-1].instant, said.timezone)
    return last if len(found) == 1 else f"{len(found):,}, the last of {last}"


def _next(following: Occurrence | None, said: Schedule) -> str:
    if following is None:
        return "there is no next one"
    return f"next: {timetable.moment(following.instant, said.timezone)}"
