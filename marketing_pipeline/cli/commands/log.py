"""`marketing-pipeline status`, `explain` and their kind: what became of it, and what you decide."""

import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from marketing_pipeline.cli import asking
from marketing_pipeline.cli.asking import AsJson
from marketing_pipeline.event_log import finding, resolving, status

app = typer.Typer()
command = partial(app.command, rich_help_panel="The log")
console = Console()


@command(name="status")
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


@command()
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


@command()
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


@command()
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


@command()
def suppress(
    address: str,
    why: Annotated[str, typer.Option(help="kept in the log")],
    scope: Annotated[str, typer.Option(help="all, email or contact")] = "all",
) -> None:
    """Reach this person no more: once this ends, no attempt starts."""
    from marketing_pipeline.cli import suppression

    suppression.suppress(console, address, why, scope)


@command()
def lift(provider: str) -> None:
    """End a provider's pause or block now: its key is renewed, or its quota raised."""
    from marketing_pipeline.cli import lifting

    lifting.lift(console, asking.used(), provider)
