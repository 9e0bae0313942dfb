"""Plans that were shown before they are sent, and what people agreed to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.types.json import Jsonb

from marketing_pipeline.event_log import queries
from marketing_pipeline.event_log.cuts import Cut

_SQL = queries.load("approvals.sql")
SHORTEST = 8  # digits of a digest that name it


class CannotApprove(ValueError):
    """What was asked to be approved cannot be; says why and what to do."""


class ProposalKind(StrEnum):
    """What a plan was made for."""

    CAMPAIGN = "campaign"  # one event, whose campaign is to be sent
    RESEND = "resend"  # the events of some days, again in a new epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """All that is needed to make a plan again, and what came of it."""

    digest: str
    kind: ProposalKind
    epoch: int
    cut: Cut
    config_digest: str
    plan_version: int
    count: int
    excluded: Mapping[str, int] = field(default_factory=dict)
    campaign: str | None = None
    event_id: UUID | None = None
    occurrence: datetime | None = None
    from_day: date | None = None
    to_day: date | None = None
    types: Sequence[str] | None = None
    days: Mapping[str, str] | None = None  # digests of a resend's days
    id: int = 0  # given by the log
    created_at: datetime | None = None  # likewise


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """A plan that somebody agreed to."""

    proposal: Proposal
    who: str
    why: str
    expires_at: datetime
    created_at: datetime


async def propose(conn: AsyncConnection, proposal: Proposal, now: datetime) -> None:
    """Keep a plan that is shown."""
    values = {
        "digest": proposal.digest,
        "kind": proposal.kind,
        "campaign": proposal.campaign,
        "event_id": proposal.event_id,
        "occurrence": proposal.occurrence,
        "from_day": proposal.from_day,
        "to_day": proposal.to_day,
        "types": None if proposal.types is None else list(proposal.types),
        "days": None if proposal.days is None else Jsonb(dict(proposal.days)),
        "epoch": proposal.epoch,
        "cut_seq": proposal.cut.seq,
        "cut_at": proposal.cut.at,
        "config_digest": proposal.config_digest,
        "plan_version": proposal.plan_version,
        "count": proposal.count,
        "excluded": Jsonb(dict(proposal.excluded)),
        "now": now,
    }
    await conn.execute(_SQL["propose"], values)


async def proposal(
    conn: AsyncConnection, digest: str, kind: ProposalKind, campaign: str | None = None
) -> Proposal:
    """The newest plan that was shown with this digest, of which the first digits suffice.

    Raises:
        CannotApprove: there is none, or several have it.
    """
    if len(digest) < SHORTEST or not set(digest) <= set("0123456789abcdef"):
        raise CannotApprove(
            f"digest: {digest!r} is none; give the first {SHORTEST} digits or more of what the "
            "plan says"
        )
    values = {"digest": f"{digest}%", "kind": kind, "campaign": campaign}
    rows = await queries.rows(conn, _SQL["proposals"], values)
    if not rows:
        of = f" of {campaign!r}" if campaign else ""
        raise CannotApprove(f"digest: no plan{of} was shown with {digest!r}; make one, and read it")
    if len({row["digest"] for row in rows}) > 1:
        raise CannotApprove(f"digest: several plans begin with {digest!r}; give more digits")
    return _proposal(rows[0])


async def ready(conn: AsyncConnection, campaign: str, now: datetime) -> Proposal | None:
    """The plan that was agreed to for a trigger that nobody has given yet."""
    rows = await queries.rows(conn, _SQL["ready"], {"campaign": campaign, "now": now})
    return _proposal(rows[0]) if rows else None


async def shown(conn: AsyncConnection, campaign: str, now: datetime) -> Proposal | None:
    """The plan that was shown last, approved or not, of a trigger that nobody has given yet.

    Of the last day: whoever looks at a campaign twice sees two plans of one trigger.
    """
    rows = await queries.rows(conn, _SQL["shown"], {"campaign": campaign, "now": now})
    return _proposal(rows[0]) if rows else None


async def approve(
    conn: AsyncConnection, of: Proposal, *, who: str, why: str, life: timedelta
) -> Approval:
    """Agree to a plan, for as long as `life`; who waits for it goes on at once.

    Raises:
        CannotApprove: it has been sent already, or its campaign was cancelled.
    """
    values = {"event_id": of.event_id, "epoch": of.epoch, "proposal": of.id}
    async with conn.transaction():
        await conn.execute(_SQL["lock event"], values)
        [standing] = await queries.rows(conn, _SQL["used"], values)
        if standing["planned"]:
            raise CannotApprove("this plan's campaign has been planned already: nothing is left")
        if standing["cancelled"]:
            raise CannotApprove("its campaign was cancelled: trigger it anew")
        said = {"who": who, "why": why, "life": life}
        [row] = await queries.rows(conn, _SQL["approve"], values | said)
        await conn.execute(_SQL["release"], values)
    return Approval(proposal=of, who=who, why=why, **row)


async def agree(conn: AsyncConnection, of: Proposal, *, who: str, why: str) -> None:
    """Keep who has just let the events of past days be sent again."""
    await conn.execute(_SQL["agree"], {"proposal": of.id, "who": who, "why": why})


async def standing(
    conn: AsyncConnection, event_id: UUID, epoch: int, config_digest: str, now: datetime
) -> Approval | str:
    """The approval by which an event may be planned now, or why there is none."""
    rows = await queries.rows(conn, _SQL["newest approval"], {"event_id": event_id, "epoch": epoch})
    if not rows:
        return "its plan waits for somebody's approval"
    row = rows[0]
    of, short = _proposal(row), row["digest"][:12]
    if row["expires_at"] <= now:
        return f"the approval of {short} lapsed at {row['expires_at']:%Y-%m-%d %H:%M:%SZ}"
    if of.config_digest != config_digest:
        return f"the approval of {short} lapsed: the file or a template has changed since"
    return Approval(
        proposal=of,
        who=row["who"],
        why=row["why"],
        expires_at=row["expires_at"],
        created_at=row["approved_at"],
    )


async def hold(conn: AsyncConnection, event_id: UUID, reason: str, now: datetime) -> None:
    """Let a due campaign wait for approval: it is looked at again once somebody has approved."""
    await conn.execute(_SQL["hold"], {"event_id": event_id, "reason": reason, "now": now})


def _proposal(row: Mapping[str, Any]) -> Proposal:
    return Proposal(
        id=row["id"],
        digest=row["digest"],
        kind=ProposalKind(row["kind"]),
        campaign=row["campaign"],
        event_id=row["event_id"],
        occurrence=row["occurrence"],
        from_day=row["from_day"],
        to_day=row["to_day"],
        types=row["types"],
        days=row["days"],
        epoch=row["epoch"],
        cut=Cut(seq=row["cut_seq"], at=row["cut_at"]),
        config_digest=row["config_digest"],
        plan_version=row["plan_version"],
        count=row["count"],
        excluded=row["excluded"],
        created_at=row["created_at"],
    )
