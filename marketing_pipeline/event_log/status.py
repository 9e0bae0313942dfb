"""Where everything stands, for people who ask."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg import AsyncConnection

from marketing_pipeline.event_log import holding, pauses, queries
from marketing_pipeline.event_log.holding import Hold
from marketing_pipeline.event_log.pauses import Pause

_SQL = queries.load("status.sql")


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Counts over the whole log."""

    events: Mapping[str, int]  # by status
    effects: Mapping[str, int]  # by state
    pauses: tuple[Pause, ...]
    holds: tuple[Hold, ...]  # campaigns that must not go on


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a source's events since an instant."""

    effects: Mapping[str, int]  # by state
    calls: int
    retries: int
    latency_ms: tuple[float, float, float]  # p50, p95, p99 from accepted to delivered


async def read(conn: AsyncConnection) -> Status:
    events: dict[str, int] = dict(await (await conn.execute(_SQL["events"])).fetchall())
    effects: dict[str, int] = dict(await (await conn.execute(_SQL["effects"])).fetchall())
    return Status(
        events=events,
        effects=effects,
        pauses=tuple(await pauses.standing(conn)),
        holds=tuple(await holding.holds(conn)),
    )


async def strangers(conn: AsyncConnection, source: str) -> int:
    """Unfinished events of other sources."""
    return await _count(conn, "strangers", source)


async def strays(conn: AsyncConnection, providers: Sequence[str]) -> dict[str, int]:
    """How many effects are open for each provider that is none of these: nobody claims them."""
    found = await conn.execute(_SQL["strays"], {"providers": list(providers)})
    return dict(await found.fetchall())


async def unfinished(conn: AsyncConnection, source: str) -> int:
    """Events of a source that are still under way, waiting for a person aside."""
    return await _count(conn, "unfinished", source)


async def ledger_of(conn: AsyncConnection, source: str) -> list[tuple[str, str]]:
    """Every effect of a source: id and state."""
    return await (await conn.execute(_SQL["ledger"], {"source": source})).fetchall()


async def outcome(conn: AsyncConnection, source: str, since: datetime) -> Outcome:
    values = {"source": source, "since": since}
    rows = await (await conn.execute(_SQL["since"], values)).fetchall()
    found = await (await conn.execute(_SQL["latencies"], values)).fetchone()
    p50, p95, p99 = (found and found[0]) or (0.0, 0.0, 0.0)
    return Outcome(
        effects={row[0]: row[1] for row in rows},
        calls=int(sum(row[2] for row in rows)),
        retries=int(sum(row[3] for row in rows)),
        latency_ms=(p50, p95, p99),
    )


async def _count(conn: AsyncConnection, query: str, source: str) -> int:
    row = await (await conn.execute(_SQL[query], {"source": source})).fetchone()
    assert row is not None
    return int(row[0])
