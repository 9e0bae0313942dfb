"""The demo: 2,000 events through the whole pipeline, and the books compared at the end."""

import asyncio
import json
import os
import sqlite3
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import psycopg
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from marketing_pipeline.cli import processes
from marketing_pipeline.cli.processes import Processes
from marketing_pipeline.cli.reconciliation import Act, LedgerEntry, Reconciliation, reconcile
from marketing_pipeline.event_log import intake, status
from marketing_pipeline.event_log.location import locate
from marketing_pipeline.event_log.status import Outcome
from marketing_pipeline.settings import Settings

SOURCE = "demo"
LEADS, POSTS, CAMPAIGNS = 1200, 780, 20
AT_ONCE = 32  # connections that post
PATIENCE = 150.0  # seconds for everything to be delivered
# A few calls in a hundred go wrong, in every way that a provider has been seen to. Throttling is
# rarer: each holds the whole provider back, HubSpot for its ten seconds.
FAULTS: tuple[dict[str, Any], ...] = tuple(
    {"provider": provider, "kind": kind, "share": share, "seconds": 3}
    for provider in ("hubspot", "resend", "mailgun", "webhook")
    for kind, share in (
        ("throttle", 0.001),
        ("error_before", 0.008),
        ("error_after", 0.008),
        ("reset_after", 0.006),
        ("close_after", 0.004),
        ("hang_after", 0.002),
    )
)


@dataclass(slots=True)
class Answers:
    """What ingest answered."""

    statuses: Counter[str] = field(default_factory=Counter)

    @property
    def posted(self) -> int:
        return self.statuses.total()


def run(used: Settings, *, once: bool, json_file: Path | None) -> int:
    """Run the demo; 0 only where the log and the sandbox's record agree."""
    console, began = Console(), time.monotonic()
    url = locate(used).database_url
    if strangers := _ask(url, status.strangers):
        console.print(
            f"[red]the log holds {strangers} unfinished events of your own, which the demo would "
            "send to its sandbox[/]; deliver them first, or give the demo a log of its own: "
            "MARKETING_STATE=.marketing/demo-log make demo"
        )
        return 2
    sandbox = f"http://127.0.0.1:{processes.free_port()}"
    ingest_port = processes.free_port()
    env = dict(os.environ) | processes.dagster(used)
    env |= {
        "MARKETING_SANDBOX_URL": sandbox,
        "MARKETING_CAMPAIGNS": "campaigns/demo.yaml",
        "MARKETING_INGEST_PORT": str(ingest_port),
    }
    record = used.state_dir / "demo" / "sandbox.sqlite"
    with processes.running(used.state_dir / "log", env) as started:
        ui = processes.start_dagster(started, used, _ui_port())
        processes.start_sandbox(started, sandbox, record)
        httpx.put(f"{sandbox}/_sandbox/faults", json=list(FAULTS)).raise_for_status()
        started.start("ingest", "marketing_pipeline", "ingest")
        started.wait_for(f"http://127.0.0.1:{ingest_port}/readyz")
        since = datetime.now(UTC)
        answers = _deliver(console, started, url, f"http://127.0.0.1:{ingest_port}")
        outcome = _ask(url, status.outcome, since)
        books = _compare(url, record)
        result = _result(answers, outcome, books, time.monotonic() - began)
        _show(console, result, books)
        if json_file is not None:
            json_file.write_text(json.dumps(result, indent=2) + "\n")
        if not once:
            started.wait_for(f"{ui}/server_info")
            console.print(f"the UI is at {ui}; Ctrl-C ends it")
            processes.until_interrupted(started)
    return 0 if result["balanced"] else 1


def _ui_port() -> int:
    usual = processes.UI_PORT
    return usual if processes.is_free(usual) else processes.free_port()


def _ask(url: str, question: Any, *about: object) -> Any:
    async def asked() -> Any:
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as conn:
            return await question(conn, SOURCE, *about)

    return asyncio.run(asked())


def _deliver(console: Console, started: Processes, url: str, ingest: str) -> Answers:
    """Post everything and watch until nothing is under way."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        answers = asyncio.run(_post(url, ingest, progress))
        accepted = answers.statuses["ACCEPTED"]
        task = progress.add_task("events delivered", total=accepted)
        ends = time.monotonic() + PATIENCE
        while (left := _ask(url, status.unfinished)) and time.monotonic() < ends:
            started.check()
            progress.update(task, completed=max(accepted - left, 0))
            time.sleep(0.25)
        progress.update(task, completed=accepted - left)
    return answers


async def _post(url: str, ingest: str, progress: Progress) -> Answers:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as conn:
        key = await intake.create_key(conn, SOURCE, datetime.now(UTC))
    answers, headers = Answers(), {"Authorization": f"Bearer {key}"}
    leads, posts, campaigns = _events(uuid.uuid4().hex[:8])
    async with aiohttp.ClientSession(
        ingest, headers=headers, connector=aiohttp.TCPConnector(limit=AT_ONCE)
    ) as session:
        for name, batch in (
            ("leads and posts sent", _repeated(leads + posts)),
            ("campaigns sent", _repeated(campaigns)),
        ):
            task = progress.add_task(name, total=len(batch))
            waiting = asyncio.Semaphore(AT_ONCE)

            async def send(
                body: dict[str, Any], task: Any = task, waiting: asyncio.Semaphore = waiting
            ) -> None:
                async with waiting, session.post("/events", json=body) as answer:
                    answers.statuses[answer.headers.get("X-Event-Status", str(answer.status))] += 1
                    progress.advance(task)

            await asyncio.gather(*(send(body) for body in batch))
    return answers


def _events(
    run_id: str,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
    def body(type: str, number: int, payload: dict[str, Any]) -> dict[str, Any]:
        key = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{run_id}/{type}/{number}"))
        return {"type": type, "source": SOURCE, "idempotencyKey": key, "payload": payload}

    names = ("Ada", "Grace", "Edsger", "Barbara", "Donald", "Tony", "Leslie", "Frances")
    leads = [
        body(
            "LEAD_CAPTURE",
            n,
            {
                "email": f"lead{n}.{run_id}@example.com",
                "first_name": names[n % len(names)],
                "company": f"Company {n % 97}",
            },
        )
        for n in range(LEADS)
    ]
    posts = [
        body("CONTENT_PUBLISH", n, {"text": f"News number {n} of {run_id}"}) for n in range(POSTS)
    ]
    campaigns = [
        body("CAMPAIGN_TRIGGER", n, {"campaign": "news", "issue": n}) for n in range(CAMPAIGNS)
    ]
    return leads, posts, campaigns


def _repeated(events: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every event; a tenth again: right beside the first, or later, or with another payload."""
    sent: list[dict[str, Any]] = []
    later: list[dict[str, Any]] = []
    for number, event in enumerate(events):
        sent.append(event)
        match number % 30:
            case 10:
                sent.append(event)  # twice at once
            case 20:
                later.append(event)
            case 29:
                later.append(event | {"payload": event["payload"] | {"changed": True}})
    return sent + later


def _compare(url: str, record: Path) -> Reconciliation:
    """The whole ledger of the demo against the sandbox's own file, of this run and earlier ones."""
    with closing(sqlite3.connect(f"file:{record}?mode=ro", uri=True)) as file:
        acts = [
            Act(provider=provider, operation=operation, key=key, repeat=bool(repeat))
            for provider, operation, key, repeat in file.execute(
                "select provider, operation, key, repeat from acts"
            )
        ]
    entries = _ask(url, status.ledger_of)
    return reconcile((LedgerEntry(id=id, state=state) for id, state in entries), acts)


def _result(
    answers: Answers, outcome: Outcome, books: Reconciliation, seconds: float
) -> dict[str, Any]:
    finished = not set(outcome.effects) & {"PLANNED", "SENDING", "DOUBT"}
    p50, p95, p99 = outcome.latency_ms
    return {
        "balanced": books.agrees and finished,
        "posted": answers.posted,
        "accepted": answers.statuses["ACCEPTED"],
        "duplicates": answers.statuses["DUPLICATE"],
        "conflicts": answers.statuses["CONFLICT"],
        "effects": dict(outcome.effects),
        "calls": outcome.calls,
        "retries": outcome.retries,
        "twice": len(books.twice),
        "lost": len(books.lost),
        "unaccounted": len(books.unaccounted),
        "latency_ms": {"p50": round(p50, 1), "p95": round(p95, 1), "p99": round(p99, 1)},
        "seconds": round(seconds, 1),
    }


def _show(console: Console, result: dict[str, Any], books: Reconciliation) -> None:
    table = Table("", "", title="the demo in numbers", show_header=False)
    for name in ("posted", "accepted", "duplicates", "conflicts"):
        table.add_row(name, f"{result[name]:,}")
    for state, count in result["effects"].items():
        table.add_row(f"effects {state}", f"{count:,}")
    for name in ("calls", "retries"):
        table.add_row(name, f"{result[name]:,}")
    for name, value in result["latency_ms"].items():
        table.add_row(f"accepted to delivered, {name}", f"{value:,.0f} ms")
    for name, found in asdict(books).items():
        table.add_row(name, f"[{'red' if found else 'green'}]{len(found)}[/]")
    console.print(table)
    verdict = "[green]agree[/]" if result["balanced"] else "[red]DO NOT AGREE[/]"
    console.print(f"the log and the sandbox's own record {verdict} ({result['seconds']} s)")
