"""What wakes delivery where work is due, buries dead runs, and keeps views fresh."""

from datetime import UTC, datetime, timedelta
from functools import partial

from dagster import (
    AssetSelection,
    AutomationConditionSensorDefinition,
    DagsterInstance,
    DefaultSensorStatus,
    RunRequest,
    SensorEvaluationContext,
    SkipReason,
    sensor,
)

from marketing_pipeline.defs import zombies
from marketing_pipeline.defs.jobs import deliver_pending
from marketing_pipeline.defs.resources import EventLog, Providers, SharedRateLimit
from marketing_pipeline.delivery.assembly import Assembly
from marketing_pipeline.event_log import heartbeats, reading
from marketing_pipeline.event_log.reading import DueWork

STARTS_WITHIN = timedelta(seconds=60)  # a run that was asked for and has not begun by then is lost


def is_due(work: DueWork, now: datetime) -> bool:
    """Is there anything that a delivery run would do now?"""
    found = work.events or work.plans or work.effects or work.doubts or work.expired
    return bool(found) or (work.earliest is not None and work.earliest <= now)


@sensor(
    job=deliver_pending,
    minimum_interval_seconds=5,
    default_status=DefaultSensorStatus.RUNNING,
    description="Starts a delivery run where something is due and none is awake.",
)
def pending_events(
    event_log: EventLog, rate_limit: SharedRateLimit, providers: Providers
) -> RunRequest | SkipReason:
    """Start a delivery run where something is due and none is awake or on its way.

    It keeps no cursor and no run key: the log and the heartbeats say all there is to know.
    """
    assembly = providers.assembly()
    work = event_log.ask(partial(reading.due_work, providers=list(assembly.destinations)))
    if not is_due(work, datetime.now(UTC)):
        return SkipReason("nothing is due")
    if reason := why_no_run(event_log, rate_limit, assembly):
        return SkipReason(reason)
    return RunRequest()


def why_no_run(event_log: EventLog, rate_limit: SharedRateLimit, used: Assembly) -> str | None:
    """Ask for a delivery run: None where the caller is the one to start it."""
    if refusal := rate_limit.refusal(event_log, used):
        return refusal
    if not event_log.ask(lambda conn: heartbeats.request(conn, STARTS_WITHIN)):
        return "a delivery run is awake, or has been asked for"
    return None


@sensor(
    minimum_interval_seconds=10,
    default_status=DefaultSensorStatus.RUNNING,
    description="Reports delivery runs failed that died unnoticed.",
)
def zombie_runs(context: SensorEvaluationContext, event_log: EventLog) -> SkipReason:
    """Report delivery runs failed that died unnoticed, as when a whole machine is killed.

    They hold slots of the queue, and nothing else: a new run takes over after 15 s without this.
    """
    cursor = context.cursor
    buried, seen = bury(context.instance, event_log, zombies.loads(cursor), datetime.now(UTC))
    context.update_cursor(seen.dumps())
    for run_id in buried:
        context.log.warning("run %s was dead and is reported failed", run_id)
    return SkipReason(f"{len(buried)} dead runs, {len(seen.silent)} silent ones")


def bury(
    instance: DagsterInstance, event_log: EventLog, before: zombies.Watch | None, now: datetime
) -> tuple[list[str], zombies.Watch]:
    """Look once: the runs that were reported failed, and what to remember."""
    living = event_log.ask(heartbeats.living)
    silent = zombies.silent_runs(instance, living, now)
    dead, seen = zombies.watch(before, silent.keys(), now)
    for run_id in sorted(dead):
        message = f"no sign of life since {seen.silent[run_id]:%Y-%m-%d %H:%M:%SZ}: it was killed"
        instance.report_run_failed(silent[run_id], message)
        event_log.ask(partial(heartbeats.forget_run, run_id=run_id))
    return sorted(dead), seen


# Every few minutes: a campaign under way changes its day all the time.
fresh_views = AutomationConditionSensorDefinition(
    "fresh_views",
    target=AssetSelection.groups("views"),
    default_status=DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=300,
)
