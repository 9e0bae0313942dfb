"""Valkey killed, frozen and emptied under a delivery run: no limit exceeded, nothing lost."""

import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from marketing_pipeline import settings
from marketing_pipeline.delivery.assembly import assemble
from marketing_pipeline.delivery.run import deliver
from marketing_pipeline_tests.own_valkey import OwnValkey, own_valkey
from marketing_pipeline_tests.pipeline import Sandbox, post, record, sent, states

CALLS, PER = 20, 1.0  # the limit, in seconds
EFFECTS = 160
AWAY = 1.5  # seconds
RESUMES = 5.0  # seconds after its return


@pytest.fixture
def own() -> Iterator[OwnValkey]:
    """In a short folder: the path of a socket may not be long."""
    with tempfile.TemporaryDirectory() as folder, own_valkey(Path(folder)) as valkey:
        yield valkey


@pytest.fixture
def limited(used: settings.Settings, own: OwnValkey) -> settings.Settings:
    file = used.campaigns_file
    text = file.read_text()
    assert "limits: [{calls: 200, per: 1s}]" in text, "campaigns/demo.yaml is not as it was"
    file.write_text(text.replace("{calls: 200, per: 1s}", f"{{calls: {CALLS}, per: {PER}s}}"))
    return replace(used, redis_url=own.url)


def called_at(sandbox: Sandbox) -> list[float]:
    """When each call was read, by the sandbox's clock, in seconds."""
    with closing(sqlite3.connect(sandbox.record)) as file:
        return sorted(row[0] for row in file.execute("select at from calls"))


def most_within(instants: list[float], span: float) -> int:
    """The most of them in any span."""
    return max(sum(first <= at < first + span for at in instants) for first in instants)


class Run(threading.Thread):
    """A delivery run in the background."""

    def __init__(self, used: settings.Settings) -> None:
        super().__init__()
        self.used = used
        self.ends = threading.Event()

    def run(self) -> None:
        assert self.used.database_url is not None
        assert self.used.redis_url is not None
        deliver(
            assemble(self.used),
            self.ends,
            database_url=self.used.database_url,
            redis_url=self.used.redis_url,
            linger=timedelta(seconds=2),
            max_run=timedelta(seconds=60),
        )


def kill(own: OwnValkey) -> float:
    own.kill()
    time.sleep(AWAY)
    return own.start()


def kill_and_lose(own: OwnValkey) -> float:
    own.kill()
    time.sleep(AWAY)
    return own.start(remembers=False)


def kill_briefly(own: OwnValkey) -> float:
    """Back at once, with a file that lacks what the last second wrote."""
    own.kill()
    return own.start()


def freeze(own: OwnValkey) -> float:
    own.freeze()
    time.sleep(AWAY + 2)
    own.thaw()
    return time.monotonic()


def flush(own: OwnValkey) -> float:
    own.flush()
    return time.monotonic()


@pytest.mark.parametrize("trouble", [kill, kill_and_lose, kill_briefly, freeze, flush])
def test_trouble_with_valkey_exceeds_no_limit_and_loses_nothing(
    limited: settings.Settings,
    own: OwnValkey,
    database: str,
    sandbox: Sandbox,
    trouble: Callable[[OwnValkey], float],
) -> None:
    record(database, [post(n) for n in range(EFFECTS)])
    run = Run(limited)
    run.start()
    try:
        while len(called_at(sandbox)) < EFFECTS // 3:
            assert run.is_alive()
            time.sleep(0.02)
        returned = trouble(own)
        behind = time.time() - time.monotonic()
        run.join(60)
    finally:
        run.ends.set()
        run.join(60)
    assert states(database) == {"SENT": EFFECTS}
    assert set(sandbox.acts()) == sent(database)
    assert set(sandbox.acts().values()) == {1}
    calls = called_at(sandbox)
    assert most_within(calls, PER) <= CALLS
    resumed = min(at for at in calls if at > returned + behind) - returned - behind
    assert resumed < RESUMES, "by itself"
    print(f"{trouble.__name__}: resumed after {resumed:.2f} s")


def test_the_count_by_the_sandboxs_clock_would_see_one_call_too_many() -> None:
    """The known-bad case: the first of one span and the last of the span before it."""
    just_right = [n / CALLS for n in range(3 * CALLS)]
    assert most_within(just_right, PER) == CALLS
    assert most_within([*just_right, 1.01], PER) == CALLS + 1


def test_a_durable_pause_outlives_a_flush(
    limited: settings.Settings, own: OwnValkey, database: str, sandbox: Sandbox
) -> None:
    sandbox.faults({"provider": "webhook", "kind": "throttle", "times": 1, "seconds": 40})
    record(database, [post(1)])
    run = Run(limited)
    run.start()
    try:
        while not held(database):
            assert run.is_alive()
            time.sleep(0.02)
        own.flush()
        record(database, [post(2)])
        time.sleep(3)
    finally:
        run.ends.set()
        run.join(60)
    assert len(called_at(sandbox)) == 1


def held(database: str) -> bool:
    with psycopg.connect(database) as conn:
        rows = conn.execute("select until from pauses").fetchall()
    return any(until > datetime.now(UTC) for (until,) in rows)
