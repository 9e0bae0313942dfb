"""An engine's process, as the threads of a harness may handle it."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["marketing_pipeline_tests.chaos.engine_child"])
# Trials run in several threads, and to start a process is to look at all others: `start()` polls
# every finished child of this process, whichever thread's it is. A child tells its exit code once,
# through its sentinel; of two threads that read it at once the second finds nothing and reports
# 255, a crash that never was. So whatever starts or polls a process holds this.
_POLLING = threading.Lock()
BIRTH = 30.0  # seconds; the first of all waits until everything has been imported


@dataclass(slots=True, kw_only=True)
class Engine:
    """An engine's process; nobody else touches that, see `_POLLING`."""

    log: Path
    _process: ForkServerProcess
    _heeds: connection.Connection  # has something to say once SIGTERM makes it settle and end

    @classmethod
    def start(cls, run: Callable[..., None], arguments: Sequence[object], log: Path) -> "Engine":
        """Run a function that can be imported by its name; it says what it says in the log.

        Its last argument is a connection, on which it sends None once it heeds SIGTERM.
        """
        heeds, tells = multiprocessing.Pipe(duplex=False)
        process = _FORKS.Process(target=run, args=(*arguments, tells), daemon=True)
        with _POLLING:
            process.start()
        tells.close()
        return cls(log=log, _process=process, _heeds=heeds)

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def code(self) -> int | None:
        """How it ended: its exit code, or -n where signal n killed it; None while it lives."""
        with _POLLING:
            return self._process.exitcode

    @property
    def lives(self) -> bool:
        return self.code is None

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL

    def ends(self, seconds: float | None = None) -> bool:
        """Whether it ends within that time; None: it is waited for."""
        connection.wait([self._process.sentinel], seconds)  # reads nothing, so it holds nothing
        return not self.lives

    def signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def stop(self, seconds: float = 10) -> str | None:
        """Ask it to settle and end; says so if it would not.

        One just born is asked once it can hear: until then SIGTERM would kill it.
        """
        self.signal(signal.SIGCONT)
        if connection.wait([self._heeds, self._process.sentinel], BIRTH):
            self.signal(signal.SIGTERM)
            if self.ends(seconds):
                return None
        self.signal(signal.SIGKILL)
        self.ends()
        return f"it did not end when told to: {self.tail()}"

    def crash(self) -> str | None:
        """What it said at its end, if it ended by itself and with an error."""
        code = self.code
        return None if code in (0, -signal.SIGKILL) else f"it ended with {code}: {self.tail()}"

    def tail(self) -> str:
        return self.log.read_text()[-600:] if self.log.exists() else ""
