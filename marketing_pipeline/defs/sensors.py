"""What wakes delivery: due work that no living run is serving."""

from datetime import UTC, datetime, timedelta

from dagster import DefaultSensorStatus, RunRequest, SkipReason, sensor

from marketing_pipeline.defs.jobs import deliver_pending
from marketing_pipeline.defs.resources import EventLog
from marketing_pipeline.event_log import heartbeats, reading
from marketing_pipeline.event_log.reading import DueWork

STARTS_WITHIN = timedelta(seconds=60)  # a run that was asked for and has not begun by then is lost


def is_due(work: DueWork, now: datetime) -> bool:
    """Is there anything that a delivery run would do now?"""
    found = work.events or work.plans or work.effects or work.doubts or work.expired
    return bool(found) or (work.earliest is not None and work.earliest <= now)


@sensor(job=deliver_pending, minimum_interval_seconds=5, default_status=DefaultSensorStatus.RUNNING)
def pending_events(event_log: EventLog) -> RunRequest | SkipReason:
    """Start a delivery run where something is due and none is awake or on its way.

    It keeps no cursor and no run key: the log and the heartbeats say all there is to know.
    """
    work = event_log.ask(reading.due_work)
    if not is_due(work, datetime.now(UTC)):
        return SkipReason("nothing is due")
    if not event_log.ask(lambda conn: heartbeats.request(conn, STARTS_WITHIN)):
        return SkipReason("a delivery run is awake, or has been asked for")
    return RunRequest()
