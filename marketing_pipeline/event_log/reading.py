"""What the log and the ledger say of days: balances, tallies, versions, and the views' rows."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import class_row

from marketing_pipeline.domain import digest
from marketing_pipeline.event_log import queries

_SQL = queries.load("reading.sql")
_ENOUGH = 1000  # due work is counted no further: one row is reason enough to start a run


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """What was promised for a day's events against what the ledger holds of it, in effects."""

    day: date
    planned: int
    sent: int
    failed: int
    suppressed: int
    unknown: int
    open: int
    unplanned: int  # events that still wait for their plan
    missing: int  # promised and not in the ledger; below zero: in the ledger and not promised


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """A day in numbers."""

    day: date
    events: Mapping[str, int]  # by status
    states: Mapping[str, int]  # effects by state
    providers: Mapping[str, Mapping[str, int]]  # effects by provider and state
    retries: int  # sends after the first, of all effects
    calls: int  # everything ever started, look-ups included


@dataclass(frozen=True, slots=True, kw_only=True)
class DueWork:
    """What a delivery run would find to do now; counts stop at 1,000."""

    events: int  # that wait for their plan
    plans: int  # of which not all effects are written, or, where cancelled, not all closed
    effects: int
    doubts: int
    expired: int  # leases of processes that are gone
    earliest: datetime | None  # when the next of anything open is due; None: nothing is open


async def conservation(conn: AsyncConnection, from_day: date, to_day: date) -> list[Balance]:
    """The balances of days that have plans, effects or unplanned events; both ends included."""
    async with conn.cursor(row_factory=class_row(Balance)) as cursor:
        await cursor.execute(_SQL["conservation"], {"from_day": from_day, "to_day": to_day})
        return await cursor.fetchall()


async def balances(conn: AsyncConnection, days: Sequence[date]) -> list[Balance]:
    """The balances of these days, which need not be neighbours."""
    return [row for day in sorted(set(days)) for row in await conservation(conn, day, day)]


async def tally(conn: AsyncConnection, day: date) -> Tally:
    events = await (await conn.execute(_SQL["events of"], {"day": day})).fetchall()
    effects = await (await conn.execute(_SQL["effects of"], {"day": day})).fetchall()
    states: Counter[str] = Counter()
    providers: dict[str, dict[str, int]] = {}
    for provider, state, count, _, _ in effects:
        states[state] += count
        providers.setdefault(provider, {})[state] = count
    return Tally(
        day=day,
        events=dict(events),
        states=dict(sorted(states.items())),
        providers=providers,
        retries=sum(row[3] for row in effects),
        calls=sum(row[4] for row in effects),
    )


async def unfinished_days(conn: AsyncConnection) -> list[date]:
    rows = await (await conn.execute(_SQL["unfinished days"])).fetchall()
    return [row[0] for row in rows]


async def lead_rows(conn: AsyncConnection, day: date) -> list[dict[str, Any]]:
    """The input of the view `leads`: event_id, recipient_id, source, origin, scheduled_at, and of
    each effect step, provider and state (None where there is none)."""
    return await queries.rows(conn, _SQL["leads"], {"day": day})


async def campaign_rows(conn: AsyncConnection, day: date) -> list[dict[str, Any]]:
    """The input of the view `campaign_performance`: event_id, campaign, scheduled_at, epoch and
    planned of each plan, and of its effects provider, state, how many, and their retries."""
    return await queries.rows(conn, _SQL["campaigns"], {"day": day})


async def keep_view(
    conn: AsyncConnection,
    name: str,
    day: date,
    digest: str,
    rows: int,
    content: str,
    now: datetime,
) -> None:
    """Keep the content of a view's day in the place of what was there."""
    values = {"name": name, "day": day, "digest": digest, "rows": rows, "content": content}
    await conn.execute(_SQL["keep view"], {**values, "now": now})


async def day_versions(conn: AsyncConnection, days: Sequence[date]) -> dict[date, str]:
    """What stands for a day's facts and its part of the ledger: `<digest>.<seq>.<open|settled>`.

    The digest changes with what views read. The newest seq and whether anything is open stand
    beside it so that `changed_days` can pass over a day without reading it.
    """
    rows = await (await conn.execute(_SQL["day versions"], {"days": list(days)})).fetchall()
    return {
        day: f"{digest.fingerprint([facts, ledger])}.{newest}.{'open' if unfinished else 'settled'}"
        for day, facts, ledger, newest, unfinished in rows
    }


async def changed_days(conn: AsyncConnection, today: date) -> dict[date, str]:
    """New versions of the days up to `today` that have changed since they were last observed.

    Reads in full only days that were open then or are open now, or have newer facts: nothing
    moves on a day without one of these.
    """
    rows = await (await conn.execute(_SQL["suspects"], {"today": today})).fetchall()
    observed: dict[date, str | None] = dict(rows)
    versions = await day_versions(conn, list(observed))
    return {day: version for day, version in versions.items() if version != observed[day]}


async def observe_changed(conn: AsyncConnection) -> dict[date, str]:
    """The days that have changed since the last call of this, marked as told."""
    now = datetime.now(UTC)
    async with conn.transaction():
        await conn.execute(_SQL["take moved"])
    async with conn.transaction():
        versions = await changed_days(conn, now.date())
        await mark_observed(conn, versions, now)
    return versions


async def mark_observed(conn: AsyncConnection, versions: Mapping[date, str], now: datetime) -> None:
    values = {"days": list(versions), "versions": list(versions.values()), "now": now}
    await conn.execute(_SQL["mark observed"], values)


async def due_work(conn: AsyncConnection, providers: Sequence[str]) -> DueWork:
    """What is due of these providers; no run can serve one that the file has no more."""
    async with conn.cursor(row_factory=class_row(DueWork)) as cursor:
        await cursor.execute(_SQL["due work"], {"limit": _ENOUGH, "providers": list(providers)})
        work = await cursor.fetchone()
        assert work is not None
        return work
