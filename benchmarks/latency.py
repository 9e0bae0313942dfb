"""From the answer of ingest to the provider: with a delivery run awake, and with nothing awake.

    python -m benchmarks.latency [--seconds 60] [--per-second 20] [--trials 5] [--json FILE]

Real processes of an installation of its own: ingest, the sandbox, and `dagster job execute` (warm)
or `dagster-daemon run` (cold). The clock starts when the client has read ingest's answer and ends
when the sandbox has read the provider's request, for each effect's first call; both are this
machine's.
"""

import argparse
import asyncio
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from benchmarks import figures, installation, posting
from benchmarks.installation import Installation, until

WARM_LIMIT = 50.0  # milliseconds at p95
COLD_LIMIT = 15.0  # seconds, each trial
_ENDED = "('SUCCESS', 'FAILURE', 'CANCELED')"
_STEP = 1.3  # seconds that each cold trial starts later in the sensor's interval of 5 s


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """An event as the client saw it."""

    event_id: str
    wait: float  # seconds that the request took
    at: float  # unix seconds, when its answer had been read


def main() -> None:
    arguments = _arguments()
    warm = measure_warm(arguments.per_second, arguments.seconds) if arguments.seconds else None
    cold = measure_cold(arguments.trials) if arguments.trials else None
    _print(warm, cold, arguments.per_second)
    figures.write(arguments.json, {"warm": warm, "cold_seconds": cold})


def measure_warm(per_second: int, seconds: int) -> dict[str, dict[str, float]]:
    """Milliseconds: of the requests, and from their answers to the sandbox by provider."""
    with installation.installation(linger="5s") as own:
        own.start_sandbox()
        own.start_ingest()
        run = own.start_delivery()
        answered = asyncio.run(_post_steadily(own, per_second, seconds))
        if run.wait(120) != 0:
            raise SystemExit(f"the delivery run failed: {own.said('delivery')}")
        reached = _reached(own, answered)
    spreads = {"ingest's answer": figures.spread([one.wait * 1000 for one in answered])}
    every = [wait for waits in reached.values() for wait in waits]
    for name, waits in {"all effects": every, **reached}.items():
        spreads[name] = figures.spread([wait * 1000 for wait in waits])
    return spreads


def measure_cold(trials: int) -> list[float]:
    """Seconds from the answer to the sandbox, of one event at a time that wakes everything."""
    with installation.installation(linger="1s") as own:
        own.start_sandbox()
        own.start_ingest()
        code = ("-m", "marketing_pipeline.definitions")
        own.start("daemon", "dagster._daemon", "run", *code)
        _deliver_one(own)  # the daemon itself has to start
        found = []
        for number in range(trials):
            until(lambda: _all_ended(own), 120, "the end of a run")
            time.sleep(number * _STEP % 5)
            found.append(round(_deliver_one(own), 2))
    return found


def _deliver_one(own: Installation) -> float:
    answered = asyncio.run(_post_steadily(own, 1, 1))
    until(lambda: _reached(own, answered), 120, "the event at the sandbox")
    return min(wait for waits in _reached(own, answered).values() for wait in waits)


def _all_ended(own: Installation) -> bool:
    query = f"select from runs where status not in {_ENDED}"
    return not own.awake() and not own.ask(query, url=own.dagster_url)


async def _post_steadily(own: Installation, per_second: int, seconds: int) -> list[Answered]:
    """A post at each beat, whether or not the one before has been answered."""
    headers = {"Authorization": f"Bearer {own.key}"}
    async with aiohttp.ClientSession(own.ingest_url, headers=headers) as session:

        async def send(number: int) -> Answered:
            await asyncio.sleep(number / per_second)
            began = time.time()
            async with session.post("/events", json=posting.mixed(number)) as answer:
                content = await answer.json()
                at = time.time()
            answer.raise_for_status()
            return Answered(event_id=content["eventId"], wait=at - began, at=at)

        return await asyncio.gather(*(send(number) for number in range(per_second * seconds)))


def _reached(own: Installation, answered: list[Answered]) -> dict[str, list[float]]:
    """Seconds until each effect's first call had been read, by provider; what was not is absent."""
    at = {one.event_id: one.at for one in answered}
    with closing(sqlite3.connect(f"file:{own.record}?mode=ro", uri=True)) as file:
        calls = dict(file.execute("select key, min(at) from calls group by key").fetchall())
    found: dict[str, list[float]] = {}
    for effect, event, provider in own.ask(
        "select id::text, event_id::text, provider from effects"
    ):
        if event in at and effect in calls:
            found.setdefault(provider, []).append(calls[effect] - at[event])
    return found


def _print(
    warm: dict[str, dict[str, float]] | None, cold: list[float] | None, per_second: int
) -> None:
    if warm is not None:
        columns = ("p50", "p95", "p99", "worst")
        figures.show(
            f"{per_second} events/s with a delivery run awake, in ms",
            ("", "count", *columns),
            [
                (name, f"{one['count']:,}", *(f"{one[column]:.1f}" for column in columns))
                for name, one in warm.items()
            ],
        )
        p95 = warm["all effects"]["p95"]
        figures.say(f"warm, p95: {p95:.1f} ms of {WARM_LIMIT:.0f}", p95, WARM_LIMIT)
    if cold is not None:
        figures.say(f"cold, s: {cold}, each at most {COLD_LIMIT:.0f}", max(cold), COLD_LIMIT)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=60, help="of warm load; 0: only cold")
    parser.add_argument("--per-second", type=int, default=20)
    parser.add_argument("--trials", type=int, default=5, help="cold ones; 0: only warm")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
