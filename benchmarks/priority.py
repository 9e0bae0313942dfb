"""How long a welcome mail takes while a campaign of 100,000 waits for the same provider.

    python -m benchmarks.priority [--quick]

The audience is imported as history, which sends nothing. Then a campaign to all of them is
triggered at a provider that takes 50 calls a second, and two leads a second arrive from that
moment on: planning the campaign is part of what they have to live with.
"""

import asyncio
import re
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import psycopg
from rich.progress import track

from benchmarks import figures, installation
from benchmarks.figures import Line, measured
from benchmarks.installation import SOURCE, Installation
from marketing_pipeline.domain import event
from marketing_pipeline.domain.event import EventType, NewEvent, Origin
from marketing_pipeline.event_log import intake

LIMIT_S = 5.0  # p95
EVERY = 0.5  # seconds between leads
BULK = """
select count(*), count(*) filter (where state in ('PLANNED', 'SENDING', 'DOUBT'))
from effects where priority = 2"""
WAITS = """
select extract(epoch from e.settled_at - m.created_at)::float
from effects e join marketing_events m on m.id = e.event_id
where e.step = 'welcome' and e.state = 'SENT'"""


def lines(quick: bool = False) -> Iterator[Line]:
    """Seconds from a lead's record until its welcome mail was settled."""
    audience, seconds = (10_000, 20.0) if quick else (100_000, 60.0)
    with installation.installation(linger="30s") as own:
        _one_slow_provider(own.home / "campaigns" / "benchmark.yaml")
        own.start_sandbox()
        asyncio.run(_import(own, audience))
        run = own.start_delivery()
        leads = asyncio.run(_campaign_and_leads(own, seconds))
        time.sleep(2 * LIMIT_S)
        waits = [row[0] for row in own.ask(WAITS)]
        planned, waiting = own.ask(BULK)[0]
        run.terminate()
    # The first leads may be there before the campaign's cut, and are then of its audience, too.
    if not audience <= planned <= audience + leads or waiting < planned / 2:
        raise SystemExit(f"{planned} bulk effects, {waiting} waiting: the figures are void")
    if len(waits) != leads:
        raise SystemExit(f"{len(waits)} of {leads} welcome mails went out: the target is missed")
    name = "priority/welcome beside a campaign"
    yield measured(f"{name}, p50", "s", [figures.percentile(waits, 50)])
    yield measured(f"{name}, p95", "s", [figures.percentile(waits, 95)], at_most=LIMIT_S)


def _one_slow_provider(file: Path) -> None:
    """Campaigns go to everybody, through the provider that sends welcome mails, at 50 a second."""
    text = file.read_text()
    text, limits = re.subn(
        r"(adapter: resend\n.*\n    limits: ).*", r"\1[{calls: 50, per: 1s}]", text
    )
    text, steps = re.subn(r"step: mail, provider: mailgun", "step: mail, provider: resend", text)
    text, audiences = re.subn(r"\{sources: \[demo\], newest: 50\}", "{}", text)
    assert (limits, steps, audiences) == (1, 1, 1), "campaigns/demo.yaml is not written as it was"
    file.write_text(text)


async def _import(own: Installation, people: int) -> None:
    async with await psycopg.AsyncConnection.connect(own.database_url) as conn:
        for at in track(range(0, people, 1000), "importing the audience"):
            numbers = range(at, min(at + 1000, people))
            history = [replace(_lead(f"past{n}"), origin=Origin.HISTORY) for n in numbers]
            await intake.record(conn, history, datetime.now(UTC))
            await conn.commit()
        await conn.execute("update marketing_events set status = 'COMPLETED'")


async def _campaign_and_leads(own: Installation, seconds: float) -> int:
    async with await psycopg.AsyncConnection.connect(own.database_url, autocommit=True) as conn:
        now = datetime.now(UTC)
        payload = {"campaign": "news"}
        campaign = event.new(
            type=EventType.CAMPAIGN_TRIGGER, payload=payload, source=SOURCE, key="all", now=now
        )
        await intake.record(conn, [campaign], now)
        for number in track(range(int(seconds / EVERY)), "leads arrive"):
            await intake.record(conn, [_lead(f"new{number}")], datetime.now(UTC))
            await asyncio.sleep(EVERY)
    return int(seconds / EVERY)


def _lead(name: str) -> NewEvent:
    return event.new(
        type=EventType.LEAD_CAPTURE,
        payload={"email": f"{name}@example.com", "first_name": "Ada"},
        source=SOURCE,
        key=f"{name}-{uuid.uuid4()}",
        now=datetime.now(UTC),
    )


if __name__ == "__main__":
    figures.alone(__doc__, lines)
