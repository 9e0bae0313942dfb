"""A sandbox in this process, whose clock a test moves."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from marketing_pipeline.sandbox.serve import running
from marketing_pipeline_tests.sandbox_clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def client(tmp_path: Path, clock: Clock) -> Iterator[httpx.Client]:
    """A client of the sandbox that runs by `clock`."""
    with (
        running(tmp_path / "record.db", clock=clock) as url,
        httpx.Client(base_url=url, auth=None) as client,
    ):
        yield client
