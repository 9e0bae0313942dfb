"""The command line: starts, checks and looks at an installation."""

import json
import os
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import psycopg
import redis
import sqlalchemy.exc
import typer
from rich.console import Console
from rich.table import Table

from marketing_pipeline import embedded
from marketing_pipeline.campaigns.document import ConfigError
from marketing_pipeline.cli import asking, exclusion, holding, keys, server_checks
from marketing_pipeline.cli.asking import AsJson
from marketing_pipeline.delivery.proposals import CannotPlan
from marketing_pipeline.delivery.replaying import CannotReplay
from marketing_pipeline.domain.event import InvalidEvent
from marketing_pipeline.domain.rules import Unplannable
from marketing_pipeline.event_log import finding, resolving, schema, status
from marketing_pipeline.event_log.approvals import CannotApprove
from marketing_pipeline.event_log.holding import CannotHold
from marketing_pipeline.event_log.installation import StillAtWork
from marketing_pipeline.event_log.location import SchemaError, locate
from marketing_pipeline.event_log.resolving import CannotResolve
from marketing_pipeline.event_log.story import NoStory
from marketing_pipeline.event_log.travel import NoPast
from marketing_pipeline.settings import SettingsError

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
app.add_typer(keys.app, name="keys")
app.add_typer(holding.app, name="campaign")
console = Console()


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
        CannotHold,
        CannotReplay,
        CannotApprove,
        CannotPlan,
        CannotResolve,
        NoPast,
        NoStory,
        StillAtWork,
        Unplannable,
    ) as error:
        _refuse(str(error))
    except redis.RedisError as error:
        _refuse(f"Valkey: {error}; start the server, or unset MARKETING_REDIS_URL")
    except (psycopg.OperationalError, sqlalchemy.exc.OperationalError) as error:
        _refuse(f"{server_checks.reason(error)}; {server_checks.START_IT}")


def _refuse(message: str) -> None:
    print(f"marketing-pipeline: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)


@app.command()
def up(
    sandbox: Annotated[bool, typer.Option(help="call a sandbox, and nobody else")] = False,
) -> None:
    """Start ingest, Dagster's UI and its daemon, and stop them together."""
    from marketing_pipeline.cli import processes

    processes.up(asking.used(), sandbox=sandbox)


@app.command()
def demo(
    once: Annotated[bool, typer.Option(help="stop everything at the end")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="write the result here")] = None,
) -> None:
    """Send 2,000 events through everything and compare the log with the sandbox's own record."""
    from marketing_pipeline.cli import demonstration

    sys.exit(demonstration.run(asking.used(), once=once, json_file=json_file))


@app.command()
def ingest(host: str | None = None, port: int | None = None) -> None:
    """Take events over HTTP."""
    from marketing_pipeline.ingest.serve import serve

    used = asking.used()
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
    used = asking.used()
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
            well = "[yellow]note[/]" if one.note else "[green]ok  [/]"
            mark = well if one.passed else "[red]bad [/]"
            told = one.remedy and (one.note or not one.passed)
            remedy = f"\n       -> {one.remedy}" if told else ""
            console.print(f"{mark} {one.part}: {one.finding}{remedy}", highlight=False)
    sys.exit(0 if all(one.passed for one in found) else 1)


@app.command()
def check(
    file: Annotated[Path | None, typer.Argument(help="else the one in use")] = None,
    as_json: AsJson = False,
    for_editors: Annotated[bool, typer.Option("--schema", help="print the JSON Schema")] = False,
) -> None:
    """Check the operator's file: all that is wrong, by line; or what it has."""
    from marketing_pipeline.cli import checking, editors

    if for_editors:
        print(json.dumps(editors.schema(), indent=2))
        return
    sys.exit(checking.check(console, asking.used(), file, datetime.now(UTC), as_json=as_json))


@app.command(name="status")
def show_status(as_json: AsJson = False) -> None:
    """How many events and effects stand where."""
    now = asking.ask(status.read)
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
    for hold in now.holds:
        name = f"campaign {hold.campaign} ({hold.event_id})"
        console.print(f"[yellow]{name} is {hold.state}[/]: {hold.reason}")


@app.command()
def unknown(
    as_json: AsJson = False,
    limit: Annotated[int, typer.Option(min=1, help="show this many")] = 50,
) -> None:
    """What may have been done and only you can say: where to look, and how to settle it."""
    from marketing_pipeline.cli import undecided

    found = asking.ask(lambda conn: resolving.undecided(conn, limit))
    told = undecided.document(found, asking.ask(resolving.waiting))
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
        for one in asking.ask(lambda conn: resolving.undecided(conn, 1, effect_id)):
            undecided.show_one(console, undecided.describe(one))
            typer.confirm(f"Settle it as `{decided.action}`?", abort=True)
    done = asking.ask(lambda conn: resolving.resolve(conn, effect_id, decided))
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

    story = asking.ask(lambda conn: finding.find(conn, what, source, limit))
    told = explanation.document(story, what, datetime.now(UTC))
    if as_json:
        print(json.dumps(told))
    else:
        explanation.show(explanation.console(), told)


@app.command()
def replay(
    first: Annotated[str, typer.Option("--from", help="the first UTC day: 2026-03-01")],
    last: Annotated[str, typer.Option("--to", help="the last, included")],
    types: Annotated[str, typer.Option(help="of events, with commas; all where left out")] = "",
    mode: Annotated[
        str, typer.Option(help="verify: compare, nothing is sent; resend: plan a new epoch")
    ] = "verify",
    epoch: Annotated[int | None, typer.Option(help="of a resend: 1 or more, a new one")] = None,
    plan_digest: Annotated[
        str | None, typer.Option(help="of a resend: what was proposed, and you read")
    ] = None,
    workers: Annotated[int, typer.Option(help="processes; of verify")] = os.cpu_count() or 1,
    as_json: AsJson = False,
) -> None:
    """Make plans and messages of past days again: to compare them, or to send them once more."""
    from marketing_pipeline.cli import replaying, resending
    from marketing_pipeline.delivery.replaying import Mode

    def log() -> str:
        return locate(asking.used()).database_url

    wanted = replaying.asked(first, last, types, mode)
    if wanted.mode is Mode.RESEND:
        done = resending.resend(wanted, epoch, plan_digest)
        if as_json:
            print(json.dumps(resending.document(done)))
        else:
            resending.show(console, done)
        return
    found = replaying.replay(log, wanted, workers)
    if as_json:
        print(json.dumps(replaying.document(found)))
    else:
        replaying.show(console, found)
    sys.exit(1 if found.different else 0)


@app.command()
def preview(
    template: Annotated[str, typer.Argument(help="its name in the file")],
    address: Annotated[str, typer.Option("--as", help="whose variables; see --with too")],
    given: Annotated[
        list[str] | None, typer.Option("--with", help="a variable: name=value; repeatable")
    ] = None,
    no_open: Annotated[bool, typer.Option("--no-open", help="open no browser")] = False,
    as_json: AsJson = False,
) -> None:
    """Show a mail as this person would get it; nothing is sent."""
    from marketing_pipeline.cli import previewing

    used = asking.used()
    shown = previewing.preview(used, template, address, given or [])
    if as_json:
        print(json.dumps(previewing.document(shown)))
    else:
        previewing.show(console, used, shown, in_browser=not no_open)


@app.command(name="send-test")
def send_test(
    template: Annotated[str, typer.Argument(help="its name in the file")],
    address: Annotated[str, typer.Option("--to", help="your own")],
    given: Annotated[
        list[str] | None, typer.Option("--with", help="a variable: name=value; repeatable")
    ] = None,
) -> None:
    """Send a mail to yourself, once, through all that a campaign's mails go through."""
    from marketing_pipeline.cli import testing

    sent = testing.send(asking.used(), template, address, given or [])
    print(f"event {sent.event_id}: a delivery run sends it; marketing-pipeline explain tells how")


@app.command()
def suppress(
    address: str,
    why: Annotated[str, typer.Option(help="kept in the log")],
    scope: Annotated[str, typer.Option(help="all, email or contact")] = "all",
) -> None:
    """Reach this person no more: once this ends, no attempt starts."""
    from marketing_pipeline.cli import suppression

    suppression.suppress(console, address, why, scope)


@app.command()
def plan(
    campaign: Annotated[str, typer.Argument(help="its name in the operator's file")],
    at: Annotated[str | None, typer.Option(help="of this occurrence; else the next")] = None,
    as_of: Annotated[str | None, typer.Option(help="as it would have been sent then")] = None,
    people: Annotated[Path | None, typer.Option(help="write everybody to this CSV")] = None,
    as_json: AsJson = False,
) -> None:
    """Who would get what, who would not and why, and the digest to approve; sends nothing."""
    from marketing_pipeline.cli import plan_page, planning
    from marketing_pipeline.delivery import plan_document

    told = plan_document.document(planning.plan(campaign, at, as_of, people))
    if as_json:
        print(json.dumps(told))
    else:
        plan_page.show(console, told)


@app.command()
def approve(
    campaign: Annotated[str, typer.Argument(help="its name in the operator's file")],
    digest: Annotated[str, typer.Option(help="of the plan you read; its first digits do")],
    why: Annotated[str, typer.Option(help="kept in the log")],
    who: Annotated[str | None, typer.Option(help="who approves; you, where left out")] = None,
    life: Annotated[str | None, typer.Option(help="how long it holds: 24h")] = None,
) -> None:
    """Let a campaign be sent as the plan that you read, once and exactly so."""
    from marketing_pipeline.cli import planning, undecided

    found = planning.approve(campaign, digest, who or undecided.login(), why, life)
    of = found.proposal
    print(f"{campaign} is sent as plan {of.digest} ({of.count:,} mails), until {found.expires_at}")


@app.command()
def trigger(
    campaign: Annotated[str, typer.Argument(help="its name in the operator's file")],
    at: Annotated[str | None, typer.Option(help="2026-03-01T09:00+01:00; else now")] = None,
    why: Annotated[str | None, typer.Option(help="kept in the log")] = None,
) -> None:
    """Send a campaign now or at an instant: once, also where its schedule says the same."""
    from marketing_pipeline.cli import campaigning

    told, entry = campaigning.trigger(campaign, at, why)
    print(told.event_id, "NEW" if told.verdict == "ACCEPTED" else "DUPLICATE")
    if entry.approve:
        console.print(f"it waits for approval: marketing-pipeline plan {campaign}", highlight=False)


@app.command()
def campaigns(as_json: AsJson = False) -> None:
    """When each campaign is due, what became of its last time, and which steps are to come."""
    from marketing_pipeline.cli import campaigning

    told = campaigning.overview(datetime.now(UTC))
    if as_json:
        print(json.dumps(told))
    else:
        campaigning.show(console, told)


@app.command()
def lift(provider: str) -> None:
    """End a provider's pause or block now: its key is renewed, or its quota raised."""
    from marketing_pipeline.cli import lifting

    lifting.lift(console, asking.used(), provider)


@app.command()
def adopt(
    why: Annotated[str, typer.Option(help="what happened to the log; kept in it")],
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
) -> None:
    """Let a restored or copied log send, and doubt what may have been sent since the backup."""
    from marketing_pipeline.cli import adoption

    if not yes:
        typer.confirm("Is it certain that nothing else sends for this log any more?", abort=True)
    adoption.adopt(console, asking.used(), why)


@app.command()
def down() -> None:
    """Stop the embedded servers, unless somebody uses them."""
    report = embedded.stop(asking.used().state_dir)
    users = ", ".join(map(str, report.users)) or "unknown"
    if not report.was_running:
        console.print("nothing runs")
    elif report.stopped:
        console.print("PostgreSQL and Valkey have stopped")
    else:
        _refuse(f"PostgreSQL and Valkey are in use (processes {users}): end those first")
