"""The command line: starts, checks and looks at an installation."""

import asyncio
import json
import os
import sys
from collections.abc import Callable, Coroutine
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, TypeVar

import psycopg
import sqlalchemy.exc
import typer
from rich.console import Console
from rich.table import Table

from marketing_pipeline import embedded, settings
from marketing_pipeline.campaigns.document import ConfigError
from marketing_pipeline.cli import exclusion, server_checks
from marketing_pipeline.domain.event import InvalidEvent
from marketing_pipeline.event_log import finding, intake, resolving, schema, status
from marketing_pipeline.event_log.installation import StillAtWork
from marketing_pipeline.event_log.location import SchemaError, locate
from marketing_pipeline.event_log.resolving import CannotResolve
from marketing_pipeline.event_log.story import NoStory
from marketing_pipeline.settings import Settings, SettingsError

T = TypeVar("T")
app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
keys = typer.Typer(no_args_is_help=True, help="Ingest keys, one or more for each source.")
app.add_typer(keys, name="keys")
console = Console()
AsJson = Annotated[bool, typer.Option("--json", help="for programs")]


def main() -> None:
    """The entry point: what an operator can mend is one line, not a traceback."""
    try:
        app()
    except (
        ConfigError,
        InvalidEvent,
        SettingsError,
        SchemaError,
        embedded.EmbeddedError,
        exclusion.AlreadyRunning,
        CannotResolve,
        NoStory,
        StillAtWork,
    ) as error:
        _refuse(str(error))
    except (psycopg.OperationalError, sqlalchemy.exc.OperationalError) as error:
        _refuse(f"{server_checks.reason(error)}; {server_checks.START_IT}")


def _refuse(message: str) -> None:
    print(f"marketing-pipeline: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)


def _settings() -> Settings:
    return settings.read(os.environ)


def _ask(question: Callable[[psycopg.AsyncConnection], Coroutine[None, None, T]]) -> T:
    async def asked() -> T:
        url = locate(_settings()).database_url
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as conn:
            return await question(conn)

    return asyncio.run(asked())


@app.command()
def up(
    sandbox: Annotated[bool, typer.Option(help="call a sandbox, and nobody else")] = False,
) -> None:
    """Start ingest, Dagster's UI and its daemon, and stop them together."""
    from marketing_pipeline.cli import processes

    processes.up(_settings(), sandbox=sandbox)


@app.command()
def demo(
    once: Annotated[bool, typer.Option(help="stop everything at the end")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="write the result here")] = None,
) -> None:
    """Send 2,000 events through everything and compare the log with the sandbox's own record."""
    from marketing_pipeline.cli import demonstration

    sys.exit(demonstration.run(_settings(), once=once, json_file=json_file))


@app.command()
def ingest(host: str | None = None, port: int | None = None) -> None:
    """Take events over HTTP."""
    from marketing_pipeline.ingest.serve import serve

    used = _settings()
    serve(used, locate(used).database_url, host=host, port=port)


@app.command()
def sandbox(port: int = 8026, record: Path = Path(".marketing/sandbox.sqlite")) -> None:
    """Stand in for the providers on loopback."""
    module = "marketing_pipeline.sandbox"
    record.parent.mkdir(parents=True, exist_ok=True)
    arguments = [sys.executable, "-m", module, "--port", str(port), "--record", str(record)]
    os.execv(sys.executable, arguments)  # noqa: S606  # this very interpreter


@app.command()
def migrate() -> None:
    """Bring the database to the present schema."""
    used = _settings()
    with console.status("migrating"):
        url = used.database_url or embedded.attach(used.state_dir).database_url
        revision = schema.migrate(url)
    console.print(f"the log is at revision {revision}")


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Check every part, and say how to mend it."""
    from marketing_pipeline.cli import examination

    found = examination.examine(os.environ)
    if as_json:
        print(json.dumps([asdict(one) for one in found]))
    else:
        for one in found:
            mark = "[green]ok  [/]" if one.passed else "[red]bad [/]"
            remedy = "" if one.passed or not one.remedy else f"\n       -> {one.remedy}"
            console.print(f"{mark} {one.part}: {one.finding}{remedy}", highlight=False)
    sys.exit(0 if all(one.passed for one in found) else 1)


@app.command(name="status")
def show_status(as_json: AsJson = False) -> None:
    """How many events and effects stand where."""
    now = _ask(status.read)
    if as_json:
        print(json.dumps(asdict(now), default=str))
        return
    table = Table("what", "state", "count")
    for what, counts in (("events", now.events), ("effects", now.effects)):
        for state, count in counts.items():
            table.add_row(what, state, f"{count:,}")
    console.print(table)
    for pause in now.pauses:
        console.print(
            f"[yellow]{pause.provider} waits until {pause.until:%H:%M:%S}[/]: {pause.reason}"
        )


@app.command()
def unknown(
    as_json: AsJson = False,
    limit: Annotated[int, typer.Option(min=1, help="show this many")] = 50,
) -> None:
    """What may have been done and only you can say: where to look, and how to settle it."""
    from marketing_pipeline.cli import undecided

    found = _ask(lambda conn: resolving.undecided(conn, limit))
    told = undecided.document(found, _ask(resolving.waiting))
    if as_json:
        print(json.dumps(told))
    else:
        undecided.show(console, told)


@app.command()
def resolve(
    effect: Annotated[str, typer.Argument(help="its id, see `unknown`")],
    why: Annotated[str, typer.Option(help="how you know; kept in the log")],
    sent: Annotated[bool, typer.Option("--sent", help="the provider has it")] = False,
    resend: Annotated[bool, typer.Option("--resend", help="it has not: send it again")] = False,
    reference: Annotated[str | None, typer.Option(help="the provider's name for it")] = None,
    who: Annotated[str | None, typer.Option(help="who decides; you, where left out")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
) -> None:
    """Settle an effect that is UNKNOWN; what you decide and why is kept."""
    from marketing_pipeline.cli import undecided

    decided = undecided.decision(sent=sent, resend=resend, why=why, who=who, reference=reference)
    effect_id = undecided.identified(effect)
    if not yes and sys.stdin.isatty():
        for one in _ask(lambda conn: resolving.undecided(conn, 1, effect_id)):
            undecided.show_one(console, undecided.describe(one))
            typer.confirm(f"Settle it as `{decided.action}`?", abort=True)
    done = _ask(lambda conn: resolving.resolve(conn, effect_id, decided))
    print(f"effect {effect_id} is {done.state}; its event {done.event_id} is {done.event_status}")


@app.command()
def explain(
    what: Annotated[str, typer.Argument(help="an event, effect, key, address or reference")],
    source: Annotated[str | None, typer.Option(help="WHAT is a key of this source")] = None,
    as_json: AsJson = False,
    limit: Annotated[int, typer.Option(min=1, help="tell this many events, effects each")] = 50,
) -> None:
    """The whole story of something in time order, and what happens next."""
    from marketing_pipeline.cli import explanation

    story = _ask(lambda conn: finding.find(conn, what, source, limit))
    told = explanation.document(story, what, datetime.now(UTC))
    if as_json:
        print(json.dumps(told))
    else:
        explanation.show(explanation.console(), told)


@app.command()
def adopt(
    why: Annotated[str, typer.Option(help="what happened to the log; kept in it")],
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
) -> None:
    """Let a restored or copied log send, and doubt what may have been sent since the backup."""
    from marketing_pipeline.cli import adoption

    if not yes:
        typer.confirm("Is it certain that nothing else sends for this log any more?", abort=True)
    adoption.adopt(console, _settings(), why)


@app.command()
def down() -> None:
    """Stop the embedded servers, unless somebody uses them."""
    report = embedded.stop(_settings().state_dir)
    users = ", ".join(map(str, report.users)) or "unknown"
    if not report.was_running:
        console.print("nothing runs")
    elif report.stopped:
        console.print("PostgreSQL and Valkey have stopped")
    else:
        _refuse(f"PostgreSQL and Valkey are in use (processes {users}): end those first")


@keys.command("create")
def create_key(source: str, as_json: AsJson = False) -> None:
    """Make a key for a source; it is shown this once."""
    key = _ask(lambda conn: intake.create_key(conn, source, datetime.now(UTC)))
    print(json.dumps({"source": source, "key": key}) if as_json else key)


@keys.command("list")
def list_keys(as_json: AsJson = False) -> None:
    """Which keys there are; never their secrets."""
    found = _ask(intake.list_keys)
    if as_json:
        print(json.dumps([asdict(one) for one in found], default=str))
        return
    for one in found:
        console.print(one, highlight=False)


@keys.command("revoke")
def revoke_key(key_id: str) -> None:
    """End a key; ingest notices within ten seconds."""
    if not _ask(lambda conn: intake.revoke_key(conn, key_id, datetime.now(UTC))):
        print(f"keys: there is no active key {key_id!r}; see `keys list`", file=sys.stderr)
        sys.exit(2)
