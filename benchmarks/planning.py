"""How long a campaign to a million people takes to plan, and in how much memory.

    python -m benchmarks.planning [--people 1000000] [--json FILE]

The log is filled in by SQL: a lead each, with random ids. A process of its own then does what a
delivery run does: counts the audience under a cut, promises the plan, and writes all its effects.
"""

import argparse
import asyncio
import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path

from psycopg import AsyncConnection

from benchmarks import crowd, figures
from benchmarks.figures import Line
from marketing_pipeline import settings
from marketing_pipeline.delivery import campaigns, planner
from marketing_pipeline.delivery.assembly import assemble

PEOPLE = 1_000_000
NAMES = 4096
SECONDS, MIB = 60.0, round(300e6 / 2**20)  # for a million
HELD = """
select p.count, p.inserted, (select count(*) from effects where event_id = p.event_id)
from plans p join marketing_events m on m.id = p.event_id where m.type = 'CAMPAIGN_TRIGGER'"""


def measure(people: int) -> list[Line]:
    """The figures of one campaign; targets are for a million people."""
    with crowd.crowd(people, NAMES) as own:
        found = crowd.alone(own, "benchmarks.planning", "--alone")
        held = own.ask(HELD)
    if held != [(people, people, people)]:
        raise SystemExit(f"planned, counted and held: {held}: the figures are void")
    share = people / PEOPLE
    return [
        figures.measured("planning/counted and promised", "s", [found["promised"]]),
        figures.measured(
            f"planning/{people:,} effects written", "s", [found["written"]], at_most=SECONDS * share
        ),
        figures.measured("planning/peak memory", "MiB", [found["peak_mib"]], at_most=MIB),
    ]


def lines(quick: bool = False) -> list[Line]:
    """A million people, or a tenth of them."""
    return measure(PEOPLE // 10 if quick else PEOPLE)


async def plan() -> dict[str, float]:
    """Plan all that is due; seconds until it was promised and until it was written."""
    found = settings.read(os.environ)
    used = assemble(found).configuration
    assert found.database_url is not None
    stopping = asyncio.Event()
    async with await AsyncConnection.connect(found.database_url, autocommit=True) as conn:
        await planner.keep(conn, used, datetime.now(UTC))
        began = time.monotonic()
        await campaigns.plan_next(conn, used.meaning.rules, datetime.now(UTC), stopping)
        promised = time.monotonic() - began
        while await campaigns.write_unfinished(conn, datetime.now(UTC), stopping):
            pass
        written = time.monotonic() - began
    return {"promised": promised, "written": written, "peak_mib": crowd.peak_mib()}


def main() -> None:
    arguments = _arguments()
    if arguments.alone:
        print(json.dumps(asyncio.run(plan())))
        return
    lines = measure(arguments.people)
    figures.show_lines(lines)
    figures.write(arguments.json, figures.for_programs(lines))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--people", type=int, default=PEOPLE)
    parser.add_argument("--json", type=Path, help="write the figures there too")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
