"""What ingest and a delivery run take after 50,000 events, and how fast the run delivers them.

    python -m benchmarks.memory [--events 50000] [--json FILE]

Ingest takes all events first; then one run of the real job, `dagster job execute`, delivers that
backlog to the sandbox under limits that nobody reaches. Memory is the most that each process ever
held (VmHWM: Linux only), Dagster included; the rate is between the sandbox's first call and its
last.
"""

import argparse
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import uvloop

from benchmarks import figures, installation, posting
from benchmarks.installation import Installation, peak_mib

LIMITS_MIB = {"ingest": 120.0, "delivery run": 250.0}
CONNECTIONS = 64


def main() -> None:
    arguments = _arguments()
    with installation.installation(linger="3s") as own:
        own.start_sandbox()
        ingest = own.start_ingest()
        port = urlsplit(own.ingest_url).port
        assert port is not None
        bodies = [posting.mixed(number) for number in range(arguments.events)]
        waits, seconds = uvloop.run(posting.post(port, own.key, bodies, CONNECTIONS))
        ingest_peak = peak_mib(ingest)
        run_peak = _peak_until_end(own.start_delivery())
        states = dict(own.ask("select state, count(*) from effects group by state"))
        calls, per_second = _calls(own)
        said = own.said("delivery")
    if set(states) != {"SENT"}:
        raise SystemExit(f"not all was delivered ({states}), so these figures are void: {said}")
    assert ingest_peak is not None, "it runs still"
    figures.show(
        f"{arguments.events:,} events, {states['SENT']:,} effects, {calls:,} calls",
        ("process", "per second", "peak MiB", "limit MiB"),
        [
            ("ingest", f"{len(waits) / seconds:,.0f} events", f"{ingest_peak:.0f}", "120"),
            ("delivery run", f"{per_second:,.0f} effects", f"{run_peak:.0f}", "250"),
        ],
    )
    for name, peak in (("ingest", ingest_peak), ("delivery run", run_peak)):
        figures.say(f"{name}: {peak:.0f} MiB of {LIMITS_MIB[name]:.0f}", peak, LIMITS_MIB[name])
    figures.write(
        arguments.json,
        {
            "events": arguments.events,
            "effects": states["SENT"],
            "ingest": {"peak_mib": ingest_peak, "events_per_second": len(waits) / seconds},
            "delivery": {"peak_mib": run_peak, "effects_per_second": per_second},
        },
    )


def _peak_until_end(run: subprocess.Popen[bytes]) -> float:
    peak = 0.0
    while run.poll() is None:
        peak = max(peak, peak_mib(run) or 0.0)
        time.sleep(0.1)
    return peak


def _calls(own: Installation) -> tuple[int, float]:
    """How many the sandbox had, and how many a second."""
    with closing(sqlite3.connect(f"file:{own.record}?mode=ro", uri=True)) as file:
        calls, first, last = file.execute("select count(*), min(at), max(at) from calls").fetchone()
    return calls, calls / (last - first)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--events", type=int, default=50_000)
    parser.add_argument("--json", type=Path, help="write the figures there too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
