"""Which delivery runs are dead although Dagster believes that they run."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from dagster import DagsterInstance, DagsterRun, DagsterRunStatus, RunsFilter

from marketing_pipeline.defs.jobs import deliver_pending

# A run that lives beats, or writes to its log (`jobs.heard`); one that starts does so in seconds.
QUIET = timedelta(minutes=1)
# Found silent for so long, look after look.
SILENT = timedelta(minutes=1)
# After a gap in the looks the database may have been away, or the machine asleep, and a run that
# lives needs this long to find its connections again.
SETTLED = timedelta(minutes=3)
GAP = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """What earlier looks saw: a memory, and no truth. Losing it only delays a report."""

    unbroken_since: datetime  # no two looks since then were further apart than GAP
    at: datetime  # the last look
    silent: Mapping[str, datetime]  # runs, by when they were first found silent

    def dumps(self) -> str:
        silent = {run_id: since.isoformat() for run_id, since in self.silent.items()}
        looks = [self.unbroken_since.isoformat(), self.at.isoformat()]
        return json.dumps([*looks, silent])


def loads(text: str | None) -> Watch | None:
    """What `dumps` wrote; None where nothing was."""
    if not text:
        return None
    unbroken_since, at, silent = json.loads(text)
    return Watch(
        unbroken_since=datetime.fromisoformat(unbroken_since),
        at=datetime.fromisoformat(at),
        silent={run_id: datetime.fromisoformat(since) for run_id, since in silent.items()},
    )


def watch(
    before: Watch | None, silent: Collection[str], now: datetime
) -> tuple[frozenset[str], Watch]:
    """Which of the silent runs are dead, and what to remember for the next look.

    One look proves nothing: after an outage all heartbeats are old and all runs may live.
    """
    if before is None or now - before.at > GAP:
        before = Watch(unbroken_since=now, at=now, silent={})
    since = {run_id: before.silent.get(run_id, now) for run_id in silent}
    seen = Watch(unbroken_since=before.unbroken_since, at=now, silent=since)
    if now - seen.unbroken_since < SETTLED:
        return frozenset(), seen
    return frozenset(run_id for run_id in since if now - since[run_id] >= SILENT), seen


def silent_runs(
    instance: DagsterInstance, living: Collection[str], now: datetime
) -> dict[str, DagsterRun]:
    """Delivery runs under way that do not beat and have written nothing for a while.

    The log is asked too because a run beats only while it delivers: before that it connects, and
    after that it reports and balances.
    """
    statuses = [DagsterRunStatus.STARTING, DagsterRunStatus.STARTED]
    started = instance.get_run_records(RunsFilter(job_name=deliver_pending.name, statuses=statuses))
    return {
        record.dagster_run.run_id: record.dagster_run
        for record in started
        if record.dagster_run.run_id not in living
        and now - _last_word(instance, record.dagster_run.run_id, record.create_timestamp) >= QUIET
    }


def _last_word(instance: DagsterInstance, run_id: str, created: datetime) -> datetime:
    newest = instance.get_records_for_run(run_id, limit=1, ascending=False).records
    if not newest:
        return created
    return datetime.fromtimestamp(newest[0].event_log_entry.timestamp, UTC)
