"""What people ask of plans, at the command line and on Dagster's pages alike."""

from datetime import datetime, timedelta

from psycopg import AsyncConnection

from marketing_pipeline.campaigns import checking
from marketing_pipeline.campaigns.configuration import Configuration
from marketing_pipeline.delivery import proposals
from marketing_pipeline.delivery.proposals import CannotPlan, Shown
from marketing_pipeline.delivery.surveys import Watch
from marketing_pipeline.event_log import approvals
from marketing_pipeline.event_log.approvals import Approval, ProposalKind


async def plan(
    conn: AsyncConnection,
    used: Configuration,
    name: str,
    *,
    at: datetime | None,
    as_of: datetime | None,
    now: datetime,
    watch: Watch | None = None,
) -> Shown:
    """Plan a campaign as it would be sent now, or as it would have been; nothing is sent.

    Raises:
        CannotPlan, Unplannable, NoPast: each says why and what to do.
    """
    if as_of is not None:  # of a file that may have had other campaigns
        return await proposals.as_of(conn, used, name, as_of, watch=watch)
    return await proposals.propose(conn, used, name, at=at, now=now, watch=watch)


async def approve(
    conn: AsyncConnection,
    used: Configuration,
    name: str,
    digest: str,
    *,
    who: str,
    why: str,
    life: timedelta | None = None,
) -> Approval:
    """Agree to a plan that was shown; its campaign is then sent as just that plan.

    Raises:
        CannotApprove: no such plan was shown, or it is too late for it.
    """
    lasts = used.file.campaigns[name].approval_life if life is None else life
    of = await approvals.proposal(conn, digest, ProposalKind.CAMPAIGN, name)
    return await approvals.approve(conn, of, who=who, why=why, life=lasts)


def check_times(at: str | None, as_of: str | None) -> None:
    """Raises CannotPlan where both are given."""
    if at is not None and as_of is not None:
        raise CannotPlan(
            "at is an occurrence to come and as-of an instant of the past; give one of them"
        )


def check_known(field: str, used: Configuration, name: str) -> None:
    """Raises CannotPlan, with what may have been meant, where the file has no such campaign."""
    if name not in used.file.campaigns:
        meant = checking.suggestion(name, used.file.campaigns)
        raise CannotPlan(f"{field}: {name!r} is not in {used.document.path.name}; {meant}")


def instant(field: str, text: str | None) -> datetime | None:
    """Raises CannotPlan where the text is no instant with an offset."""
    if text is None:
        return None
    remedy = "write 2026-03-01T09:00+01:00, or Z at its end for UTC"
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise CannotPlan(f"{field}: {text!r} is no instant; {remedy}") from error
    if found.tzinfo is None:
        raise CannotPlan(f"{field}: {text!r} has no offset from UTC; {remedy}")
    return found
