"""The demo: 2,000 events through the whole pipeline, and the books compared at the end."""

import asyncio
import json
import os
import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import httpx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from marketing_pipeline.cli import evidence, exclusion, processes, traffic
from marketing_pipeline.cli.asking import ask_at
from marketing_pipeline.cli.evidence import Evidence
from marketing_pipeline.cli.processes import Processes
from marketing_pipeline.cli.reconciliation import LedgerEntry, Reconciliation, reconcile
from marketing_pipeline.cli.traffic import SOURCE, Answers
from marketing_pipeline.event_log import intake, reading, status
from marketing_pipeline.event_log.location import locate
from marketing_pipeline.event_log.reading import Balance
from marketing_pipeline.event_log.status import Outcome
from marketing_pipeline.settings import Settings

T = TypeVar("T")
PATIENCE = 150.0  # seconds for everything to be delivered
_OPEN = frozenset({"PLANNED", "SENDING", "DOUBT"})
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """Every account of one run, taken when nothing was under way any more."""

    answers: Answers  # ingest's
    logged: int  # by how many events the log grew
    unfinished: int  # events under way, those apart that wait for a person
    outcome: Outcome  # the ledger's, of this run
    days: Sequence[Balance]  # plans against the ledger, of the days that this run touched
    acts: Reconciliation  # the ledger against the sandbox's record

    @property
    def differences(self) -> list[str]:
        """What does not agree, a sentence each."""
        accepted = self.answers.statuses["ACCEPTED"]
        unplanned = sum(day.unplanned for day in self.days)
        missing = sum(abs(day.missing) for day in self.days)
        ours = sum(n for state, n in self.outcome.effects.items() if state in _OPEN)
        still_open = max(ours, sum(day.open for day in self.days))
        checks = (
            (self.logged != accepted, f"{accepted} events were accepted, {self.logged} logged"),
            (not self.days, "the log has no plans of these days"),
            (bool(self.unfinished), f"{self.unfinished} events are unfinished"),
            (bool(unplanned), f"{unplanned} events have no plan"),
            (bool(missing), f"{missing} effects differ between plans and ledger"),
            (bool(still_open), f"{still_open} effects are open"),
            (bool(self.acts.twice), f"{len(self.acts.twice)} effects were done twice"),
            (bool(self.acts.lost), f"{len(self.acts.lost)} effects were lost"),
            (bool(self.acts.unaccounted), f"{len(self.acts.unaccounted)} acts unaccounted for"),
        )
        return [said for differs, said in checks if differs]


def run(used: Settings, *, once: bool, json_file: Path | None) -> int:
    """Run the demo; 0 only where all the books agree, 2 where it must not begin."""
    with exclusion.alone(used.state_dir, "demo"):
        return _run(used, once=once, json_file=json_file)


def _run(used: Settings, *, once: bool, json_file: Path | None) -> int:
    console, began = Console(), time.monotonic()
    with console.status("starting PostgreSQL and Valkey"):
        url = locate(used).database_url
    if strangers := ask_at(url, lambda conn: status.strangers(conn, SOURCE)):
        console.print(
            f"[red]the log holds {strangers} unfinished events of your own, which the demo would "
            "send to its sandbox[/]; deliver them first, or give the demo a log of its own: "
            "MARKETING_STATE=.marketing/demo-log make demo"
        )
        return 2
    found = evidence.prepare(used.state_dir / "demo" / "sandbox.sqlite", _ledger(url))
    if found.notice:
        console.print(f"[yellow]{found.notice}[/]", highlight=False)
    ingest = f"http://{processes.LOOPBACK}:{processes.free_port()}"
    sandbox = f"http://{processes.LOOPBACK}:{processes.free_port()}"
    with processes.running(used.state_dir / "log", _environment(used, sandbox, ingest)) as started:
        ui = _start(console, started, used, sandbox, ingest, found.record)
        books = _books(console, started, url, ingest, found)
        result = describe(books, time.monotonic() - began)
        _show(console, result, books)
        if json_file is not None:
            json_file.write_text(json.dumps(result, indent=2) + "\n")
        if not once:
            started.wait_for(f"{ui}/server_info")
            console.print(f"the UI is at {ui}; Ctrl-C ends it")
            processes.until_interrupted(started)
    return 0 if result["balanced"] else 1


def _environment(used: Settings, sandbox: str, ingest: str) -> dict[str, str]:
    return (
        dict(os.environ)
        | processes.dagster(used)
        | {
            "MARKETING_SANDBOX_URL": sandbox,
            "MARKETING_CAMPAIGNS": "campaigns/demo.yaml",
            "MARKETING_INGEST_PORT": ingest.rpartition(":")[2],
        }
    )


def _start(
    console: Console, started: Processes, used: Settings, sandbox: str, ingest: str, record: Path
) -> str:
    """Start what the demo needs, and give the UI's address, which does not answer yet."""
    usual = processes.UI_PORT
    port = usual if processes.is_free(usual) else processes.free_port()
    with console.status("starting the sandbox, ingest and Dagster"):
        ui = processes.start_dagster(started, used, port)
        processes.start_sandbox(started, sandbox, record)
        httpx.put(f"{sandbox}/_sandbox/faults", json=list(FAULTS)).raise_for_status()
        started.start("ingest", "marketing_pipeline", "ingest")
        started.wait_for(f"{ingest}/readyz")
    return ui


def _books(console: Console, started: Processes, url: str, ingest: str, found: Evidence) -> Books:
    """Send everything, wait until nothing is under way, and take all accounts."""
    before, since = _events(url), datetime.now(UTC)
    answers = _deliver(console, started, url, ingest)
    until = datetime.now(UTC)
    return Books(
        answers=answers,
        logged=_events(url) - before,
        unfinished=_unfinished(url),
        outcome=ask_at(url, lambda conn: status.outcome(conn, SOURCE, since)),
        days=ask_at(url, lambda conn: reading.conservation(conn, since.date(), until.date())),
        acts=reconcile(_ledger(url), evidence.acts(found.record), earlier=found.earlier),
    )


def _ledger(url: str) -> list[LedgerEntry]:
    entries = ask_at(url, lambda conn: status.ledger_of(conn, SOURCE))
    return [LedgerEntry(id=id, state=state) for id, state in entries]


def _events(url: str) -> int:
    return sum(ask_at(url, status.read).events.values())


def _unfinished(url: str) -> int:
    return ask_at(url, lambda conn: status.unfinished(conn, SOURCE))


def _deliver(console: Console, started: Processes, url: str, ingest: str) -> Answers:
    """Post everything and watch until nothing is under way."""
    key = ask_at(url, lambda conn: intake.create_key(conn, SOURCE, datetime.now(UTC)))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        answers = asyncio.run(traffic.post(ingest, key, uuid.uuid4().hex[:8], progress))
        accepted = answers.statuses["ACCEPTED"]
        task = progress.add_task("events delivered", total=accepted)
        ends = time.monotonic() + PATIENCE
        while (left := _unfinished(url)) and time.monotonic() < ends:
            started.check()
            progress.update(task, completed=max(accepted - left, 0))
            time.sleep(0.25)
        progress.update(task, completed=max(accepted - left, 0))
    return answers


def describe(books: Books, seconds: float) -> dict[str, Any]:
    """The run in numbers, for programs; `balanced` only where no account differs."""
    p50, p95, p99 = books.outcome.latency_ms
    return {
        "balanced": not books.differences,
        "differences": books.differences,
        "posted": books.answers.posted,
        "accepted": books.answers.statuses["ACCEPTED"],
        "duplicates": books.answers.statuses["DUPLICATE"],
        "conflicts": books.answers.statuses["CONFLICT"],
        "effects": dict(books.outcome.effects),
        "calls": books.outcome.calls,
        "retries": books.outcome.retries,
        "twice": len(books.acts.twice),
        "lost": len(books.acts.lost),
        "unaccounted": len(books.acts.unaccounted),
        "latency_ms": {"p50": round(p50, 1), "p95": round(p95, 1), "p99": round(p99, 1)},
        "seconds": round(seconds, 1),
    }


def _show(console: Console, result: dict[str, Any], books: Books) -> None:
    table = Table("", "", title="the demo in numbers", show_header=False)
    for name in ("posted", "accepted", "duplicates", "conflicts"):
        table.add_row(name, f"{result[name]:,}")
    for state, count in result["effects"].items():
        table.add_row(f"effects {state}", f"{count:,}")
    for name in ("calls", "retries"):
        table.add_row(name, f"{result[name]:,}")
    for name, value in result["latency_ms"].items():
        table.add_row(f"accepted to delivered, {name}", f"{value:,.0f} ms")
    for name, found in asdict(books.acts).items():
        table.add_row(name, f"[{'red' if found else 'green'}]{len(found)}[/]")
    console.print(table)
    for difference in books.differences:
        console.print(f"[red]{difference}[/]")
    verdict = "[green]agree[/]" if result["balanced"] else "[red]DO NOT AGREE[/]"
    console.print(
        f"ingest's answers, the log, its plans, the ledger and the sandbox's own record {verdict} "
        f"({result['seconds']} s)"
    )
