"""When Dagster materializes by itself what has become stale."""

from dagster import AutomationCondition

# A view's day is wanted again when the day's facts or its part of the ledger have changed, however
# old the day is. `marketing_events` tells that by its data versions, for changed days only;
# `deliveries` in between has a new version whenever it is reported. A change that comes while the
# day is being materialized waits for the run to end, since that run may have read before it.
CHANGED_DAYS = (
    AutomationCondition.asset_matches(
        "marketing_events", AutomationCondition.data_version_changed()
    ).since(AutomationCondition.newly_requested())
    & ~AutomationCondition.in_progress()
)
