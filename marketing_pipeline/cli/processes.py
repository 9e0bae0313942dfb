"""Child processes of a command: started with a log each, watched, and all of them ended."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from rich.console import Console

from marketing_pipeline.cli import exclusion
from marketing_pipeline.cli.refusal import refuse
from marketing_pipeline.event_log.location import locate
from marketing_pipeline.settings import Settings

LOOPBACK = "127.0.0.1"
UI_PORT = 3000
_TAIL = 2000  # characters of a log that are shown when its process ended too soon
_GRACE = 25.0  # seconds; ingest finishes what it accepted, a delivery run what is in flight
_PATIENCE = 60.0  # seconds; a cold Dagster on a busy small machine takes 20
_POLL = 0.1  # seconds


@dataclass(frozen=True, slots=True)
class Child:
    """A process of ours and where it writes; it leads a group with all that it starts."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path


class Processes:
    """The children of one command."""

    def __init__(self, logs: Path, env: Mapping[str, str]) -> None:
        self._logs = logs
        self._env = env
        self._children: list[Child] = []

    def start(self, name: str, module: str, *arguments: str) -> None:
        """Run a module in a process of its own."""
        log = self._logs / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603 (our own programs)
                [*_dies_with_us(), sys.executable, "-m", module, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._env,
                start_new_session=True,  # Ctrl-C reaches us only, and we end them in order
            )
        self._children.append(Child(name, process, log))

    def check(self) -> None:
        """Leave with the last words of a child that has ended."""
        for child in self._children:
            if (code := child.process.poll()) is not None:
                said = child.log.read_text(errors="replace")[-_TAIL:].strip() or "it said nothing"
                refuse(f"{child.name} ended with {code}: {said}\nits log is {child.log}")

    def wait_for(self, url: str) -> None:
        """Until that address answers with success; leaves when it does not in time."""
        ends = time.monotonic() + _PATIENCE
        while time.monotonic() < ends:
            self.check()
            if _answers(url):
                return
            time.sleep(_POLL)
        refuse(f"{url} does not answer after {_PATIENCE:.0f} s; the logs are in {self._logs}")

    def stop(self) -> None:
        """End all, the latest first; who does not end in time is killed with all it started."""
        for child in reversed(self._children):
            if child.process.poll() is None:
                child.process.terminate()
        ends = time.monotonic() + _GRACE
        for child in reversed(self._children):
            _await_end(child.process, ends)
        self._children.clear()


@contextmanager
def running(logs: Path, env: Mapping[str, str]) -> Iterator[Processes]:
    """Children that end with the block; SIGTERM ends it as Ctrl-C does."""
    logs.mkdir(parents=True, exist_ok=True)
    children = Processes(logs, env)
    earlier = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield children
    finally:
        ours = signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C would leave some
        children.stop()
        signal.signal(signal.SIGINT, ours)
        signal.signal(signal.SIGTERM, earlier)


def dagster(used: Settings) -> dict[str, str]:
    """What children need in their environment to find the same installation as we do."""
    return {
        "DAGSTER_HOME": used.environment.get("DAGSTER_HOME") or str(used.home),
        "MARKETING_HOME": str(used.home),
        "MARKETING_STATE": str(used.state_dir),
        "PYTHONUNBUFFERED": "1",
    }


def start_dagster(started: Processes, used: Settings, port: int) -> str:
    """Start the daemon and the UI; gives the UI's address, which does not answer yet."""
    started.start("daemon", "dagster._daemon", "run", *_code(used))
    started.start("webserver", "dagster_webserver", "-h", LOOPBACK, "-p", str(port), *_code(used))
    return f"http://{LOOPBACK}:{port}"


def start_sandbox(started: Processes, url: str, record: Path) -> None:
    """Start the sandbox at that address, and wait until it answers."""
    record.parent.mkdir(parents=True, exist_ok=True)
    place = ("--port", str(urlsplit(url).port), "--record", str(record))
    started.start("sandbox", "marketing_pipeline.sandbox", *place)
    started.wait_for(f"{url}/_sandbox/summary")


def until_interrupted(started: Processes) -> None:
    """Until Ctrl-C or SIGTERM; a child that ends before is a failure."""
    try:
        while True:
            started.check()
            time.sleep(0.5)
    except KeyboardInterrupt:
        return


def up(used: Settings, *, sandbox: bool) -> None:
    """Run everything until interrupted.

    Raises:
        AlreadyRunning: another command runs on this state folder.
    """
    with exclusion.alone(used.state_dir, "up"):
        _up(used, sandbox=sandbox)


def _up(used: Settings, *, sandbox: bool) -> None:
    console = Console()
    with console.status("starting PostgreSQL and Valkey"):
        locate(used)  # an unusable database is told before anything starts
    env = dict(os.environ) | dagster(used)
    sandbox_url = f"http://{LOOPBACK}:{free_port()}"
    if sandbox:
        env["MARKETING_SANDBOX_URL"] = sandbox_url
    for what, port in (("ingest", used.ingest_port), ("the UI", UI_PORT)):
        if not is_free(port):
            refuse(f"port {port} of {what} is taken; end who listens there, or another `up`")
    ingest = f"http://{LOOPBACK}:{used.ingest_port}"
    with running(used.state_dir / "log", env) as started:
        with console.status("starting ingest and Dagster, which takes some seconds"):
            if sandbox:
                start_sandbox(started, sandbox_url, used.state_dir / "sandbox.sqlite")
            ui = start_dagster(started, used, UI_PORT)
            started.start("ingest", "marketing_pipeline", "ingest")
            started.wait_for(f"{ingest}/readyz")
            started.wait_for(f"{ui}/server_info")
        console.print(f"ingest is at {ingest}, the UI at {ui}; Ctrl-C ends them")
        until_interrupted(started)


def free_port() -> int:
    """A port of loopback where nobody listens."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def _code(used: Settings) -> Sequence[str]:
    """A checkout has a workspace.yaml; an installed package is its own code location."""
    workspace = used.home / "workspace.yaml"
    return (
        ("-w", str(workspace)) if workspace.is_file() else ("-m", "marketing_pipeline.definitions")
    )


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).is_success
    except httpx.TransportError:
        return False


def _await_end(process: subprocess.Popen[bytes], ends: float) -> None:
    try:
        process.wait(max(0.1, ends - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for number in (signal.SIGTERM, signal.SIGKILL):  # to what it started and left behind
        if not _signal_group(process.pid, number):
            return
        while time.monotonic() < ends and _signal_group(process.pid, 0):
            time.sleep(_POLL)


def _signal_group(group: int, number: int) -> bool:
    """Was there anybody left in it?"""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True


def _dies_with_us() -> Sequence[str]:
    """Where the system can: a child is told to end even if we are killed."""
    setpriv = shutil.which("setpriv")
    return (setpriv, "--pdeathsig", "TERM") if setpriv else ()


def _interrupt(number: int, _frame: object) -> None:
    raise KeyboardInterrupt(signal.Signals(number).name)
