"""The oldest PostgreSQL that is promised, where this machine has it."""

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from marketing_pipeline.embedded.account import account, hand_over, launcher

BINARIES = Path("/usr/lib/postgresql/15/bin")  # Debian's
MISSING = f"no PostgreSQL 15 in {BINARIES}"


def is_there() -> bool:
    return (BINARIES / "initdb").exists()


@contextmanager
def running(folder: Path) -> Iterator[str]:
    """The URL of a server of that version, reached over a socket in `folder`."""
    data = folder / "data"
    runs_as = account(data)
    data.mkdir(mode=0o700)
    sockets = folder / "s"
    sockets.mkdir(mode=0o700)
    hand_over(data, runs_as)
    hand_over(sockets, runs_as)
    under = launcher(runs_as, parent_death=signal.SIGINT)
    options = ["-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
    initdb = [*under, str(BINARIES / "initdb"), "-D", str(data), *options]
    subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL, cwd="/")
    settings = ["-k", str(sockets), "-c", "listen_addresses=", "-c", "fsync=off"]
    server = [*under, str(BINARIES / "postgres"), "-D", str(data), *settings]
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(server, stdout=log, stderr=log, cwd="/") as process,
    ):
        try:
            url = f"postgresql://postgres@/postgres?host={sockets}"
            _await_answer(url, process, folder / "log")
            yield url
        finally:
            process.send_signal(signal.SIGINT)


def _await_answer(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    end = time.monotonic() + 30
    while True:
        try:
            psycopg.connect(url).close()
        except psycopg.OperationalError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.05)
        else:
            return
