"""The demo as an operator runs it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from marketing_pipeline import embedded
from marketing_pipeline.cli import evidence
from marketing_pipeline_tests.pipeline import CHECKOUT

KEYS = {
    *("balanced", "posted", "accepted", "duplicates", "conflicts", "effects", "calls", "retries"),
    *("twice", "lost", "latency_ms", "seconds"),
}


@pytest.mark.timeout(190)
def test_the_demo_delivers_two_thousand_events_and_its_books_agree(tmp_path: Path) -> None:
    state, result = tmp_path / "state", tmp_path / "result.json"
    env = {name: value for name, value in os.environ.items() if not name.endswith("_URL")}
    env |= {"MARKETING_STATE": str(state), "DAGSTER_HOME": str(CHECKOUT), "COLUMNS": "200"}
    command = [sys.executable, "-m", "marketing_pipeline", "demo", "--once", "--json", str(result)]
    try:
        done = subprocess.run(
            command, env=env, capture_output=True, text=True, timeout=170, check=False
        )
    finally:
        embedded.stop(state, force=True)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(result.read_text())
    assert set(told) >= KEYS
    assert told["balanced"] is True
    assert told["accepted"] == 2000
    assert told["posted"] == told["accepted"] + told["duplicates"] + told["conflicts"]
    assert told["conflicts"] > 0
    assert set(told["latency_ms"]) == {"p50", "p95", "p99"}
    assert told["retries"] > 0, "the sandbox did go wrong"
    assert sum(told["effects"].values()) > 2 * 1200 + 780
    acts = evidence.acts(state / "demo" / "sandbox.sqlite")
    assert len({act.key for act in acts}) >= told["effects"]["SENT"]
