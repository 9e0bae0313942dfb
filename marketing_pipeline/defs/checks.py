"""What must hold of the log, asked by Dagster."""

from datetime import UTC, datetime, timedelta

from dagster import AssetCheckResult, asset_check

from marketing_pipeline.defs import reports
from marketing_pipeline.defs.assets import deliveries
from marketing_pipeline.defs.resources import EventLog
from marketing_pipeline.event_log import reading

REACH = timedelta(days=7)


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
            "problems": "\n".join(problems) or "none",
        },
    )
