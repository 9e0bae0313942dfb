"""How much is claimed ahead of a provider's connections, and what that may cost."""

import asyncio
import re
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from marketing_pipeline import settings
from marketing_pipeline.delivery.gate import Gate
from marketing_pipeline.delivery.serving import Service
from marketing_pipeline.delivery.slots import Slots
from marketing_pipeline.event_log import ledger
from marketing_pipeline_tests.patience import until
from marketing_pipeline_tests.pipeline import Sandbox, post, record, run, states

CAREFUL = pytest.mark.parametrize("careful", [True, False], ids=["careful", "known-bad"])


def limited(
    home: Path, connections: int, limits: str = "{calls: 10000, per: 1s}", **said: str
) -> None:
    """So many connections to the provider of posts, and what else is said of it."""
    file = home / "campaigns" / "demo.yaml"
    text, found = re.subn(
        r"( {4}url: .*/hooks/content\n) {4}limits: .*",
        rf"\1    limits: [{limits}]\n    connections: {connections}",
        file.read_text(),
    )
    assert found == 1
    head, url, provider = text.partition("/hooks/content\n")
    for name, value in said.items():
        provider, found = re.subn(rf"( {{4}}{name}): .*", rf"\1: {value}", provider, count=1)
        assert found == 1
    file.write_text(head + url + provider)


def takes(sandbox: Sandbox, seconds: float) -> None:
    """So long takes each post from now on."""
    slow = {"latency": {"webhook": seconds}}
    httpx.put(f"{sandbox.url}/_sandbox/settings", json=slow).raise_for_status()


def always_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long calls take, there are two slots a connection."""
    monkeypatch.setattr(Slots, "most", property(lambda slots: 2 * slots.connections))


async def never(*_: object) -> None:
    """What is granted is not given back."""


def outcomes(database: str) -> Counter[str | None]:
    with psycopg.connect(database) as conn:
        rows = conn.execute("select outcome, count(*) from attempts group by 1").fetchall()
    return Counter(dict(rows))


def most_under_way(used: settings.Settings, database: str, sandbox: Sandbox) -> int:
    """Of many posts that take a while each: how many were claimed and unsettled at once."""
    takes(sandbox, 0.4)
    record(database, [post(n) for n in range(80)])
    engine = threading.Thread(target=run, args=(used,), kwargs={"linger": 0.2})
    most = 0
    with psycopg.connect(database, autocommit=True) as conn:
        engine.start()
        while engine.is_alive():
            row = conn.execute("select count(*) from effects where state = 'SENDING'").fetchone()
            assert row is not None
            most = max(most, row[0])
    assert states(database) == {"SENT": 80}
    return most


def test_of_a_backlog_no_more_is_claimed_than_can_be_called(
    used: settings.Settings, database: str, sandbox: Sandbox, home: Path
) -> None:
    """One half is claimed while the other calls; a claim whose call had to wait could expire."""
    limited(home, connections=10)
    # An answer frees its connection some milliseconds before it is on record.
    assert 5 < most_under_way(used, database, sandbox) <= 10 + 10


def test_a_claim_of_more_than_can_be_called_would_be_seen(
    used: settings.Settings, database: str, sandbox: Sandbox, home: Path
) -> None:
    """The known-bad case of the test above."""
    limited(home, connections=40)
    assert most_under_way(used, database, sandbox) > 10 + 10


@CAREFUL
def test_where_calls_take_long_none_is_claimed_in_vain(
    used: settings.Settings,
    database: str,
    sandbox: Sandbox,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    careful: bool,
) -> None:
    """What waits for a connection for longer than its grant lives is called off."""
    if not careful:
        always_ahead(monkeypatch)
    limited(home, connections=10)
    most_under_way(used, database, sandbox)
    assert (outcomes(database).total() == 80) is careful


@CAREFUL
def test_what_only_waited_for_a_connection_has_not_failed(
    used: settings.Settings,
    database: str,
    sandbox: Sandbox,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    careful: bool,
) -> None:
    """A provider whose calls were brief hangs: as many again have leave, and get no turn."""
    always_ahead(monkeypatch)  # what is brief, a busy machine decides
    if not careful:
        for_all = asyncio.Semaphore(1000)
        monkeypatch.setattr(Service, "__post_init__", lambda one: setattr(one, "_turns", for_all))
    limited(home, 3, "{calls: 10000, per: 4s}")
    engine = threading.Thread(target=run, args=(used,), kwargs={"linger": 5})
    record(database, [post(n) for n in range(30)])
    engine.start()
    until(lambda: states(database) == {"SENT": 30})
    sandbox.faults({"provider": "webhook", "kind": "hang_before", "share": 1.0, "seconds": 5})
    record(database, [post(n) for n in range(30, 36)])
    until(lambda: outcomes(database)["AMBIGUOUS"] >= 3)
    sandbox.faults()
    engine.join(60)
    assert states(database) == {"SENT": 36}
    found = outcomes(database)
    assert (found["UNREACHED"] == 0) is careful
    assert (found["THROTTLED"] >= 3) is careful, "called off, and claimed again"


@CAREFUL
def test_a_short_call_timeout_is_not_spent_on_waiting_for_a_connection(
    used: settings.Settings,
    database: str,
    sandbox: Sandbox,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    careful: bool,
) -> None:
    """Two calls of 350 ms after each other do not fit into 600 ms."""
    if not careful:
        always_ahead(monkeypatch)
    limited(home, 1, "{calls: 1000, per: 10s}", call_timeout="600ms")
    takes(sandbox, 0.35)
    record(database, [post(n) for n in range(8)])
    run(used, linger=3)
    doubtful = outcomes(database)["AMBIGUOUS"]
    assert (doubtful < 2) is careful  # of a machine that stands still, one may take too long


@CAREFUL
def test_what_the_log_refuses_uses_up_no_limit(
    used: settings.Settings,
    database: str,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    careful: bool,
) -> None:
    """Leave is asked for before a claim is on record: a full disk must not cost a day's calls."""
    honest, refused = ledger.claim, threading.Event()

    async def full(*arguments: Any) -> Any:
        if not refused.is_set():
            refused.set()
            raise psycopg.errors.DiskFull("could not extend file")
        return await honest(*arguments)

    monkeypatch.setattr(ledger, "claim", full)
    if not careful:
        monkeypatch.setattr(Gate, "give_back", never)
    limited(home, connections=10, limits="{calls: 15, per: 1h}")
    record(database, [post(n) for n in range(10)])
    run(used, max_run=8)
    assert refused.is_set()
    assert states(database) == ({"SENT": 10} if careful else {"SENT": 5, "PLANNED": 5})
