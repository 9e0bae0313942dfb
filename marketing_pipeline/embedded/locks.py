"""Advisory locks on files: the kernel drops them with their holder, however it dies."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

from marketing_pipeline.embedded.failure import EmbeddedError, from_os

_PAUSE = 0.01  # seconds between two tries; the usual wait is for one exchange with the supervisor


def try_take(path: Path, *, shared: bool = False) -> int | None:
    """Take the lock if it is free and return the descriptor that holds it.

    Let go by closing the descriptor and never by LOCK_UN: a forked child shares the lock with
    its parent and would take it from it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def take(path: Path, *, limit: timedelta, shared: bool = False) -> int:
    """Wait for the lock and return the descriptor that holds it.

    Raises:
        EmbeddedError: it cannot be opened, or is still held after `limit`.
    """
    end = time.monotonic() + limit.total_seconds()
    while True:
        try:
            descriptor = try_take(path, shared=shared)
        except OSError as error:
            raise from_os(f"the lock {path} cannot be used", error) from error
        if descriptor is not None:
            return descriptor
        if time.monotonic() > end:
            pids = ", ".join(map(str, holders(path))) or "unknown"
            raise EmbeddedError(
                f"{path} is still held after {limit.total_seconds():.0f} s (process {pids}): "
                f"look at the log folder beside it, end that process, then try again"
            )
        time.sleep(_PAUSE)


@contextmanager
def held(path: Path, *, limit: timedelta) -> Iterator[None]:
    descriptor = take(path, limit=limit)
    try:
        yield
    finally:
        os.close(descriptor)


def is_still(descriptor: int, path: Path) -> bool:
    """Whether the descriptor's file is the one at the path: the folder may have been remade."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False


def holders(path: Path) -> tuple[int, ...]:
    """The processes that hold the lock, where the system tells (Linux); else empty."""
    table = Path("/proc/locks")
    if not table.exists() or not path.exists():
        return ()
    file = path.stat()
    # 1: FLOCK  ADVISORY  READ 4822 fe:00:2146326 0 EOF
    name = f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}:{file.st_ino}"
    rows = (line.split() for line in table.read_text().splitlines())
    return tuple(sorted({int(row[4]) for row in rows if row[1] == "FLOCK" and row[5] == name}))
