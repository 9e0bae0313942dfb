"""`marketing-pipeline up`, `doctor` and their kind: start, check and end an installation."""

import json
import os
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from marketing_pipeline import embedded
from marketing_pipeline.cli import asking
from marketing_pipeline.cli.asking import AsJson
from marketing_pipeline.cli.refusal import refuse
from marketing_pipeline.event_log import schema
from marketing_pipeline.event_log.location import locate

app = typer.Typer()
command = partial(app.command, rich_help_panel="This installation")
console = Console()


@command()
def up(
    sandbox: Annotated[bool, typer.Option(help="call a sandbox, and nobody else")] = False,
) -> None:
    """Start ingest, Dagster's UI and its daemon, and stop them together."""
    from marketing_pipeline.cli import processes

    processes.up(asking.used(), sandbox=sandbox)


@command()
def demo(
    once: Annotated[bool, typer.Option(help="stop everything at the end")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="write the result here")] = None,
) -> None:
    """Send 2,000 events through everything and compare the log with the sandbox's own record."""
    from marketing_pipeline.cli import demonstration

    sys.exit(demonstration.run(asking.used(), once=once, json_file=json_file))


@command()
def ingest(host: str | None = None, port: int | None = None) -> None:
    """Take events over HTTP."""
    from marketing_pipeline.ingest.serve import serve

    used = asking.used()
    serve(used, locate(used).database_url, host=host, port=port)


@command()
def sandbox(port: int = 8026, record: Path = Path(".marketing/sandbox.sqlite")) -> None:
    """Stand in for the providers on loopback."""
    module = "marketing_pipeline.sandbox"
    record.parent.mkdir(parents=True, exist_ok=True)
    arguments = [sys.executable, "-m", module, "--port", str(port), "--record", str(record)]
    os.execv(sys.executable, arguments)  # noqa: S606  # this very interpreter


@command()
def migrate() -> None:
    """Bring the database to the present schema."""
    used = asking.used()
    with console.status("migrating"):
        url = used.database_url or embedded.attach(used.state_dir).database_url
        revision = schema.migrate(url)
    console.print(f"the log is at revision {revision}")


@command()
def doctor(as_json: AsJson = False) -> None:
    """Check every part, and say how to mend it."""
    from marketing_pipeline.cli import examination

    found = examination.examine(os.environ)
    if as_json:
        print(json.dumps([asdict(one) for one in found]))
    else:
        for one in found:
            well = "[yellow]note[/]" if one.note else "[green]ok  [/]"
            mark = well if one.passed else "[red]bad [/]"
            told = one.remedy and (one.note or not one.passed)
            remedy = f"\n       -> {one.remedy}" if told else ""
            console.print(f"{mark} {one.part}: {one.finding}{remedy}", highlight=False)
    sys.exit(0 if all(one.passed for one in found) else 1)


@command()
def adopt(
    why: Annotated[str, typer.Option(help="what happened to the log; kept in it")],
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
) -> None:
    """Let a restored or copied log send, and doubt what may have been sent since the backup."""
    from marketing_pipeline.cli import adoption

    if not yes:
        typer.confirm("Is it certain that nothing else sends for this log any more?", abort=True)
    adoption.adopt(console, asking.used(), why)


@command()
def down() -> None:
    """Stop the embedded servers, unless somebody uses them."""
    report = embedded.stop(asking.used().state_dir)
    users = ", ".join(map(str, report.users)) or "unknown"
    if not report.was_running:
        console.print("nothing runs")
    elif report.stopped:
        console.print("PostgreSQL and Valkey have stopped")
    else:
        refuse(f"PostgreSQL and Valkey are in use (processes {users}): end those first")
