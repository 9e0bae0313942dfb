"""What ingest and a delivery run take after 50,000 events, and how fast the run delivers them.

    python -m benchmarks.memory [--quick]

Ingest takes all events first; then one run of the real job, `dagster job execute`, delivers that
backlog to the sandbox under limits that nobody reaches. Memory is the most that each process ever
held (VmHWM: Linux only), Dagster included; the rate is between the sandbox's first call and its
last.
"""

import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import urlsplit

import uvloop

from benchmarks import figures, installation, posting
from benchmarks.figures import Line, measured
from benchmarks.installation import Installation, peak_mib

INGEST_MIB = 120.0
DELIVERY_MIB = 250.0
CONNECTIONS = 64


def lines(quick: bool = False) -> Iterator[Line]:
    """The peak of both processes, and how fast the events went through them."""
    events = 5_000 if quick else 50_000
    with installation.installation(linger="3s") as own:
        own.start_sandbox()
        ingest = own.start_ingest()
        port = urlsplit(own.ingest_url).port
        assert port is not None
        bodies = [posting.mixed(number) for number in range(events)]
        waits, seconds = uvloop.run(posting.post(port, own.key, bodies, CONNECTIONS))
        ingest_peak = peak_mib(ingest)
        run_peak = _peak_until_end(own.start_delivery())
        states = dict(own.ask("select state, count(*) from effects group by state"))
        per_second = _calls_per_second(own)
        said = own.said("delivery")
    if set(states) != {"SENT"}:
        raise SystemExit(f"not all was delivered ({states}), so these figures are void: {said}")
    assert ingest_peak is not None, "it runs still"
    yield measured("memory/ingest", "MiB", [ingest_peak], at_most=INGEST_MIB)
    yield measured("memory/delivery run", "MiB", [run_peak], at_most=DELIVERY_MIB)
    yield measured("memory/ingest, meanwhile", "events/s", [len(waits) / seconds])
    yield measured("memory/delivery run, meanwhile", "effects/s", [per_second])


def _peak_until_end(run: subprocess.Popen[bytes]) -> float:
    peak = 0.0
    while run.poll() is None:
        peak = max(peak, peak_mib(run) or 0.0)
        time.sleep(0.1)
    return peak


def _calls_per_second(own: Installation) -> float:
    """As the sandbox counted them."""
    with closing(sqlite3.connect(f"file:{own.record}?mode=ro", uri=True)) as file:
        calls, first, last = file.execute("select count(*), min(at), max(at) from calls").fetchone()
    return float(calls / (last - first))


if __name__ == "__main__":
    figures.alone(__doc__, lines)
