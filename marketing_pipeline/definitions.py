"""The whole project on one page."""

from dagster import Definitions, in_process_executor, mem_io_manager

from marketing_pipeline.defs.assets import campaign_performance, deliveries, leads, marketing_events
from marketing_pipeline.defs.campaigns import campaign_schedules
from marketing_pipeline.defs.checks import check_log, conservation, finished
from marketing_pipeline.defs.holding import control_campaign
from marketing_pipeline.defs.jobs import deliver_pending
from marketing_pipeline.defs.plans import approve_campaign, campaign_plan
from marketing_pipeline.defs.resources import EventLog, Providers, SharedRateLimit
from marketing_pipeline.defs.schedules import daily_checks, daily_reconciliation, daily_upkeep
from marketing_pipeline.defs.sensors import fresh_views, pending_events, zombie_runs
from marketing_pipeline.defs.upkeep import reconcile_failed, upkeep

defs = Definitions(
    assets=[marketing_events, deliveries, leads, campaign_performance, campaign_plan],
    asset_checks=[conservation, finished],
    jobs=[
        deliver_pending,
        reconcile_failed,
        check_log,
        upkeep,
        control_campaign,
        approve_campaign,
    ],
    sensors=[pending_events, zombie_runs, fresh_views],
    schedules=[daily_reconciliation, daily_checks, daily_upkeep, *campaign_schedules()],
    executor=in_process_executor,  # a process a step costs 4 s, and no step here is heavy
    resources={
        "event_log": EventLog(),
        "rate_limit": SharedRateLimit(),
        "providers": Providers(),
        "io_manager": mem_io_manager,  # ops hand on a list of days: no file, nothing to grow
    },
)
