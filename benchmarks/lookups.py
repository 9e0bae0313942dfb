"""What finding due work costs while history grows: the queries that every round of delivery asks.

    python -m benchmarks.lookups [--quick]

History is COMPLETED events over a year, one in five a lead with two effects, the others posts with
one; all SENT, an attempt each. Beside it 1,000 leads stand planned and 1,000 events pending, made
by ingest's and the planner's own code. History is filled in by SQL with keys, foreign keys and
indices dropped, which are built again before anything is measured: CHECKs stay and hold. Fresh
indices are denser than old ones; `vacuum analyze` stands in for a year of autovacuum. At the end
many effects are added that are due tomorrow, as those of a campaign with a pace are.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg import AsyncConnection

from benchmarks import figures, history, installation
from benchmarks.figures import Line, compared, measured
from marketing_pipeline import settings
from marketing_pipeline.delivery import planner
from marketing_pipeline.delivery.assembly import assemble
from marketing_pipeline.domain import event
from marketing_pipeline.domain.event import EventType
from marketing_pipeline.event_log import intake, ledger, planning, reading

SIZES = (10_000, 100_000, 1_000_000, 5_000_000)
OPEN = 1_000
LATER = 200_000  # effects that are due tomorrow
WARMING = 10  # psycopg prepares a statement at its sixth execution
LONGEST = 10_000.0  # milliseconds a look-up is repeated for at most
PROVIDER = "hubspot"
PARTIAL = (
    "marketing_events_pending",
    "marketing_events_processing",
    "marketing_events_unfinished",
    "plans_unfinished",
    "effects_due",
    "effects_leased",
    "effects_waiting",
    "effects_open",
)

_LATER = (
    """
insert into marketing_events (id, seq, idempotency_key, type, payload, source, fingerprint,
                              scheduled_at, created_at, status, updated_at)
select md5('later ' || n)::uuid, n, 'later-' || n, 'CONTENT_PUBLISH', '{"text": "news"}', 'later',
       repeat(md5('later ' || n), 2), now(), now(), 'PROCESSING', now()
from generate_series(%(first)s::bigint, %(last)s::bigint) n
""",
    """
insert into plans (event_id, epoch, day, cut_seq, cut_at, config_digest, plan_version, count,
                   digest, inserted, created_at)
select id, 0, day, seq, created_at, (select digest from configs limit 1), 1, 1, fingerprint, 1,
       created_at
from marketing_events where seq between %(first)s and %(last)s
""",
    """
insert into effects (id, event_id, epoch, day, event_seq, route, step, provider, kind, variables,
                     state, priority, due_at, created_at, updated_at)
select md5('due later ' || seq)::uuid, id, 0, day, seq, type, 'post', %(provider)s, 'post', '{}',
       'PLANNED', 1, now() + interval '1 day' + seq * interval '1 ms', now(), now()
from marketing_events where seq between %(first)s and %(last)s
""",
)

Lookup = Callable[[AsyncConnection], Awaitable[Any]]


def _due_events(conn: AsyncConnection) -> Awaitable[Any]:
    return planning.due_events(conn, datetime.now(UTC), None, 100)


LOOKUPS: dict[str, Lookup] = {
    "ledger.due": lambda conn: ledger.due(conn, PROVIDER, 100),
    "ledger.lock_due": lambda conn: ledger.lock_due(conn, PROVIDER, 100),
    "ledger.next_due": lambda conn: ledger.next_due(conn, PROVIDER),
    "ledger.sweep": lambda conn: ledger.sweep(conn, PROVIDER, timedelta(seconds=1)),
    "planning.due_events": _due_events,
    "reading.due_work": lambda conn: reading.due_work(conn, [PROVIDER]),
}


def lines(quick: bool = False) -> Iterator[Line]:
    """p50 of each look-up beside a long history, against that beside the shortest."""
    sizes, repeats = (SIZES[:2], 100) if quick else (SIZES, 300)
    first: dict[str, list[float]] = {}
    with installation.database() as url:
        asyncio.run(_reserve_and_open(url, sizes[-1]))
        for size in sizes:
            history.grow(url, size, sizes[-1])
            waits = asyncio.run(_measure(url, repeats))
            first = first or waits
            for name, of in waits.items():
                yield _line(f"lookups/{name}, {size:,} events", of, first[name])
        later = LATER // 10 if quick else LATER
        _plan_later(url, sizes[-1] + 10 * OPEN, later)
        for name, of in asyncio.run(_measure(url, repeats)).items():
            yield _line(f"lookups/{name}, {later:,} effects due tomorrow", of, waits[name])
        for index, kib in _index_sizes(url).items():
            if index in PARTIAL:
                yield measured(f"lookups/{index}, {sizes[-1]:,} events", "KiB", [kib])


def _plan_later(url: str, after: int, effects: int) -> None:
    """So many effects of events with numbers of their own."""
    values = {"first": after + 1, "last": after + effects, "provider": PROVIDER}
    with psycopg.connect(url, autocommit=True) as conn:
        for statement in _LATER:
            conn.execute(statement, values)
        conn.execute("vacuum (analyze)")


def _line(name: str, waits: list[float], shortest: list[float]) -> Line:
    """Medians of fifths, in the order they were measured in."""
    now, then = figures.fifths(waits, 50), figures.fifths(shortest, 50)
    return compared(name, "ms", now, then)


async def _reserve_and_open(url: str, most: int) -> None:
    """Leave the first numbers to history, and make what is open by the real code."""
    used = settings.read(
        {"MARKETING_HOME": str(installation.CHECKOUT), "MARKETING_CAMPAIGNS": "campaigns/demo.yaml"}
    )
    loaded = assemble(used).configuration
    async with await AsyncConnection.connect(url, autocommit=True) as conn:
        await conn.execute("select setval('fact_seq', %s)", (most,))
        await planner.keep(conn, loaded, datetime.now(UTC))
        for kind in ("planned", "pending"):
            now = datetime.now(UTC)
            leads = [_lead(f"{kind}-{n}", now) for n in range(OPEN)]
            async with conn.transaction():
                await intake.record(conn, leads, now)
            while (
                kind == "planned"
                and (await planner.plan_due(conn, loaded.meaning.rules, datetime.now(UTC))).events
            ):
                continue


def _lead(name: str, now: datetime) -> event.NewEvent:
    payload = {"email": f"{name}@example.com", "first_name": "Ada"}
    return event.new(
        type=EventType.LEAD_CAPTURE, payload=payload, source="benchmark", key=name, now=now
    )


async def _measure(url: str, repeats: int) -> dict[str, list[float]]:
    """Milliseconds of each look-up, in a transaction that is rolled back, as often as told."""
    found: dict[str, list[float]] = {}
    async with await AsyncConnection.connect(url, autocommit=True) as conn:
        for name, look in LOOKUPS.items():
            for _ in range(WARMING):
                await _look(conn, look)
            waits: list[float] = []
            while len(waits) < repeats and sum(waits) < LONGEST:
                waits.append(await _look(conn, look))
            found[name] = waits
    return found


async def _look(conn: AsyncConnection, look: Lookup) -> float:
    async with conn.transaction(force_rollback=True):
        began = time.perf_counter()
        await look(conn)
        return (time.perf_counter() - began) * 1000


def _index_sizes(url: str) -> dict[str, int]:
    with psycopg.connect(url) as conn:
        rows = conn.execute(
            "select c.relname, pg_relation_size(c.oid) / 1024 from pg_class c"
            " join pg_index i on i.indexrelid = c.oid where i.indrelid = any(%s::regclass[])",
            (list(history.TABLES),),
        ).fetchall()
    return dict(sorted(rows))


if __name__ == "__main__":
    figures.alone(__doc__, lines)
