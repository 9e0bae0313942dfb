"""What users of other systems suffered, by name: each was somebody's incident."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from marketing_pipeline import embedded, settings
from marketing_pipeline.delivery import high_water
from marketing_pipeline.delivery.assembly import assemble
from marketing_pipeline.event_log import ledger
from marketing_pipeline.event_log.ledger import Pause
from marketing_pipeline_tests.integration.test_restore import adopt, backup, with_log
from marketing_pipeline_tests.pipeline import (
    CHECKOUT,
    Sandbox,
    campaign,
    campaign_name,
    lead,
    record,
    run,
    states,
    statuses,
)

PEOPLE = 50
MAILS = "select count(*) from effects where template is not null and provider like 'mailgun%' "


@pytest.fixture
def slow(home: Path) -> None:
    """Mailgun takes ten mails a second, so that a campaign has a middle."""
    file = home / "campaigns" / "demo.yaml"
    text = file.read_text()
    before, mailgun, after = re.split(r"(\n  mailgun_)", text, maxsplit=1)
    file.write_text(before + mailgun + after.replace("calls: 200", "calls: 15", 1))


@pytest.fixture
def addressed(used: settings.Settings, database: str) -> None:
    """Fifty people in the log, whose welcome is over."""
    record(database, [lead(n) for n in range(PEOPLE)])
    run(used, linger=0.3)


def count(database: str, query: str) -> int:
    with psycopg.connect(database) as conn:
        row = conn.execute(query.encode()).fetchone()
    assert row is not None
    return int(row[0])


def until(ready: Callable[[], bool], seconds: float = 20) -> None:
    ends = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < ends, "it did not come to that"
        time.sleep(0.02)


def mails(database: str, sandbox: Sandbox) -> dict[str, int]:
    """How often each mail of the campaign was really sent."""
    with psycopg.connect(database) as conn:
        query = MAILS.replace("count(*)", "id::text")
        ids = {row[0] for row in conn.execute(query.encode()).fetchall()}
    return {key: times for key, times in sandbox.acts().items() if key in ids}


@contextmanager
def engine(used: settings.Settings) -> Iterator["subprocess.Popen[bytes]"]:
    """The engine in a process that may be killed."""
    command = [sys.executable, "-m", "marketing_pipeline_tests.chaos.engine_child"]
    environment = os.environ | dict(used.environment)
    with subprocess.Popen(command, env=environment, cwd=CHECKOUT) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def at_work(used: settings.Settings, linger: float = 3.0) -> Iterator[None]:
    """The engine in a thread, until it has nothing to do."""
    thread = threading.Thread(target=run, args=(used, linger))
    thread.start()
    try:
        yield
    finally:
        thread.join()


def hold(used: settings.Settings, database: str, seconds: float) -> None:
    """Pause the provider of campaigns, as whoever got a complaint would."""
    [provider] = [name for name in assemble(used).destinations if name.startswith("mailgun")]
    now = datetime.now(UTC)

    async def pause() -> None:
        async with await psycopg.AsyncConnection.connect(database) as conn:
            ends = now + timedelta(seconds=seconds)
            await ledger.pause(conn, Pause(provider=provider, until=ends, reason="a look"), now)

    asyncio.run(pause())


def unsubscribe(database: str, *people: int) -> None:
    async def leave() -> None:
        async with await psycopg.AsyncConnection.connect(database) as conn:
            for number in people:
                query = "select id from recipients where address = %s"
                row = await (await conn.execute(query, [f"p{number}@example.com"])).fetchone()
                assert row is not None
                await ledger.suppress(conn, row[0], "email", "unsubscribed", datetime.now(UTC))
                await conn.commit()

    asyncio.run(leave())


@pytest.mark.usefixtures("slow", "addressed")
def test_a_sender_that_dies_after_fetching_its_recipients_loses_none_of_them(
    used: settings.Settings, database: str, sandbox: Sandbox, home: Path
) -> None:
    """Elsewhere a checkpoint was advanced when a batch was fetched: who was in it got nothing."""
    record(database, [campaign(campaign_name(home), "c1")])
    for sent in (5, 20, 35):
        with engine(used) as process:
            until(lambda sent=sent: count(database, MAILS + "and state = 'SENT'") >= sent)  # type: ignore[misc]
            process.send_signal(signal.SIGKILL)
            process.wait()
    run(used, linger=4)
    assert sorted(mails(database, sandbox).values()) == [1] * PEOPLE
    assert count(database, MAILS + "and state = 'SENT'") == PEOPLE
    assert set(statuses(database)) == {"COMPLETED"}


@pytest.mark.usefixtures("slow", "addressed")
def test_a_database_restored_from_the_middle_of_a_campaign_sends_nobody_a_second_mail(
    used: settings.Settings,
    database: str,
    servers: embedded.Servers,
    sandbox: Sandbox,
    home: Path,
) -> None:
    """Elsewhere the backup did not know of the second half, and mailed it again."""
    record(database, [campaign(campaign_name(home), "c1")])
    with engine(used) as process:
        until(lambda: count(database, MAILS + "and state = 'SENT'") >= 15)
        process.send_signal(signal.SIGKILL)
        process.wait()
    with backup(servers, database) as restored:
        run(used, linger=4)
        before = mails(database, sandbox)
        assert sorted(before.values()) == [1] * PEOPLE
        again = with_log(used, restored)
        with pytest.raises(high_water.ReadOnly):
            run(again)
        adopt(again)
        run(again, linger=6)
        assert mails(database, sandbox) == before
        assert states(restored) == {"SENT": 2 * PEOPLE + PEOPLE}


@pytest.mark.usefixtures("slow", "addressed")
def test_a_campaign_that_is_paused_and_resumed_reaches_everybody_once(
    used: settings.Settings, database: str, sandbox: Sandbox, home: Path
) -> None:
    """Elsewhere it began again from its list of recipients."""
    record(database, [campaign(campaign_name(home), "c1")])
    with at_work(used):
        until(lambda: len(mails(database, sandbox)) >= 15)
        hold(used, database, seconds=4)
        time.sleep(1)  # what had been granted is through
        then = len(mails(database, sandbox))
        with at_work(used):  # who pauses often restarts, too
            time.sleep(1)
            assert len(mails(database, sandbox)) == then < PEOPLE
    assert sorted(mails(database, sandbox).values()) == [1] * PEOPLE
    assert set(states(database)) == {"SENT"}
    assert set(statuses(database)) == {"COMPLETED"}


@pytest.mark.usefixtures("addressed")
def test_whoever_unsubscribes_after_a_campaign_was_planned_gets_none_of_it(
    used: settings.Settings, database: str, sandbox: Sandbox, home: Path
) -> None:
    """Elsewhere the list had been drawn up, and was mailed as it stood."""
    record(database, [campaign(campaign_name(home), "c1")])
    hold(used, database, seconds=2.5)
    with at_work(used):
        until(lambda: count(database, MAILS) == PEOPLE)
        unsubscribe(database, 3, 7, 31)
    assert sorted(mails(database, sandbox).values()) == [1] * (PEOPLE - 3)
    assert states(database)["SUPPRESSED"] == 3


@pytest.mark.usefixtures("addressed")
def test_whoever_unsubscribes_before_a_retry_gets_no_retry(
    used: settings.Settings, database: str, sandbox: Sandbox, home: Path
) -> None:
    """Elsewhere only the first attempt asked."""
    sandbox.faults({"provider": "mailgun", "kind": "error_before", "share": 1.0})
    record(database, [campaign(campaign_name(home), "c1")])
    with at_work(used, 6):
        until(lambda: count(database, MAILS + "and attempts = 1") == PEOPLE)
        unsubscribe(database, 3, 7, 31)
        sandbox.faults()
    assert sorted(mails(database, sandbox).values()) == [1] * (PEOPLE - 3)
    left = count(database, MAILS + "and state in ('SUPPRESSED', 'UNKNOWN')")
    assert left == 3
