"""What finding due work costs while history grows: the queries that every round of delivery asks.

    python -m benchmarks.lookups [--sizes 10000,100000,1000000,5000000] [--json FILE]

History is COMPLETED events over a year, one in five a lead with two effects, the others posts with
one; all SENT, an attempt each. Beside it 1,000 leads stand planned and 1,000 events pending, made
by ingest's and the planner's own code. History is filled in by SQL with keys, foreign keys and
indices dropped, which are built again before anything is measured: CHECKs stay and hold. Fresh
indices are denser than old ones; `vacuum analyze` stands in for a year of autovacuum.
"""

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
from psycopg import AsyncConnection

from benchmarks import figures, history, installation
from marketing_pipeline import settings
from marketing_pipeline.delivery import planner
from marketing_pipeline.delivery.assembly import assemble
from marketing_pipeline.domain import event
from marketing_pipeline.domain.event import EventType
from marketing_pipeline.event_log import intake, ledger, planning, reading

SIZES = (10_000, 100_000, 1_000_000, 5_000_000)
OPEN = 1_000
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


def main() -> None:
    arguments = _arguments()
    measured: list[dict[str, Any]] = []
    with installation.database() as url:
        asyncio.run(_reserve_and_open(url, arguments.sizes[-1]))
        for size in arguments.sizes:
            filled = history.grow(url, size, arguments.sizes[-1])
            waits = asyncio.run(_measure(url, arguments.repeats))
            measured.append({"events": size, "filled_in_seconds": filled, "ms": waits})
            measured[-1] |= {"index_kib": _index_sizes(url)}
            print(f"{size:,} events: filled in {filled:.0f} s", flush=True)
    _print(measured)
    figures.write(arguments.json, measured)


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


async def _measure(url: str, repeats: int) -> dict[str, dict[str, float]]:
    """Milliseconds of each look-up, in a transaction that is rolled back, as often as told."""
    found: dict[str, dict[str, float]] = {}
    async with await AsyncConnection.connect(url, autocommit=True) as conn:
        for name, look in LOOKUPS.items():
            for _ in range(WARMING):
                await _look(conn, look)
            waits: list[float] = []
            while len(waits) < repeats and sum(waits) < LONGEST:
                waits.append(await _look(conn, look))
            found[name] = figures.spread(waits)
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


def _print(measured: list[dict[str, Any]]) -> None:
    first = measured[0]["ms"]
    figures.show(
        "p50 / p95 in ms, and p50 against that of the smallest history",
        ("look-up", *(f"{one['events']:,} events" for one in measured)),
        [(name, *(_cell(one["ms"][name], first[name]) for one in measured)) for name in LOOKUPS],
    )
    every = [one["index_kib"] for one in measured]
    rows = [(name, *(f"{sizes[name]:,}" for sizes in every)) for name in PARTIAL]
    rest = (f"{sum(s.values()) - sum(s[name] for name in PARTIAL):,}" for s in every)
    figures.show(
        "indices in KiB",
        ("index", *(f"{one['events']:,} events" for one in measured)),
        [*rows, ("all others, of whole history", *rest)],
    )


def _cell(now: dict[str, float], first: dict[str, float]) -> str:
    return f"{now['p50']:.2f} / {now['p95']:.2f}  x{now['p50'] / first['p50']:.2f}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sizes", type=_sizes, default=SIZES, help="events, commas between them")
    parser.add_argument("--repeats", type=int, default=300, help="of each look-up")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    return parser.parse_args()


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(sorted(int(one) for one in text.split(",")))


if __name__ == "__main__":
    main()
