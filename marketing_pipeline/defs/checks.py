"""What must hold of the log, asked by Dagster."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from dagster import (
    AssetCheckResult,
    AssetSelection,
    MetadataValue,
    asset_check,
    define_asset_job,
)

from marketing_pipeline.defs import reports
from marketing_pipeline.defs.assets import deliveries
from marketing_pipeline.defs.resources import EventLog
from marketing_pipeline.event_log import completion, reading
from marketing_pipeline.event_log.completion import FalselyFinished
from marketing_pipeline.event_log.reading import Balance

REACH = timedelta(days=7)


# A check of a week and not of a partition: in Dagster 1.13 a result names no partition, so that a
# run over several days could tell one result only.
@asset_check(asset=deliveries)
def conservation(event_log: EventLog) -> AssetCheckResult:
    """Plans against the ledger, two tables that nobody derives from each other, for a week."""
    today = datetime.now(UTC).date()
    balances = event_log.ask(lambda conn: reading.conservation(conn, today - REACH, today))
    problems = reports.unbalanced(balances)
    return AssetCheckResult(
        passed=not problems,
        metadata={
            "days": len(balances),
            "planned": sum(one.planned for one in balances),
            "balances": MetadataValue.md(_table(balances)),
            "problems": "\n".join(problems) or "none",
        },
    )


@asset_check(asset=deliveries)
def finished(event_log: EventLog) -> AssetCheckResult:
    """No event of the week is at its end while an effect of it is open, lost or unknown."""
    today = datetime.now(UTC).date()
    wrong = event_log.ask(lambda conn: completion.falsely_finished(conn, today - REACH, today))
    return AssetCheckResult(
        passed=not wrong,
        metadata={
            "events": len(wrong),
            "problems": "\n".join(_problem(one) for one in wrong) or "none",
        },
    )


# Materializing a day runs the checks too; this one runs them where nobody materializes anything.
check_log = define_asset_job("check_log", selection=AssetSelection.checks(conservation, finished))


def _problem(one: FalselyFinished) -> str:
    found = [
        f"{count} {what}"
        for count, what in (
            (one.open, "open"),
            (one.unknown, "unknown"),
            (one.missing, "missing"),
            (one.failed if one.status == "COMPLETED" else 0, "failed"),
        )
        if count
    ]
    effects = f"effects: {', '.join(found)}" if found else "it has no plan"
    return f"{one.day}: event {one.event_id} is {one.status}; {effects}"


def _table(balances: Sequence[Balance]) -> str:
    names = ("planned", "sent", "failed", "suppressed", "unknown", "open", "unplanned", "missing")
    lines = [["day", *names], ["---"] * (len(names) + 1)]
    lines += [[str(one.day), *(f"{getattr(one, name):,}" for name in names)] for one in balances]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
