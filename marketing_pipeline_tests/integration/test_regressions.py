"""What users of other systems suffered, by name: each was somebody's incident."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from redis.asyncio import Redis

from marketing_pipeline import embedded, settings
from marketing_pipeline.delivery import high_water
from marketing_pipeline.delivery.assembly import assemble, marks
from marketing_pipeline.event_log import ledger, pauses
from marketing_pipeline.event_log.pauses import Pause
from marketing_pipeline_tests.patience import until
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
CAMPAIGN = "provider like 'mailgun%'"
MAILS = f"select count(*) from effects where {CAMPAIGN} "  # noqa: S608 - our own words


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


def until_sent(database: str, least: int) -> None:
    until(lambda: count(database, MAILS + "and state = 'SENT'") >= least)


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


@contextmanager
def copied(servers: embedded.Servers, database: str) -> Iterator[str]:
    """A backup of the database as it is now, restored so late that nobody in it is awake."""
    name = f"restored_{uuid.uuid4().hex}"
    original = urlsplit(database).path[1:]
    with psycopg.connect(servers.database_url, autocommit=True) as admin:
        admin.execute(f'create database "{name}" template "{original}"')
        url = urlunsplit(urlsplit(database)._replace(path=f"/{name}"))
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute("delete from heartbeats")
        yield url
        admin.execute(f'drop database "{name}" with (force)')


def adopt(used: settings.Settings, database: str) -> None:
    async def adopted() -> None:
        assert used.redis_url is not None
        async with (
            await psycopg.AsyncConnection.connect(database, autocommit=True) as conn,
            Redis.from_url(used.redis_url) as client,
        ):
            why, slowest = "restored from a backup", timedelta(seconds=2)
            await high_water.adopt(conn, marks(used), client, why, slowest)

    asyncio.run(adopted())


def hold(used: settings.Settings, database: str, seconds: float) -> None:
    """Pause the provider of campaigns, as whoever got a complaint would."""
    [provider] = [name for name in assemble(used).destinations if name.startswith("mailgun")]
    now = datetime.now(UTC)

    async def pause() -> None:
        async with await psycopg.AsyncConnection.connect(database) as conn:
            ends = now + timedelta(seconds=seconds)
            await pauses.keep(conn, Pause(provider=provider, until=ends, reason="a look"), now)

    asyncio.run(pause())


def unsubscribe(database: str, *addresses: str) -> None:
    async def leave() -> None:
        async with await psycopg.AsyncConnection.connect(database) as conn:
            for address in addresses:
                query = "select id from recipients where address = %s"
                row = await (await conn.execute(query, [address])).fetchone()
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
            until_sent(database, sent)
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
        until_sent(database, 15)
        process.send_signal(signal.SIGKILL)
        process.wait()
    with copied(servers, database) as restored:
        run(used, linger=4)
        before = mails(database, sandbox)
        assert sorted(before.values()) == [1] * PEOPLE
        again = replace(used, database_url=restored)
        with pytest.raises(high_water.ReadOnly):
            run(again)
        adopt(again, restored)
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
        unsubscribe(database, "p3@example.com", "p7@example.com", "p31@example.com")
    assert sorted(mails(database, sandbox).values()) == [1] * (PEOPLE - 3)
    assert states(database)["SUPPRESSED"] == 3


@pytest.mark.usefixtures("addressed")
def test_whoever_unsubscribes_before_a_retry_gets_no_retry(
    used: settings.Settings, database: str, sandbox: Sandbox, home: Path
) -> None:
    """Elsewhere only the first attempt asked."""
    sandbox.faults({"provider": "mailgun", "kind": "error_before", "times": 3})
    record(database, [campaign(campaign_name(home), "c1")])
    doubtful = f"from effects e join recipients r on r.id = e.recipient_id where {CAMPAIGN}"
    with at_work(used, 6):
        until(lambda: count(database, f"select count(*) {doubtful} and state = 'DOUBT'") == 3)
        with psycopg.connect(database) as conn:
            query = f"select address {doubtful} and state = 'DOUBT'"
            people = [row[0] for row in conn.execute(query.encode()).fetchall()]
        unsubscribe(database, *people)
    assert sorted(mails(database, sandbox).values()) == [1] * (PEOPLE - 3)
    assert states(database) == {"SENT": 2 * PEOPLE + PEOPLE - 3, "SUPPRESSED": 3}
