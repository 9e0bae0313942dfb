"""What keeps Dagster's records from growing without bound, and failed work from being forgotten."""

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice

from dagster import (
    Config,
    DagsterEventType,
    DagsterInstance,
    DagsterRunStatus,
    EventRecordsFilter,
    MarkdownMetadataValue,
    MetadataValue,
    OpExecutionContext,
    RunsFilter,
    in_process_executor,
    job,
    op,
)
from pydantic import Field

from marketing_pipeline import telemetry
from marketing_pipeline.defs.jobs import deliver_pending
from marketing_pipeline.defs.resources import EventLog, Providers
from marketing_pipeline.event_log import heartbeats, redriving
from marketing_pipeline.event_log.redriving import Listed, Reconciliation, Standards

_FINISHED = [DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED]
_TOLD = (DagsterEventType.ASSET_MATERIALIZATION, DagsterEventType.ASSET_OBSERVATION)
_SHOWN = 200  # rows of a table in Dagster's page; the run's log has them all
_SILENT = timedelta(days=1)  # a heartbeat so old belongs to nothing that anybody waits for


class RetentionConfig(Config):
    """What is kept of Dagster's runs."""

    keep_days: int = Field(default=30, ge=1, description="runs that have finished")
    keep_idle_days: int = Field(default=7, ge=1, description="delivery runs that found no work")
    at_most: int = Field(default=5000, ge=1, description="runs deleted at a time")


@op
def forget_old_runs(
    context: OpExecutionContext, config: RetentionConfig, event_log: EventLog
) -> None:
    """Delete finished runs that nobody needs any more, oldest first."""
    began = time.monotonic()
    silent = event_log.ask(lambda conn: heartbeats.forget_silent(conn, _SILENT))
    deleted = forget(context.instance, config, datetime.now(UTC))
    seconds = time.monotonic() - began
    context.log.info("deleted %d runs and %d heartbeats", deleted, silent)
    context.add_output_metadata({"runs": deleted, "heartbeats": silent, "seconds": seconds})


def forget(instance: DagsterInstance, config: RetentionConfig, now: datetime) -> int:
    """Delete old finished runs; how many.

    Deleting a run deletes its events. A run that holds the newest materialization or observation of
    a day is kept however old it is: without it that day would count as never made, or as changed.
    Results of checks stand in a table of their own and stay.
    """
    deleted = 0
    for run_id in islice(_old(instance, config, now), config.at_most):
        _delete(instance, run_id)
        deleted += 1
    return deleted


def _old(instance: DagsterInstance, config: RetentionConfig, now: datetime) -> Iterator[str]:
    """Runs to delete, oldest first: first the idle ones, of which there are most."""
    needed = _holding_newest(instance)
    idle = RunsFilter(
        job_name=deliver_pending.name,
        statuses=[DagsterRunStatus.SUCCESS],
        updated_before=now - timedelta(days=config.keep_idle_days),
    )
    for run_id in _oldest_first(instance, idle):
        if run_id not in needed and not instance.get_asset_keys_for_run(run_id, of_type=set(_TOLD)):
            yield run_id
    finished = RunsFilter(statuses=_FINISHED, updated_before=now - timedelta(days=config.keep_days))
    yield from (run_id for run_id in _oldest_first(instance, finished) if run_id not in needed)


def _oldest_first(instance: DagsterInstance, runs: RunsFilter) -> Sequence[str]:
    # All ids at once: a page's cursor is a run, and would be deleted with it.
    return list(reversed(instance.get_run_ids(runs)))


def _delete(instance: DagsterInstance, run_id: str) -> None:
    """As `instance.delete_run` does, but the other way round.

    A run without events is found again after a crash, events without a run never.
    """
    instance.compute_log_manager.delete_logs(prefix=[run_id])
    instance.event_log_storage.delete_events(run_id)
    instance.run_storage.delete_run(run_id)


def _holding_newest(instance: DagsterInstance) -> frozenset[str]:
    """The runs whose events say what is shown of an asset or a partition now."""
    storage = instance.event_log_storage
    runs: set[str | None] = set()
    for key in instance.all_asset_keys():
        for kind in _TOLD:
            newest = storage.get_latest_storage_id_by_partition(key, kind).values()
            found = EventRecordsFilter(kind, asset_key=key, storage_ids=list(newest))
            runs |= {one.run_id for one in storage.get_event_records(found)} if newest else set()
    for record in instance.get_asset_records():
        last = record.asset_entry.last_materialization_record
        runs |= {last and last.run_id, record.asset_entry.last_run_id}
    return frozenset(run_id for run_id in runs if run_id)


@job(executor_def=in_process_executor)
def upkeep() -> None:
    """Delete runs past their time, with their events and what they printed."""
    forget_old_runs()


class ReconcileConfig(Config):
    """Which failures are looked at."""

    days: float = Field(default=3, gt=0, description="how far back; a daily job may miss a day")


@op
def reconcile(
    context: OpExecutionContext, config: ReconcileConfig, event_log: EventLog, providers: Providers
) -> None:
    """Put failed work back where that is safe, and list the rest with the reason."""
    assembly = providers.assembly()
    now = datetime.now(UTC)
    by = Standards(
        rules=assembly.configuration.meaning.rules,
        providers=assembly.destinations.keys(),
        since=now - timedelta(days=config.days),
        now=now,
    )
    found = event_log.ask(lambda conn: redriving.reconcile(conn, by))
    for line in _lines(found):
        context.log.info(line)
    context.add_output_metadata(of_reconciliation(found))


@job(executor_def=in_process_executor)
def reconcile_failed() -> None:
    """Failed events and effects of the last days: done once more where that is safe, else told."""
    reconcile()


def of_reconciliation(found: Reconciliation) -> dict[str, int | MarkdownMetadataValue]:
    """Counts, and tables of what was put back and what is left for a person."""
    return {
        "redriven": len(found.redriven),
        "planned_again": len(found.replanned),
        "left": len(found.left),
        "put_back": MetadataValue.md(_table([*found.redriven, *found.replanned])),
        "for_a_person": MetadataValue.md(_table(found.left)),
    }


def _lines(found: Reconciliation) -> Iterator[str]:
    for done, listed in (
        ("redriven", found.redriven),
        ("planned again", found.replanned),
        ("left", found.left),
    ):
        for one in listed:
            yield f"{done}: {' '.join(_words(one))}"


def _table(listed: Sequence[Listed]) -> str:
    lines = [["event", "effect", "provider", "reason"], ["---"] * 4]
    lines += [[word.replace("|", r"\|") for word in _words(one)] for one in listed[:_SHOWN]]
    if len(listed) > _SHOWN:
        lines.append([f"and {len(listed) - _SHOWN:,} more: see the run's log", "", "", ""])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _words(one: Listed) -> list[str]:
    """A provider's words may hold an address."""
    reason = telemetry.redact(" ".join(one.reason.split()))
    return [str(one.event_id), str(one.effect_id or "-"), one.provider or "-", reason]
