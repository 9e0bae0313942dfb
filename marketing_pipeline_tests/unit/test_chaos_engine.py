"""How a harness ends an engine: in order, and never before it can hear."""

import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from marketing_pipeline_tests.chaos.engine import Engine

NEWBORN = 0.5  # seconds until SIGTERM no longer kills


def heeds_late(heeds: Connection) -> None:
    """A machine under load: it is long before the engine can be asked to end."""
    time.sleep(NEWBORN)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    heeds.send(None)
    stop.wait(60)


def says_so_too_early(heeds: Connection) -> None:
    heeds.send(None)
    time.sleep(60)


def fails(_: Connection) -> None:
    raise SystemExit(3)


def is_deaf(heeds: Connection) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    heeds.send(None)
    time.sleep(60)


def ended(run: Callable[..., None], folder: Path) -> tuple[str | None, str | None]:
    """What stopping it at once comes to, and what is said of how it ended."""
    engine = Engine.start(run, (), folder / "engine.log")
    return engine.stop(2), engine.crash()


def test_an_engine_that_is_stopped_as_it_is_born_ends_in_order(tmp_path: Path) -> None:
    assert ended(heeds_late, tmp_path) == (None, None)


@pytest.mark.parametrize(("run", "code"), [(says_so_too_early, -15), (fails, 3)])
def test_one_that_did_not_end_in_order_is_told(
    tmp_path: Path, run: Callable[..., None], code: int
) -> None:
    """The known-bad cases: the first is killed by SIGTERM, which nothing tolerates."""
    assert ended(run, tmp_path) == (None, f"it ended with {code}: ")


def test_one_that_does_not_heed_is_killed_and_told(tmp_path: Path) -> None:
    assert ended(is_deaf, tmp_path) == ("it did not end when told to: ", None)
