"""The job that delivers: the only thing in the project that calls providers."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from functools import partial

from dagster import (
    Config,
    DagsterExecutionInterruptedError,
    Failure,
    OpExecutionContext,
    in_process_executor,
    job,
    op,
)
from pydantic import Field

from marketing_pipeline import telemetry
from marketing_pipeline.defs import reports
from marketing_pipeline.defs.resources import EventLog, Providers, SharedRateLimit
from marketing_pipeline.delivery.run import Report
from marketing_pipeline.delivery.run import deliver as deliver_all
from marketing_pipeline.event_log import reading, story

TAG = "marketing/delivery"
WORD = timedelta(seconds=15)  # how often a run is heard of that is not beating


class DeliverConfig(Config):
    """How long a run stays; the operator's file says where this does not."""

    linger_seconds: float | None = Field(
        default=None, description="stay awake for this long after the last work"
    )
    max_minutes: float | None = Field(default=None, description="end after this in any case")


@op
def deliver(
    context: OpExecutionContext,
    config: DeliverConfig,
    event_log: EventLog,
    rate_limit: SharedRateLimit,
    providers: Providers,
) -> list[str]:
    """Deliver all that is due until idle, and report each day that was touched."""
    telemetry.configure_logging()  # to stderr, which Dagster keeps with the run
    report = _interruptible(context, config, event_log, rate_limit, providers)
    context.log.info("planned %d events, %d calls", report.planned, report.calls)
    with heard(context):
        for day in sorted(report.days):
            tally = event_log.ask(partial(reading.tally, day=day))
            troubles = event_log.ask(partial(story.troubles, day=day))
            context.log_event(reports.materialization(tally, troubles))
        for day, version in event_log.ask(reading.observe_changed).items():
            context.log_event(reports.observation(day, version))
    return [day.isoformat() for day in sorted(report.days)]


@op
def balance(context: OpExecutionContext, event_log: EventLog, days: list[str]) -> None:
    """Fail the run where a day's ledger does not hold what was planned for it."""
    with heard(context):
        today = datetime.now(UTC).date()
        concerned = {date.fromisoformat(day) for day in days} | {today, today - timedelta(days=1)}
        concerned |= set(event_log.ask(reading.unfinished_days))
        problems = reports.unbalanced(
            event_log.ask(lambda conn: reading.balances(conn, sorted(concerned)))
        )
    if problems:
        raise Failure("\n".join(problems), allow_retries=False)
    context.log.info("%d days balance", len(concerned))


@job(executor_def=in_process_executor, tags={TAG: "run"})
def deliver_pending() -> None:
    """Deliver what is due, of all days, until idle; then balance the books."""
    balance(deliver())


@contextmanager
def heard(context: OpExecutionContext, every: timedelta = WORD) -> Iterator[None]:
    """Write to the run's log now and then, so that slow queries are not taken for a dead run.

    A run beats only while it delivers: what reports and balances must not keep a new one away.
    """
    done = threading.Event()

    def tell() -> None:
        while not done.wait(every.total_seconds()):
            context.log.info("at work")

    teller = threading.Thread(target=tell, name="heard", daemon=True)
    teller.start()
    try:
        yield
    finally:
        done.set()
        teller.join()


def _interruptible(
    context: OpExecutionContext,
    config: DeliverConfig,
    event_log: EventLog,
    rate_limit: SharedRateLimit,
    providers: Providers,
) -> Report:
    """Run in a thread of its own: cancelling interrupts this one, and lets that one settle."""
    stop = threading.Event()
    linger, minutes = config.linger_seconds, config.max_minutes
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(
            deliver_all,
            providers.assembly(),
            stop,
            database_url=event_log.url(),
            redis_url=rate_limit.url(),
            linger=None if linger is None else timedelta(seconds=linger),
            max_run=None if minutes is None else timedelta(minutes=minutes),
            run_id=context.run_id,
        )
        try:
            return future.result()
        except DagsterExecutionInterruptedError:
            stop.set()
            while not future.done():
                try:
                    wait([future])
                except DagsterExecutionInterruptedError:
                    continue  # whoever cancels twice still gets a settled ledger
            raise
