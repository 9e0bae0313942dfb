"""How much of a machine's memory the embedded PostgreSQL takes."""

import os
from pathlib import Path

import pytest

from marketing_pipeline.embedded import memory
from marketing_pipeline.embedded.postgres import shared_buffers

GIB = 1024**3


@pytest.mark.parametrize(
    ("usable", "buffers"),
    [(GIB // 4, "128MB"), (GIB, "256MB"), (2 * GIB, "512MB"), (16 * GIB, "4096MB")],
)
def test_buffers_are_a_quarter_of_the_memory(usable: int, buffers: str) -> None:
    assert shared_buffers(usable) == buffers


def test_a_large_machine_keeps_its_memory_for_caching_files() -> None:
    assert shared_buffers(256 * GIB) == "4096MB"


def test_a_container_may_use_less_than_its_machine_has(tmp_path: Path) -> None:
    limit = tmp_path / "memory.max"
    limit.write_text("268435456\n")
    assert memory.usable([limit]) == GIB // 4


@pytest.mark.parametrize("said", ["max\n", str(2**62)])
def test_a_container_without_a_limit_may_use_all_that_the_machine_has(
    tmp_path: Path, said: str
) -> None:
    limit = tmp_path / "memory.max"
    limit.write_text(said)
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert memory.usable([limit, tmp_path / "there is none"]) == machine
