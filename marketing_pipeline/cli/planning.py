"""Makes a campaign's plan that a person can read, and takes the person's word for it."""

import csv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
from rich.console import Console
from rich.progress import Progress, TextColumn

from marketing_pipeline.campaigns import values
from marketing_pipeline.cli import asking
from marketing_pipeline.cli.refusal import refuse
from marketing_pipeline.delivery import plan_requests
from marketing_pipeline.delivery.assembly import assemble
from marketing_pipeline.delivery.crowds import Page
from marketing_pipeline.delivery.proposals import Shown
from marketing_pipeline.delivery.surveys import Watch, mail_of
from marketing_pipeline.event_log.approvals import Approval


def plan(name: str, at: str | None, as_of: str | None, people: Path | None) -> Shown:
    """Plan a campaign as it would be sent now, or as it would have been; nothing is sent.

    Raises:
        CannotPlan, Unplannable, NoPast: each says why and what to do.
        ConfigError: the operator's file cannot be used.
    """
    plan_requests.check_times(at, as_of)
    used = assemble(asking.used()).configuration
    occurrence = plan_requests.instant("--at", at)
    past = plan_requests.instant("--as-of", as_of)
    if past is None:
        plan_requests.check_known("CAMPAIGN", used, name)

    async def made(conn: psycopg.AsyncConnection) -> Shown:
        with _written(people) as write, _progress(write) as watch:
            now = datetime.now(UTC)
            return await plan_requests.plan(
                conn, used, name, at=occurrence, as_of=past, now=now, watch=watch
            )

    return asking.ask(made)


def approve(name: str, digest: str, who: str, why: str, life: str | None) -> Approval:
    """Agree to a plan that was shown; its campaign is then sent as just that plan.

    Raises:
        CannotApprove: no such plan was shown, or it is too late for it.
        CannotPlan: the file has no such campaign.
    """
    used = assemble(asking.used()).configuration
    plan_requests.check_known("CAMPAIGN", used, name)
    lasts = None if life is None else _span("--life", life)
    return asking.ask(
        lambda conn: plan_requests.approve(conn, used, name, digest, who=who, why=why, life=lasts)
    )


def _span(option: str, text: str) -> timedelta:
    try:
        found = values.span(text)
    except ValueError as error:
        refuse(f"{option}: {error}")
    if not found:
        refuse(f"{option} is no time at all; write a duration such as 24h")
    return found


@contextmanager
def _written(path: Path | None) -> Iterator[Watch | None]:
    """Writes each person down, mailed or not: by their id, never by address."""
    if path is None:
        yield None
        return
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["person", "step", "variant", "template", "left_out", "detail"])

        def write(page: Page) -> None:
            for one in page.members:
                mail = mail_of(page.step, one.recipient_id)
                rows.writerow([one.recipient_id, mail.step, mail.variant, mail.template, "", ""])
            step = page.step.route.step
            rows.writerows([one.person, step, "", "", one.why, one.detail] for one in page.left_out)

        yield write


@contextmanager
def _progress(write: Watch | None) -> Iterator[Callable[[Page], None]]:
    """Counts people on stderr while they are gone through."""
    columns = (TextColumn("{task.description}"), TextColumn("{task.completed:,.0f} people"))
    bar = Console(stderr=True)
    with Progress(*columns, console=bar, transient=True, disable=not bar.is_terminal) as progress:
        task = progress.add_task("planning", total=None)

        def watch(page: Page) -> None:
            progress.advance(task, len(page.members) + len(page.left_out))
            if write is not None:
                write(page)

        yield watch
