"""Delivery against real PostgreSQL, Valkey and the sandbox, which judges what was done."""

import asyncio
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import psycopg
import pytest

from marketing_pipeline import embedded, settings
from marketing_pipeline.delivery import replay
from marketing_pipeline.delivery.assembly import assemble
from marketing_pipeline.delivery.run import Report, deliver
from marketing_pipeline.domain import event
from marketing_pipeline.domain.event import EventType, NewEvent
from marketing_pipeline.event_log import intake, ledger

CHECKOUT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Sandbox:
    """A sandbox process of this test, and the file it keeps its record in."""

    url: str
    record: Path

    def faults(self, *faults: dict[str, object]) -> None:
        httpx.put(f"{self.url}/_sandbox/faults", json=list(faults)).raise_for_status()

    def acts(self) -> dict[str, int]:
        """How often each key was really acted on, harmless repeats of an upsert left out."""
        with sqlite3.connect(self.record) as file:
            rows = file.execute("select key, count(*) from acts where repeat = 0 group by key")
            found = dict(rows.fetchall())
        file.close()
        return found


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    record = tmp_path / "sandbox.sqlite"
    command = [sys.executable, "-m", "marketing_pipeline.sandbox", "--port", "0"]
    with subprocess.Popen(
        [*command, "--record", str(record)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield Sandbox(process.stdout.readline().split()[1], record)
        process.terminate()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An operator's folder whose providers have names of their own: the gate is shared."""
    shutil.copytree(CHECKOUT / "campaigns", tmp_path / "campaigns")
    file = tmp_path / "campaigns" / "demo.yaml"
    suffix = uuid.uuid4().hex[:8]
    text = file.read_text()
    for name in ("hubspot", "resend", "mailgun", "site"):
        text = re.sub(rf"^  {name}:", f"  {name}_{suffix}:", text, flags=re.MULTILINE)
        text = re.sub(rf"provider: {name}\b", f"provider: {name}_{suffix}", text)
    file.write_text(text)
    return tmp_path


@pytest.fixture
def used(
    home: Path, database: str, servers: embedded.Servers, sandbox: Sandbox
) -> settings.Settings:
    return settings.read(
        {
            "MARKETING_HOME": str(home),
            "MARKETING_CAMPAIGNS": "campaigns/demo.yaml",
            "MARKETING_DATABASE_URL": database,
            "MARKETING_REDIS_URL": servers.redis_url,
            "DAGSTER_POSTGRES_URL": servers.dagster_url,
            "MARKETING_SANDBOX_URL": sandbox.url,
        }
    )


def lead(number: int) -> NewEvent:
    return event.new(
        type=EventType.LEAD_CAPTURE,
        payload={"email": f"p{number}@example.com", "first_name": f"P{number}"},
        source="demo",
        key=f"lead-{number}",
        now=datetime.now(UTC),
    )


def post(number: int) -> NewEvent:
    return event.new(
        type=EventType.CONTENT_PUBLISH,
        payload={"text": f"news {number}"},
        source="demo",
        key=f"post-{number}",
        now=datetime.now(UTC),
    )


def campaign(name: str, key: str) -> NewEvent:
    return event.new(
        type=EventType.CAMPAIGN_TRIGGER,
        payload={"campaign": name},
        source="demo",
        key=key,
        now=datetime.now(UTC),
    )


def record(database: str, events: Sequence[NewEvent]) -> None:
    async def write() -> None:
        async with await psycopg.AsyncConnection.connect(database) as conn:
            await intake.record(conn, events, datetime.now(UTC))

    asyncio.run(write())


def run(used: settings.Settings, linger: float = 1.0) -> Report:
    assert used.database_url is not None
    assert used.redis_url is not None
    return deliver(
        assemble(used),
        threading.Event(),
        database_url=used.database_url,
        redis_url=used.redis_url,
        linger=timedelta(seconds=linger),
        max_run=timedelta(seconds=60),
    )


def states(database: str) -> dict[str, int]:
    with psycopg.connect(database) as conn:
        rows = conn.execute("select state, count(*) from effects group by 1").fetchall()
    return dict(rows)


def statuses(database: str) -> dict[str, int]:
    with psycopg.connect(database) as conn:
        rows = conn.execute("select status, count(*) from marketing_events group by 1").fetchall()
    return dict(rows)


def sent(database: str) -> set[str]:
    with psycopg.connect(database) as conn:
        rows = conn.execute("select id::text from effects where state = 'SENT'").fetchall()
    return {row[0] for row in rows}


def campaign_name(home: Path) -> str:
    text = (home / "campaigns" / "demo.yaml").read_text()
    found = re.search(r"^campaigns:\n\s+(\w+):", text, re.MULTILINE)
    assert found is not None
    return found[1]


def test_every_event_becomes_effects_that_are_done_once(
    used: settings.Settings, database: str, sandbox: Sandbox, home: Path
) -> None:
    record(database, [lead(n) for n in range(40)] + [post(n) for n in range(20)])
    record(database, [campaign(campaign_name(home), "c1")])
    run(used)
    assert states(database) == {"SENT": 2 * 40 + 20 + 40}
    assert statuses(database) == {"COMPLETED": 61}
    acts = sandbox.acts()
    assert set(acts) == sent(database)
    assert set(acts.values()) == {1}


def test_faults_of_every_kind_make_nothing_twice_and_lose_nothing(
    used: settings.Settings, database: str, sandbox: Sandbox
) -> None:
    sandbox.faults(
        *(
            {"provider": provider, "kind": kind, "share": 0.04, "seconds": 3}
            for provider in ("hubspot", "resend", "mailgun", "webhook")
            for kind in ("throttle", "error_before", "error_after", "reset_after", "close_after")
        )
    )
    record(database, [lead(n) for n in range(60)] + [post(n) for n in range(40)])
    report = run(used, linger=4)
    assert report.calls > 160, "the faults were seen"
    assert states(database) == {"SENT": 160}
    acts = sandbox.acts()
    assert set(acts) == sent(database)
    assert max(acts.values()) == 1


def test_a_blind_repeat_would_have_been_caught_by_the_judge(
    used: settings.Settings, database: str, sandbox: Sandbox, home: Path
) -> None:
    """The known-bad case of the two tests above: forgetting that a mail was sent sends it twice."""
    record(database, [lead(1)])
    record(database, [campaign(campaign_name(home), "c1")])
    run(used)
    with psycopg.connect(database) as conn:
        conn.execute(
            """update effects set state = 'PLANNED', settled_at = null, provider_ref = null
               where provider like 'mailgun%'"""
        )
    run(used)
    assert sorted(sandbox.acts().values()) == [1, 1, 2]


@pytest.mark.parametrize(
    "recipe",
    [
        "update marketing_events set status = 'PENDING' where status = 'PROCESSING'",
        "update marketing_events set status = 'PENDING' where type = 'CAMPAIGN_TRIGGER'"
        " and created_at between now() - interval '1 day' and now()",
        "update marketing_events set status = 'PENDING'",
    ],
)
def test_the_recipes_that_people_paste_send_nothing(
    recipe: str, used: settings.Settings, database: str, sandbox: Sandbox, home: Path
) -> None:
    record(database, [lead(n) for n in range(5)])
    record(database, [campaign(campaign_name(home), "c1")])
    run(used)
    before = sandbox.acts()
    with psycopg.connect(database) as conn:
        conn.execute("update marketing_events set status = 'PROCESSING' where source = 'none'")
        conn.execute(recipe)
    assert run(used).calls == 0
    assert sandbox.acts() == before
    assert statuses(database) == {"COMPLETED": 6}


def test_nothing_reaches_a_person_after_they_were_suppressed(
    used: settings.Settings, database: str, sandbox: Sandbox
) -> None:
    record(database, [lead(1), lead(2)])

    async def suppress() -> None:
        async with await psycopg.AsyncConnection.connect(database) as conn:
            row = await (
                await conn.execute("select id from recipients where address = 'p1@example.com'")
            ).fetchone()
            assert row is not None
            await ledger.suppress(conn, row[0], "email", "unsubscribed", datetime.now(UTC))

    asyncio.run(suppress())
    run(used)
    assert states(database) == {"SENT": 3, "SUPPRESSED": 1}
    assert statuses(database) == {"COMPLETED": 2}
    assert len(sandbox.acts()) == 3


def test_a_poisonous_event_fails_alone(used: settings.Settings, database: str) -> None:
    record(database, [campaign("no-such-campaign", "c9"), lead(1)])
    run(used)
    assert statuses(database) == {"FAILED": 1, "COMPLETED": 1}
    with psycopg.connect(database) as conn:
        row = conn.execute("select last_error from marketing_events where status = 'FAILED'")
        assert "no campaign 'no-such-campaign'" in str(row.fetchone())


def test_a_replay_finds_the_same_bytes_and_calls_nobody(
    used: settings.Settings, database: str, sandbox: Sandbox, home: Path
) -> None:
    record(database, [lead(n) for n in range(10)] + [post(1)])
    record(database, [campaign(campaign_name(home), "c1")])
    run(used)
    before = sandbox.acts()

    async def verify() -> replay.Verification:
        async with await psycopg.AsyncConnection.connect(database, autocommit=True) as conn:
            return await replay.verify(conn, datetime.now(UTC).date())

    first, second = asyncio.run(verify()), asyncio.run(verify())
    assert first == second
    assert (first.effects, first.rendered, first.differences) == (31, 31, ())
    assert sandbox.acts() == before
    with psycopg.connect(database) as conn:  # the known-bad case: the ledger was tampered with
        conn.execute(
            'update effects set variables = \'{"first_name": "Eve"}\' where id ='
            " (select id from effects where kind = 'email' order by id limit 1)"
        )
    assert len(asyncio.run(verify()).differences) == 1


def test_two_runs_at_once_are_harmless(
    used: settings.Settings, database: str, sandbox: Sandbox
) -> None:
    record(database, [lead(n) for n in range(150)])
    threads = [threading.Thread(target=run, args=(used,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert states(database) == {"SENT": 300}
    acts = sandbox.acts()
    assert len(acts) == 300
    assert set(acts.values()) == {1}
