"""How a process comes to use the servers, asks about them, and has them stopped."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from marketing_pipeline.embedded import control, locks
from marketing_pipeline.embedded.failure import EmbeddedError, from_os, from_output
from marketing_pipeline.embedded.layout import Layout, Servers, layout, prepare

_LOCK_LIMIT = control.ANSWER_LIMIT  # another starter holds it for as long as the start takes
_STOP_LIMIT = timedelta(seconds=80)  # the supervisor's patience with both servers

_shares: dict[Path, int] = {}  # state folder -> the descriptor that holds this process's share
_guard = threading.Lock()


def _renew_guard() -> None:
    global _guard  # noqa: PLW0603 (another thread may have held it when the process was forked)
    _guard = threading.Lock()


os.register_at_fork(after_in_child=_renew_guard)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStatus:
    """One running server."""

    name: str  # "postgres" or "valkey"
    pid: int
    version: str
    since: datetime
    socket: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What runs under a state folder."""

    state_dir: Path
    log_dir: Path
    supervisor: int | None  # its process id; None: nothing runs
    since: datetime | None
    users: tuple[int, ...]  # processes that hold a share; empty where the system does not tell
    servers: tuple[ServerStatus, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StopReport:
    """What became of a request to stop."""

    was_running: bool
    stopped: bool  # False while running: others use the servers, and it was not forced
    users: tuple[int, ...]  # as in Status, at the moment of asking


def attach(state_dir: Path, *, postgres: bool = True, valkey: bool = True) -> Servers:
    """Start the servers if need be, and keep them for as long as this process lives.

    The share in them is one descriptor with a shared lock, which the kernel drops however the
    process ends. Asking again costs about a millisecond and revives servers whose supervisor
    was killed, so a program that lost its connection should ask again. A forked child keeps its
    parent's share alive; a child that executes another program has to attach for itself.

    Raises:
        EmbeddedError: a server cannot be had; the message says why and what to do.
    """
    where = layout(state_dir)
    wanted = [name for name, on in (("postgres", postgres), ("valkey", valkey)) if on]
    with _guard:
        prepare(where)
        share = _shares.get(where.root)
        if share is not None and not locks.is_still(share, where.users_lock):
            os.close(_shares.pop(where.root))  # the folder was removed and made anew
            share = None
        if share is None:
            share = locks.take(where.users_lock, shared=True, limit=_LOCK_LIMIT)
        try:
            _have_started(where, wanted)
        except BaseException:
            if where.root not in _shares:
                os.close(share)
            raise
        _shares[where.root] = share
    return where.servers


def resolve(
    state_dir: Path, *, database_url: str | None, redis_url: str | None, dagster_url: str | None
) -> Servers:
    """Take the URLs that are given and the embedded servers for what is missing, and only those.

    A missing `dagster_url` means the embedded PostgreSQL even where `database_url` is given: the
    two cannot share a database, since both keep their schema's version in `alembic_version`. A
    program that does not use Dagster's storage passes any URL for it, such as `database_url`.

    Raises:
        EmbeddedError: as `attach`.
    """
    postgres = database_url is None or dagster_url is None
    valkey = redis_url is None
    ours = layout(state_dir).servers
    if postgres or valkey:
        ours = attach(state_dir, postgres=postgres, valkey=valkey)
    return Servers(
        database_url=database_url or ours.database_url,
        redis_url=redis_url or ours.redis_url,
        dagster_url=dagster_url or ours.dagster_url,
    )


def status(state_dir: Path) -> Status:
    """What runs now; starts and creates nothing.

    Raises:
        EmbeddedError: the supervisor lives but does not answer.
    """
    where = layout(state_dir)
    told = control.ask(where, do="status") or {}
    return Status(
        state_dir=where.root,
        log_dir=where.logs,
        supervisor=told.get("pid"),
        since=datetime.fromisoformat(told["since"]) if told else None,
        users=locks.holders(where.users_lock),
        servers=tuple(_server_status(entry) for entry in told.get("servers", ())),
    )


def stop(state_dir: Path, *, force: bool = False) -> StopReport:
    """Have the servers stopped now, and return when they have ended.

    This process gives up its own share. While other processes use the servers nothing happens
    unless it is forced; forced, their connections break.

    Raises:
        EmbeddedError: the supervisor does not answer, or has not ended in time.
    """
    where = layout(state_dir)
    with _guard:
        if (share := _shares.pop(where.root, None)) is not None:
            os.close(share)
        users = locks.holders(where.users_lock)
        told = control.ask(where, do="stop", force=force)
        if told is None:
            return StopReport(was_running=False, stopped=False, users=users)
        if told["leaving"]:
            with locks.held(where.supervisor_lock, limit=_STOP_LIMIT):
                pass  # its holder has ended, and its servers before it
        elif share is not None:  # the others keep the servers up meanwhile
            _shares[where.root] = locks.take(where.users_lock, shared=True, limit=_LOCK_LIMIT)
        return StopReport(was_running=True, stopped=bool(told["leaving"]), users=users)


def _have_started(where: Layout, wanted: list[str]) -> None:
    if control.ask(where, do="start", servers=wanted):
        return
    with locks.held(where.start_lock, limit=_LOCK_LIMIT):
        if control.ask(where, do="start", servers=wanted):
            return  # another process was quicker
        _spawn(where)
        if not control.ask(where, do="start", servers=wanted):
            said = (where.logs / "supervisor.log").read_text(errors="replace")[-4000:]
            raise from_output("the supervisor ended", said, where.logs / "supervisor.log")


def _spawn(where: Layout) -> None:
    """Start a supervisor that is nobody's child, listening on a socket that is bound already."""
    package = Path(__file__).resolve().parents[2]
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    try:
        where.control.unlink(missing_ok=True)
        with (
            socket.socket(socket.AF_UNIX) as listener,
            (where.logs / "supervisor.log").open("ab") as log,
        ):
            listener.bind(str(where.control))
            listener.listen(control.BACKLOG)
            done = subprocess.run(  # noqa: S603 (our own module)
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "marketing_pipeline.embedded.supervisor",
                    str(where.root),
                ],
                stdin=listener.fileno(),
                stdout=log,
                stderr=log,
                cwd="/",
                env=environment | {"PYTHONPATH": str(package), "LC_ALL": "C.UTF-8"},
                start_new_session=True,
                check=False,
            )
    except OSError as error:
        raise from_os("the supervisor cannot be started", error) from error
    if done.returncode:
        raise EmbeddedError(
            f"the supervisor ended with {done.returncode}: see {where.logs / 'supervisor.log'}"
        )


def _server_status(entry: Mapping[str, Any]) -> ServerStatus:
    return ServerStatus(
        name=entry["name"],
        pid=entry["pid"],
        version=entry["version"],
        since=datetime.fromisoformat(entry["since"]),
        socket=Path(entry["socket"]),
    )
