"""One server process: started under a lock that outlives its parent, watched, stopped."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from marketing_pipeline.embedded import locks
from marketing_pipeline.embedded.failure import EmbeddedError, from_os, from_output

START_LIMIT = timedelta(seconds=90)  # crash recovery replays up to max_wal_size
_PAUSE = 0.01  # seconds between two looks
# Servers need none of ours, and credentials have no business in their environment.
ENVIRONMENT = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How one server is started, recognised and stopped."""

    name: str
    version: str
    launcher: tuple[str, ...]
    command: tuple[str, ...]
    lock: Path  # held by the server and all its children; free when the last is gone
    pid_file: Path  # written by the server
    marker: str  # an argument by which its command line is told from a foreign one's
    log: Path
    socket: Path
    prepare: Callable[[int], None]  # makes the data folder; gets the lock's descriptor
    is_ready: Callable[[int], bool]  # gets the pid
    stop: Sequence[tuple[signal.Signals, timedelta]]  # signals from polite to final, with patience


@dataclass(slots=True, kw_only=True)
class Running:
    """A started server."""

    recipe: Recipe
    process: "subprocess.Popen[bytes]"
    since: datetime
    deaths: int = 0  # in a row, each soon after its start
    not_before: float = field(default=0.0)  # monotonic; when it may be revived


def start(recipe: Recipe) -> Running:
    """Start the server and wait until it answers.

    Raises:
        EmbeddedError: it does not come up, with its last words and the remedy.
    """
    try:
        lock = _own(recipe)
        try:
            recipe.prepare(lock)
            begin = recipe.log.stat().st_size if recipe.log.exists() else 0
            running = _launch(recipe, lock)
        finally:
            os.close(lock)  # from here on the server alone holds it
        _await_ready(running, begin)
    except OSError as error:
        raise from_os(f"{recipe.name} cannot be started", error) from error
    return running


def stop(servers: Sequence[Running]) -> None:
    """Stop all servers, side by side, asking politely first."""
    for running in servers:
        running.process.send_signal(running.recipe.stop[0][0])
    for running in servers:
        for sign, patience in running.recipe.stop:
            running.process.send_signal(sign)  # a server that already stops takes it again calmly
            with suppress(subprocess.TimeoutExpired):
                running.process.wait(patience.total_seconds())
                break


def _launch(recipe: Recipe, lock: int) -> Running:
    with recipe.log.open("ab") as log:
        process = subprocess.Popen(  # noqa: S603 (our own command)
            [*recipe.launcher, *recipe.command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(lock,),
            env=ENVIRONMENT,
        )
    return Running(recipe=recipe, process=process, since=datetime.now(UTC))


def _await_ready(running: Running, log_begin: int) -> None:
    recipe, process = running.recipe, running.process
    end = time.monotonic() + START_LIMIT.total_seconds()
    while not recipe.is_ready(process.pid):
        if process.poll() is not None or time.monotonic() > end:
            what = (
                f"{recipe.name} ended with {process.returncode} while starting"
                if process.returncode is not None
                else f"{recipe.name} did not answer within {START_LIMIT.total_seconds():.0f} s"
            )
            stop([running])
            raise from_output(what, _since(recipe.log, log_begin), recipe.log)
        time.sleep(_PAUSE)


def _since(log: Path, begin: int) -> str:
    with log.open("rb") as file:
        file.seek(begin)
        return file.read(64 * 1024).decode(errors="replace")


def _own(recipe: Recipe) -> int:
    """Make sure that no earlier process of this server is left, and return its lock.

    A supervisor that was killed takes its servers along, but they need a moment. They hold the
    lock, so a number in a pid file never has to be believed: it is used only to end a server
    that does not go, and then only if that process's command line is the server's.
    """
    for sign, patience in ((None, timedelta(seconds=5)), *recipe.stop):
        if sign is not None and (pid := _pid(recipe.pid_file)) and is_ours(pid, recipe.marker):
            with suppress(ProcessLookupError):  # it went just now
                os.kill(pid, sign)
        end = time.monotonic() + patience.total_seconds()
        while time.monotonic() < end:
            if (lock := locks.try_take(recipe.lock)) is not None:
                return _cleared(recipe, lock)
            time.sleep(_PAUSE)
    raise EmbeddedError(
        f"an earlier {recipe.name} still holds {recipe.lock} and does not end: end the processes "
        f"that use {recipe.pid_file.parent} by hand, then try again"
    )


def _cleared(recipe: Recipe, lock: int) -> int:
    """Remove a pid file that its server left behind: one with a living number stops PostgreSQL."""
    pid = _pid(recipe.pid_file)
    if pid and is_ours(pid, recipe.marker):
        os.close(lock)
        raise EmbeddedError(
            f"process {pid} runs {recipe.name} on {recipe.pid_file.parent} but was not started "
            f"from here: stop it first (kill -INT {pid}), then try again"
        )
    recipe.pid_file.unlink(missing_ok=True)
    return lock


def _pid(file: Path) -> int | None:
    with suppress(FileNotFoundError, NotADirectoryError, ValueError, IndexError):
        return int(file.read_text().split()[0])
    return None


def is_ours(pid: int, marker: str) -> bool:
    """Whether the process lives and has the marker among its arguments."""
    if Path("/proc/self/cmdline").exists():
        with suppress(FileNotFoundError, ProcessLookupError):
            return os.fsencode(marker) in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return False
    listed = subprocess.run(  # noqa: S603 (a number is its only variable part)
        ["/bin/ps", "-ww", "-o", "command=", "-p", str(pid)],
        capture_output=True,
        text=True,
        check=False,
    )
    return f" {marker} " in f"{listed.stdout.strip()} "
