"""What is done every day without being asked; all times are UTC."""

from dagster import DefaultScheduleStatus, ScheduleDefinition

from marketing_pipeline.defs.checks import check_log
from marketing_pipeline.defs.upkeep import reconcile_failed, upkeep

# Running as soon as there is a daemon: nobody would miss them before it is too late. Each may be
# repeated, missed, or started by hand at any time.
daily_reconciliation = ScheduleDefinition(
    name="daily_reconciliation",
    job=reconcile_failed,
    cron_schedule="0 2 * * *",
    description="Does failed work once more where that is safe, and tells the rest.",
    execution_timezone="UTC",
    default_status=DefaultScheduleStatus.RUNNING,
)
daily_checks = ScheduleDefinition(
    name="daily_checks",
    job=check_log,
    cron_schedule="30 2 * * *",
    description="Checks that the ledger holds what was planned, and that what is finished is done.",
    execution_timezone="UTC",
    default_status=DefaultScheduleStatus.RUNNING,
)
daily_upkeep = ScheduleDefinition(
    name="daily_upkeep",
    job=upkeep,
    cron_schedule="30 3 * * *",
    description="Deletes old runs, so that Dagster's records do not grow without bound.",
    execution_timezone="UTC",
    default_status=DefaultScheduleStatus.RUNNING,
)
