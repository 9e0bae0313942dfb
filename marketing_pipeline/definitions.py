"""The whole project on one page."""

from dagster import Definitions, in_process_executor, mem_io_manager

from marketing_pipeline.defs.assets import campaign_performance, deliveries, leads, marketing_events
from marketing_pipeline.defs.checks import conservation
from marketing_pipeline.defs.jobs import deliver_pending
from marketing_pipeline.defs.resources import EventLog, Providers, SharedRateLimit
from marketing_pipeline.defs.sensors import pending_events

defs = Definitions(
    assets=[marketing_events, deliveries, leads, campaign_performance],
    asset_checks=[conservation],
    jobs=[deliver_pending],
    sensors=[pending_events],
    executor=in_process_executor,  # a process a step costs 4 s, and no step here is heavy
    resources={
        "event_log": EventLog(),
        "rate_limit": SharedRateLimit(),
        "providers": Providers(),
        "io_manager": mem_io_manager,  # ops hand on a list of days: no file, nothing to grow
    },
)
