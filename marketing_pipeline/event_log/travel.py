"""The log as it was at an instant in the past: its cut, and the file that was in use."""

from datetime import datetime
from uuid import UUID

from psycopg import AsyncConnection

from marketing_pipeline.domain.event import Event
from marketing_pipeline.event_log import planning, queries
from marketing_pipeline.event_log.cuts import Cut
from marketing_pipeline.event_log.planning import Plan

_SQL = queries.load("travel.sql")


class NoPast(LookupError):
    """The log does not reach back so far, or holds nothing of that kind."""


async def cut_at(conn: AsyncConnection, at: datetime) -> Cut:
    """What was known at an instant.

    A fact's own time is when it came in, and it may have been committed later. So the cuts that
    were taken around the instant bound this one: at the instant of a plan it is that plan's own.
    """
    row = await queries.row(conn, _SQL["cut at"], {"at": at})
    assert row is not None
    seq = max(row["known"], row["earlier"])
    return Cut(seq=seq if row["later"] is None else min(seq, row["later"]), at=at)


async def config_at(conn: AsyncConnection, at: datetime) -> str:
    """The digest of the version of the operator's file by which plans were made then.

    Raises:
        NoPast: nothing had been planned by then.
    """
    row = await queries.row(conn, _SQL["config at"], {"at": at})
    if row is None:
        raise NoPast(f"no delivery run had been awake by {at:%Y-%m-%d %H:%M:%SZ}: nothing was used")
    return str(row["digest"])


async def plan_at(conn: AsyncConnection, campaign: str, at: datetime) -> Plan | None:
    """The plan of a campaign whose cut was taken at that very instant."""
    row = await queries.row(conn, _SQL["plan at"], {"campaign": campaign, "at": at})
    return planning.plan_row(row) if row else None


async def last_plan(
    conn: AsyncConnection, campaign: str, *, but_of: UUID, before: datetime
) -> Plan | None:
    """The plan of a campaign that was made last, of another event."""
    values = {"campaign": campaign, "but_of": but_of, "before": before}
    row = await queries.row(conn, _SQL["last plan"], values)
    return planning.plan_row(row) if row else None


async def waiting(conn: AsyncConnection, campaign: str) -> Event | None:
    """The trigger of a campaign that waits for its plan, the one due first."""
    row = await queries.row(conn, _SQL["waiting"], {"campaign": campaign})
    return planning.event_row(row) if row else None


async def event(conn: AsyncConnection, event_id: UUID) -> Event | None:
    row = await queries.row(conn, _SQL["event"], {"event_id": event_id})
    return planning.event_row(row) if row else None
