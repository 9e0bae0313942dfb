"""The engine and its peers in turn: the same PostgreSQL, the same provider, a process each.

    make bench-peers

A peer's clock, like the engine's, runs from the first call until the last outcome is on record: one
that calls ahead of its own books gains nothing by it.
"""

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, LiteralString
from urllib.parse import urlsplit, urlunsplit

import psycopg

from benchmarks import delivering, dispatch, figures
from benchmarks.delivering import House, Run
from benchmarks.figures import Line, compared
from benchmarks.installation import CHECKOUT

PYTHON = CHECKOUT / ".venv-peers" / "bin" / "python"
SLOW = 5  # a peer that is slow is given this part of the work


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """How one is started, and by how much it is to be beaten."""

    name: str
    module: str
    ended: LiteralString  # asks how many outcomes are on record, and since when the last one is
    options: tuple[str, ...] = ()
    at_once: float | None  # times its rate, with a provider that answers at once
    after_20_ms: float | None
    part: int = 1  # of the effects


PEERS = (
    Peer(
        name="pgqueuer",
        module="with_pgqueuer",
        ended="""select count(*), extract(epoch from max(created))::float8
                 from pgqueuer_log where status = 'successful'""",
        at_once=1.2,
        after_20_ms=1.4,
    ),
    Peer(
        name="pgqueuer with outcomes",
        module="with_pgqueuer",
        ended="""select count(*), extract(epoch from greatest(max(created), max(at)))::float8
                 from pgqueuer_log join outcomes using (job_id) where status = 'successful'""",
        options=("--outcomes",),
        at_once=2.0,
        after_20_ms=None,
    ),
    Peer(
        name="procrastinate",
        module="with_procrastinate",
        ended="""select count(*), extract(epoch from max(at))::float8
                 from procrastinate_events where type = 'succeeded'""",
        at_once=None,
        after_20_ms=None,
        part=SLOW,
    ),
)


def lines(quick: bool = False) -> Iterator[Line]:
    """The engine's rate as a multiple of each peer's, for both providers."""
    if not PYTHON.exists():
        raise SystemExit(f"{PYTHON} is not there: run `make bench-peers`, which installs the peers")
    effects, runs = dispatch.size(quick)
    for delay in (0, 20):
        with delivering.house(delay) as at:

            def taker(peer: Peer, at: House = at) -> Callable[[], Run]:
                return lambda: run(at, peer, effects // peer.part)

            def engine(at: House = at) -> Run:
                return delivering.engine(at, effects)

            ours, *theirs = figures.turns(runs, engine, *(taker(peer) for peer in PEERS))
        for peer, its in zip(PEERS, theirs, strict=True):
            name = f"peers/{delay}ms vs {peer.name}"
            wanted = peer.after_20_ms if delay else peer.at_once
            yield compared(
                name,
                "effects/s",
                [one.rate for one in ours],
                [one.rate for one in its],
                at_least=wanted,
            )
            yield from dispatch.used(name, ours, its)


def run(at: House, peer: Peer, jobs: int) -> Run:
    """Let a peer do so many jobs that are in its queue when the clock starts."""
    with _database(at.own.database_url) as url, _started(peer, url, at.provider.url, jobs) as pipe:
        with psycopg.connect(url, autocommit=True) as conn:  # as before each run of the engine
            conn.execute("vacuum (analyze)")
            conn.execute("checkpoint")
        at.provider.count()
        before = at.cpu()
        print("go", file=pipe.stdin, flush=True)
        told = json.loads(pipe.stdout.readline())
        worked = at.cpu_since(before)
        counted = at.provider.count()
        with psycopg.connect(url) as conn:
            row = conn.execute(peer.ended).fetchone()
    assert row is not None
    outcomes, ended = row
    if not counted.calls == outcomes == jobs:
        raise SystemExit(
            f"{peer.name}: {counted.calls} calls and {outcomes} outcomes for {jobs} jobs: the "
            "figures are void"
        )
    return Run(
        effects=jobs,
        seconds=ended - counted.first,
        worker_cpu=told["cpu"],
        servers_cpu=worked,
        peak_mib=told["peak_mib"],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pipe:
    """How a peer is spoken with."""

    stdin: IO[str]
    stdout: IO[str]


@contextmanager
def _started(peer: Peer, url: str, provider: str, jobs: int) -> Iterator[_Pipe]:
    """A peer whose jobs are in its queue, and that waits for the word."""
    process = subprocess.Popen(  # noqa: S603 (our own program)
        [PYTHON, "-m", f"benchmarks.peers.{peer.module}", url, provider, str(jobs), *peer.options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=CHECKOUT,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        if process.stdout.readline() != "ready\n":
            raise SystemExit(f"{peer.name} did not come up; it says why above")
        yield _Pipe(stdin=process.stdin, stdout=process.stdout)
        process.wait(60)
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


@contextmanager
def _database(server_url: str) -> Iterator[str]:
    """An empty one beside the log."""
    with psycopg.connect(server_url, autocommit=True) as admin:
        admin.execute("create database peer")
        try:
            yield urlunsplit(urlsplit(server_url)._replace(path="/peer"))
        finally:
            admin.execute("drop database peer with (force)")


if __name__ == "__main__":
    figures.show_lines(list(lines()))
