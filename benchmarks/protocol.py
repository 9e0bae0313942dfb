"""What the record of each attempt costs: the same engine with it and without it, in pairs.

    python -m benchmarks.protocol [--quick]

Posts are recorded and planned first; then the engine delivers them to the sandbox under limits that
nobody reaches. "Without" runs the same code with two statements cut: neither claiming nor settling
writes to `attempts`. The rate is between the sandbox's first call and its last.
"""

import asyncio
import re
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta

import psycopg
import redis
from rich.progress import track

from benchmarks import delivering, figures, installation
from benchmarks.figures import Line, compared
from benchmarks.installation import Installation
from marketing_pipeline import settings
from marketing_pipeline.delivery.assembly import assemble
from marketing_pipeline.delivery.run import deliver
from marketing_pipeline.event_log import ledger
from marketing_pipeline.event_log.location import locate

LEAST = 0.85  # of the throughput
_UNRECORDED = """), numbered as (select nextval('claim_seq') as number)
select array_agg(claimed.id) as effects, %(now)s::timestamptz as now,
       max(numbered.number) as number, max(numbered.number) - 1 as remembered
from claimed cross join numbered having count(*) > 0
"""


def lines(quick: bool = False) -> Iterator[Line]:
    """The rate with attempts on record, as a share of that without."""
    effects, pairs = (500, 3) if quick else (2000, 11)
    rates: dict[bool, list[float]] = {True: [], False: []}
    with installation.installation(linger="300ms") as own:
        own.start_sandbox()
        _rate(own, effects, 0)  # warms everything up, and is not counted
        for pair in track(range(1, pairs + 1), "pairs"):
            for recorded in (True, False) if pair % 2 else (False, True):
                with attempts(recorded=recorded):
                    rates[recorded].append(_rate(own, effects, pair * 2 + recorded))
    name = "protocol/attempts on record vs not"
    yield compared(name, "effects/s", rates[True], rates[False], at_least=LEAST)


@contextmanager
def attempts(*, recorded: bool) -> Iterator[None]:
    """Cut the statements that write attempts, as long as the block lasts."""
    kept = dict(ledger._SQL)
    if not recorded:
        claim, cuts = re.subn(
            r"\), begun as \(\s+insert into attempts .*",
            _UNRECORDED,
            kept["claim"],
            flags=re.DOTALL,
        )
        settle, more = re.subn(
            r"\), ended as \(\s+update attempts.*?\n\)\n", ")\n", kept["settle"], flags=re.DOTALL
        )
        assert (cuts, more) == (1, 1), "ledger.sql is not written as it was"
        ledger._SQL.update({"claim": claim, "settle": settle})
    try:
        yield
    finally:
        ledger._SQL.update(kept)


def _rate(own: Installation, effects: int, number: int) -> float:
    """Effects a second of one delivery run."""
    used = settings.read(own.env)
    servers = locate(used)
    _rename(servers.database_url, servers.redis_url)
    assembled = assemble(used)
    posts = delivering.record(
        own.database_url, assembled.configuration, number, effects, planned=True
    )
    asyncio.run(posts)
    before = _calls(own)[0]
    deliver(
        assembled,
        threading.Event(),
        database_url=servers.database_url,
        redis_url=servers.redis_url,
        max_run=timedelta(minutes=5),
    )
    calls, first, last = _calls(own, beyond=before)
    if calls != effects:
        raise SystemExit(f"{calls} calls for {effects} effects: the figures are void")
    return calls / (last - first)


def _rename(database_url: str, redis_url: str) -> None:
    """Let the log start anew with its mark: claims that are not on record look like a restore."""
    with psycopg.connect(database_url) as conn, redis.Redis.from_url(redis_url) as client:
        [(identity,)] = conn.execute(
            "update installation set identity = gen_random_uuid() returning identity"
        ).fetchall()
        client.set(f"high_water:{identity}", 0)


def _calls(own: Installation, beyond: int = 0) -> tuple[int, float, float]:
    with closing(sqlite3.connect(f"file:{own.record}?mode=ro", uri=True)) as file:
        row = file.execute(
            "select count(*), min(at), max(at) from calls where n > ?", (beyond,)
        ).fetchone()
    return int(row[0]), float(row[1] or 0), float(row[2] or 0)


if __name__ == "__main__":
    figures.alone(__doc__, lines)
