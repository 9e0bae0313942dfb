"""What a test needs to send events through the real engine and to ask the judge what was done."""

import asyncio
import re
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import psycopg

from marketing_pipeline import settings
from marketing_pipeline.delivery.assembly import assemble
from marketing_pipeline.delivery.run import Report, deliver
from marketing_pipeline.domain import event
from marketing_pipeline.domain.event import EventType, NewEvent
from marketing_pipeline.event_log import intake

CHECKOUT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Sandbox:
    """A sandbox process of this test, and the file it keeps its record in."""

    url: str
    record: Path

    def faults(self, *faults: Mapping[str, object]) -> None:
        httpx.put(
            f"{self.url}/_sandbox/faults", json=[dict(one) for one in faults]
        ).raise_for_status()

    def acts(self) -> dict[str, int]:
        """How often each key was really acted on, harmless repeats of an upsert left out."""
        with closing(sqlite3.connect(self.record)) as file:
            rows = file.execute("select key, count(*) from acts where repeat = 0 group by key")
            return dict(rows.fetchall())


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


def run(used: settings.Settings, linger: float = 1.0, max_run: float = 60.0) -> Report:
    assert used.database_url is not None
    assert used.redis_url is not None
    return deliver(
        assemble(used),
        threading.Event(),
        database_url=used.database_url,
        redis_url=used.redis_url,
        linger=timedelta(seconds=linger),
        max_run=timedelta(seconds=max_run),
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
