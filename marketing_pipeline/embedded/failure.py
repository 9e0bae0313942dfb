"""The one error of this room, and the remedies that go with what servers say when they fail."""

import errno
import shutil
from collections.abc import Sequence
from pathlib import Path


class EmbeddedError(RuntimeError):
    """An embedded server cannot be had; the message says why and what to do about it."""


_OWN_SERVERS = (
    "set MARKETING_DATABASE_URL, DAGSTER_POSTGRES_URL and MARKETING_REDIS_URL "
    "to use servers of your own"
)
_DISK_FULL = "the disk is full: free some space, then try again"
_LOG_NEEDS = 64 * 1024  # bytes

# What a server's log says -> what the operator can do. The first match wins: a full /dev/shm
# says "No space left on device" too, and freeing disk space would not help.
_REMEDIES = (
    (
        "shared memory segment",
        "shared memory is too small: give /dev/shm at least 256 MB (docker run --shm-size=256m)",
    ),
    ("No space left on device", _DISK_FULL),
    (
        "incompatible with server",
        "the data folder was written by another version: install the wheel that wrote it, "
        "dump with pg_dump, move the folder away, restore",
    ),
    (
        "setpriv:",
        "root may not hand over to another user here (capabilities dropped?): "
        "start as a normal user",
    ),
    (
        "Permission denied",
        "the servers' user may not use that path: mend its owner or mode "
        "(everything under the state folder belongs to the user who first started the servers)",
    ),
    ("Cannot allocate memory", "memory is short: the servers need about 200 MB"),
    (
        "Bad file format reading the append only file",
        "the gate's append-only file is damaged: move the valkey/ folder away "
        "(its state is rebuilt from the log)",
    ),
)


def own_servers() -> str:
    """The way out that is always open, for the end of a message."""
    return _OWN_SERVERS


def from_output(what: str, output: str, log: Path | None = None) -> EmbeddedError:
    """Turn a server's last words into an error that quotes them and adds the remedy."""
    remedy = next((cure for sign, cure in _REMEDIES if sign in output), None)
    if remedy is None and log and shutil.disk_usage(log.parent).free < _LOG_NEEDS:
        remedy = _DISK_FULL  # then not even the log could be written
    said = " / ".join(_telling_lines(output.splitlines())) or "it said nothing"
    where = f" (log: {log})" if log else ""
    return EmbeddedError(f"{what}: {said}{where}; {remedy or _OWN_SERVERS}")


def from_os(what: str, error: OSError) -> EmbeddedError:
    """Turn a refused file operation into an error that names the file and the remedy."""
    cure = {
        errno.ENOSPC: _DISK_FULL,
        errno.EDQUOT: "the disk quota is used up: free some space, then try again",
        errno.EROFS: "the file system is read-only: point MARKETING_STATE at a writable folder",
    }.get(error.errno or 0, "point MARKETING_STATE at a folder that belongs to you, or mend this")
    return EmbeddedError(f"{what}: {error}; {cure}")


def _telling_lines(lines: Sequence[str]) -> Sequence[str]:
    """The lines that name the failure, or the last ones where none does."""
    signs = ("FATAL", "PANIC", "error:", "ERROR", "DETAIL", "HINT", "setpriv:", "#")
    telling = [line.strip() for line in lines if any(sign in line for sign in signs)]
    return (telling or [line.strip() for line in lines if line.strip()])[-5:]
