"""The parent of both servers: starts, revives and stops them, and leaves with the last user."""

import os
import select
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from marketing_pipeline.embedded import control, locks, postgres, server, valkey
from marketing_pipeline.embedded.failure import EmbeddedError
from marketing_pipeline.embedded.layout import Layout, layout

GRACE = timedelta(seconds=5)  # without users, before the servers stop
_TICK = 0.5  # seconds between two looks at users, sockets and logs
_PREDECESSOR_LIMIT = timedelta(seconds=80)  # one that is told to leave stops its servers first
_SETTLED = timedelta(minutes=1)  # a server that ran this long is revived at once
_LONGEST_PAUSE = 30.0  # seconds between two attempts at a server that keeps dying
_LOG_LIMIT = 5 * 1024 * 1024  # bytes; one older file of this size is kept
_RECIPES = {"postgres": postgres.recipe, "valkey": valkey.recipe}


class Supervisor:
    """Serves its control socket and minds its children, in one thread.

    One thread, because the kernel ties a parent-death signal to the thread that forked.
    """

    def __init__(self, where: Layout, listener: socket.socket) -> None:
        self._where = where
        self._listener = listener
        self._name = where.control.stat()
        self._running: dict[str, server.Running] = {}
        self._since = datetime.now(UTC)
        self._used_at = time.monotonic()
        self._leaving = False
        self._claimed = False
        self._wake, wakes = socket.socketpair()
        self._wake.setblocking(False)
        wakes.setblocking(False)
        signal.set_wakeup_fd(wakes.detach())
        for sign in (signal.SIGTERM, signal.SIGINT):
            signal.signal(sign, lambda *_: self._leave("told by a signal"))
        signal.signal(signal.SIGCHLD, lambda *_: None)  # it only has to wake the loop

    def run(self) -> None:
        """Serve until the last user has gone, then stop the servers."""
        try:
            while not self._leaving:
                ready, _, _ = select.select([self._listener, self._wake], [], [], _TICK)
                if self._wake in ready:
                    self._wake.recv(4096)
                if self._listener in ready:
                    self._serve()
                self._mind()
        finally:
            self._listener.close()  # newcomers start a supervisor of their own, which waits for us
            server.stop(list(self._running.values()))
            self._tidy()

    def _leave(self, why: str) -> None:
        note(f"leaving: {why}")
        self._leaving = True

    def _mind(self) -> None:
        for running in self._running.values():
            if running.process.poll() is not None and time.monotonic() >= running.not_before:
                self._revive(running)
        self._bound_logs()
        if not self._can_be_found():  # the state folder or /tmp was cleaned
            self._leave("the control socket is gone")
        elif self._is_free():
            self._leave("the last user has gone")

    def _bound_logs(self) -> None:
        for name in ("supervisor", *_RECIPES):
            try:
                bound(self._where.logs / f"{name}.log")
            except OSError as error:  # no reason to take the servers down
                note(f"the log of {name} is not cut: {error}")

    def _can_be_found(self) -> bool:
        with suppress(OSError):
            named = os.path.samestat(self._name, self._where.control.stat())
            return named and self._where.run.is_dir()
        return False

    def _is_free(self) -> bool:
        """Whether nobody has used the servers for the grace; then nobody can begin to, either."""
        lock = locks.try_take(self._where.users_lock)
        if lock is None:
            self._used_at = time.monotonic()
            return False
        if time.monotonic() - self._used_at > GRACE.total_seconds():
            return True  # the lock stays held to our end: newcomers wait for it
        os.close(lock)  # held for a moment only, which newcomers wait out
        return False

    def _serve(self) -> None:
        link, _ = self._listener.accept()
        with closing(link):
            try:
                told = self._obey(control.hear(link))
            except (EmbeddedError, OSError, ValueError) as error:
                note(f"refused: {error}")
                told = {"error": str(error)}
            with suppress(OSError):  # whoever asked may have gone
                control.answer(link, **told)

    def _obey(self, question: Mapping[str, Any]) -> Mapping[str, Any]:
        match question:
            case {"do": "start", "servers": list(names)} if set(names) <= _RECIPES.keys():
                self._used_at = time.monotonic()  # its share may come and go between two looks
                self._start(names)
            case {"do": "stop", "force": bool(force)}:
                if force or locks.try_take(self._where.users_lock) is not None:
                    self._leave("told to stop")
            case {"do": "status"}:
                pass
            case _:
                raise EmbeddedError(
                    f"the servers under {self._where.root} were started by another version of "
                    f"this package: stop what uses them, wait {GRACE.seconds} s, then try again"
                )
        return self._status()

    def _start(self, names: Iterable[str]) -> None:
        try:
            self._claim()
            for name in names:
                current = self._running.get(name)
                if current is None or current.process.poll() is not None:
                    self._running[name] = server.start(_RECIPES[name](self._where))
                    note(f"started {name}, process {self._running[name].process.pid}")
        except EmbeddedError:
            if not self._running:
                self._leave("nothing could be started")
            raise

    def _claim(self) -> None:
        if not self._claimed:
            locks.take(self._where.supervisor_lock, limit=_PREDECESSOR_LIMIT)  # for our life
            self._claimed = True

    def _revive(self, dead: server.Running) -> None:
        """Start a server that died; at once the first time, then with growing pauses."""
        name = dead.recipe.name
        settled = datetime.now(UTC) - dead.since > _SETTLED
        deaths = 1 if settled else dead.deaths + 1
        note(f"{name} ended with {dead.process.returncode}; reviving")
        try:
            alive = server.start(dead.recipe)
        except EmbeddedError as error:
            note(f"{name} is not revived yet: {error}")
            alive = dead
        alive.deaths = deaths
        alive.not_before = time.monotonic() + min(2.0**deaths, _LONGEST_PAUSE)
        self._running[name] = alive

    def _status(self) -> Mapping[str, Any]:
        return {
            "pid": os.getpid(),
            "since": self._since.isoformat(),
            "leaving": self._leaving,
            "servers": [
                {
                    "name": running.recipe.name,
                    "pid": running.process.pid,
                    "version": running.recipe.version,
                    "since": running.since.isoformat(),
                    "socket": str(running.recipe.socket),
                }
                for running in self._running.values()
                if running.process.poll() is None
            ],
        }

    def _tidy(self) -> None:
        if self._can_be_found():
            self._where.control.unlink()
        if self._where.sockets != self._where.run:
            with suppress(OSError):  # a successor is using it
                self._where.sockets.rmdir()


def bound(log: Path) -> None:
    """Keep a log and one older piece of it, each about the limit at most.

    The servers write to the file as it is open, always at its end: it is copied and cut rather
    than renamed. A line written in between is lost, and so is the older piece on a full disk.
    """
    if not log.exists() or log.stat().st_size <= _LOG_LIMIT:
        return
    try:
        shutil.copyfile(log, log.with_suffix(".log.1"))
    finally:
        os.truncate(log, 0)


def note(text: str) -> None:
    """A line in our own log, which is what standard error is bound to."""
    with suppress(OSError):  # a full disk must not take the servers down
        print(f"{datetime.now(UTC).isoformat(timespec='milliseconds')} {text}", file=sys.stderr)


def main() -> None:
    """Serve the state folder named by the first argument, on the socket that is standard input.

    The starter binds that socket, so that it can connect at once and need not look for it.
    """
    where = layout(Path(sys.argv[1]))
    if os.fork():
        os._exit(0)  # the starter waits for this one and is left without a child of its own
    with socket.socket(fileno=os.dup(0)) as listener:
        Supervisor(where, listener).run()


if __name__ == "__main__":
    main()
