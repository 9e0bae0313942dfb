"""How long it takes to verify a day on which a million mails were sent, and in how much memory.

    python -m benchmarks.replaying [--people 1000000] [--names 4096] [--json FILE]

A campaign is planned by the planner's own code, and each of its effects is given the attempt that
delivery would have written, with the digest of its request. Replays of the day follow, by one
process that is measured for its memory, and by two workers as the command has them: plan and ledger
are compared, and every mail is rendered and compared. How many different mails
there are matters, for a mail that was rendered for somebody else with the same name is not rendered
again; `--names` says how many first names there are.
"""

import argparse
import asyncio
import json
import os
import time
from datetime import UTC, date, datetime
from pathlib import Path
from uuid import UUID

import psycopg
from psycopg import AsyncConnection
from rich.progress import track

from benchmarks import crowd, figures
from benchmarks.figures import Line
from benchmarks.installation import Installation
from marketing_pipeline import settings
from marketing_pipeline.delivery import assembly, replay
from marketing_pipeline.delivery import replaying as shared_replaying
from marketing_pipeline.delivery.contents import Contents
from marketing_pipeline.delivery.verification import Verification
from marketing_pipeline.domain import digest
from marketing_pipeline.event_log import history

PEOPLE = 1_000_000
NAMES = 4096
WORKERS = 2
SECONDS, MIB = 300.0, round(300e6 / 2**20)  # for a million
COPY = """
copy attempts (effect_id, number, purpose, claim_id, provider, started_at, request_sha256,
               finished_at, outcome, status_code) from stdin"""


def measure(people: int, names: int) -> list[Line]:
    """The figures of one day; the seconds wanted are for a million effects."""
    with crowd.crowd(people, names) as own:
        crowd.alone(own, "benchmarks.planning", "--alone")
        asyncio.run(_send(own, people))
        alone = crowd.alone(own, "benchmarks.replaying", "--alone")
        shared = crowd.alone(own, "benchmarks.replaying", "--alone", "--workers", str(WORKERS))
    for found in (alone, shared):
        if (found["effects"], found["rendered"], found["different"]) != (people, people, 0):
            raise SystemExit(f"{found}: the figures are void")
    if alone["digest"] != shared["digest"]:
        raise SystemExit(f"{alone}, {shared}: the digest of a day must be one")
    wanted = SECONDS * people / PEOPLE
    name = f"replaying/{people:,} effects verified"
    return [
        figures.measured(f"{name} by one process", "s", [alone["seconds"]]),
        figures.measured(f"{name} by {WORKERS} workers", "s", [shared["seconds"]], at_most=wanted),
        figures.measured("replaying/peak memory", "MiB", [alone["peak_mib"]], at_most=MIB),
    ]


async def _send(own: Installation, people: int) -> None:
    """Write what delivery would have: the attempts, with the digests of their requests."""
    contents, providers, now = Contents(), None, datetime.now(UTC)
    async with await AsyncConnection.connect(own.database_url) as conn:
        # Planned while there are no attempts yet: by their key, for there will be.
        await conn.execute("set enable_seqscan = off")
        with psycopg.connect(own.database_url) as other, other.cursor() as cursor:
            promised = [one async for one in history.plans_of_day(conn, now.date())]
            assert [one.count for one in promised] == [people], "midnight has passed: start again"
            plan = promised[0]
            every = UUID(int=0), UUID(int=2**128 - 1)
            pages = history.effects_of_campaign(conn, plan.event.id, plan.epoch, *every)
            with cursor.copy(COPY) as copy:
                for _ in track(range(0, people, history.PAGE), "sending"):
                    page = await anext(pages)
                    await contents.prepare(conn, page)
                    meaning = await contents.meaning(conn, page[0].config_digest)
                    providers = providers or assembly.for_rendering(meaning.body)
                    for one in page:
                        request = providers[one.provider].request(one.id, contents.of(one))
                        sha256 = digest.sha256(request.read())
                        row = (one.id, 1, "send", one.id, one.provider, now, sha256)
                        copy.write_row((*row, now, "ACCEPTED", 200))
        with psycopg.connect(own.database_url, autocommit=True) as after:
            after.execute("vacuum analyze attempts")


def lines(quick: bool = False) -> list[Line]:
    """A million people, or a tenth of them."""
    return measure(PEOPLE // 10 if quick else PEOPLE, NAMES)


def verify(workers: int | None) -> dict[str, object]:
    """Replay today, in this process where no workers are wanted."""
    url, today = settings.read(os.environ).database_url, datetime.now(UTC).date()
    assert url is not None
    began = time.monotonic()
    if workers is None:
        day = asyncio.run(_verify(url, today))
    else:
        wanted = shared_replaying.asked(str(today), str(today), [], "verify")
        (day,) = shared_replaying.run(url, wanted, workers, lambda _: None).days
    return {
        "seconds": time.monotonic() - began,
        "peak_mib": crowd.peak_mib(),
        "effects": day.effects,
        "rendered": day.rendered,
        "different": len(day.shown) + day.more,
        "digest": day.digest,
    }


async def _verify(url: str, day: date) -> Verification:
    async with await AsyncConnection.connect(url, autocommit=True) as conn:
        return await replay.verify(conn, day)


def main() -> None:
    arguments = _arguments()
    if arguments.alone:
        print(json.dumps(verify(arguments.workers)))
        return
    lines = measure(arguments.people, arguments.names)
    figures.show_lines(lines)
    figures.write(arguments.json, figures.for_programs(lines))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--people", type=int, default=PEOPLE)
    parser.add_argument("--names", type=int, default=NAMES)
    parser.add_argument("--json", type=Path, help="write the figures there too")
    parser.add_argument("--workers", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
