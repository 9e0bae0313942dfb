"""When Dagster materializes by itself what has become stale."""

from dagster import AutomationCondition

_CHANGED = AutomationCondition.asset_matches(
    "marketing_events", AutomationCondition.data_version_changed()
)

# A view's day is wanted again when the day's facts or its part of the ledger have changed, however
# old the day is. `marketing_events` tells that by its data versions, for changed days only;
# `deliveries` in between has a new version whenever it is reported. A change is remembered until it
# has been asked for: while the day is being materialized it waits, since that run may have read
# before it, and one that is seen right after a request is not taken for the one that was requested.
CHANGED_DAYS = (
    _CHANGED.since(AutomationCondition.newly_requested() & ~_CHANGED)
    & ~AutomationCondition.in_progress()
)
