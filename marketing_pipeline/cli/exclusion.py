"""One command at a time keeps ingest, delivery and the UI running on a state folder."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from marketing_pipeline.embedded import locks
from marketing_pipeline.embedded.failure import from_os

_FILE = "command.lock"
_PATIENCE = 0.5  # seconds; `holder` takes the lock for a moment
_PAUSE = 0.02  # seconds
_NAME_LIMIT = 200  # bytes of the file that are read


class AlreadyRunning(RuntimeError):
    """Another `up` or `demo` runs on this state folder; says which and what to do."""


@contextmanager
def alone(state_dir: Path, command: str) -> Iterator[None]:
    """Be the only command of its kind on this folder for as long as the block runs.

    Two of them would each send what the other accepted: a demo beside an `up` would deliver real
    events to its sandbox. The kernel lets the lock go however its holder ends, and children do
    not inherit it.

    Raises:
        AlreadyRunning: another one holds the folder.
        EmbeddedError: the folder cannot be made or written.
    """
    try:
        descriptor = _take(state_dir)
    except OSError as error:
        raise from_os(f"the state folder {state_dir} cannot be used", error) from error
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"`marketing-pipeline {command}` (process {os.getpid()})".encode())
        yield
    finally:
        os.close(descriptor)


def holder(state_dir: Path) -> str | None:
    """Who runs there, in words; None where nobody does. Takes nothing and creates nothing."""
    file = state_dir / _FILE
    if not file.exists():
        return None
    descriptor = locks.try_take(file, shared=True)
    if descriptor is not None:
        os.close(descriptor)
        return None
    with file.open("rb") as named:
        return named.read(_NAME_LIMIT).decode(errors="replace") or "another command"


def _take(state_dir: Path) -> int:
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    ends = time.monotonic() + _PATIENCE
    while (descriptor := locks.try_take(state_dir / _FILE)) is None:
        if time.monotonic() > ends:
            raise AlreadyRunning(
                f"{holder(state_dir) or 'another command'} runs on {state_dir}: end it first "
                "(Ctrl-C), or name another folder in MARKETING_STATE"
            )
        time.sleep(_PAUSE)
    return descriptor
