"""`marketing-pipeline campaign`: pauses, resumes and cancels campaigns that are under way."""

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from marketing_pipeline.cli import undecided
from marketing_pipeline.cli.asking import AsJson, ask
from marketing_pipeline.event_log.holding import Action, Said

if TYPE_CHECKING:  # the command line starts without the delivery room
    from marketing_pipeline.delivery.holding import Report

app = typer.Typer(no_args_is_help=True, help="Pause, resume or cancel campaigns under way.")
console = Console()
What = Annotated[str, typer.Argument(help="a campaign's name, or the id of one event")]
Why = Annotated[str, typer.Option(help="kept in the log")]
Who = Annotated[str | None, typer.Option(help="who does it; you, where left out")]
Yes = Annotated[bool, typer.Option("--yes", help="do not ask")]
_DONE = {Action.PAUSE: "paused", Action.RESUME: "resumed", Action.CANCEL: "cancelled"}


@app.command()
def pause(what: What, why: Why, who: Who = None, yes: Yes = False, as_json: AsJson = False) -> None:
    """Start nothing of it from now on; what is under way comes to its end."""
    _control(Action.PAUSE, what, why, who, yes=yes, as_json=as_json)


@app.command()
def resume(
    what: What, why: Why, who: Who = None, yes: Yes = False, as_json: AsJson = False
) -> None:
    """Go on where it was paused: all that waited is later by the length of the pause."""
    _control(Action.RESUME, what, why, who, yes=yes, as_json=as_json)


@app.command()
def cancel(
    what: What, why: Why, who: Who = None, yes: Yes = False, as_json: AsJson = False
) -> None:
    """Send nothing more of it, ever: what waits is SUPPRESSED."""
    _control(Action.CANCEL, what, why, who, yes=yes, as_json=as_json)


def document(report: "Report") -> dict[str, Any]:
    """What was done, as JSON takes it."""
    told: dict[str, Any] = json.loads(json.dumps(asdict(report), default=str))
    return told


def show(told: dict[str, Any]) -> None:
    """A line for each event, and what was left alone."""
    for one in told["events"]:
        name = f"{one['campaign'] or 'one mail'} ({one['event_id']})"
        if one["refused"] is not None:
            console.print(
                f"left alone: {one['refused']}", highlight=False, markup=False, soft_wrap=True
            )
            continue
        of = one["tally"]
        again = f" ({_DONE[Action(told['action'])]} already)" if one["again"] else ""
        counts = ", ".join(
            f"{of[state]:,} {state}"
            for state in ("sent", "open", "parked", "suppressed", "failed", "unknown")
            if of[state] or state in {"sent", "open"}
        )
        done = _DONE[Action(told["action"])]
        console.print(
            f"{name} is {done}{again}: {counts} of {of['planned']:,} planned",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
    if told["later"]:
        console.print(
            f"{told['later']:,} of its events are due later and go on: name one by its id",
            soft_wrap=True,
        )


def _control(
    action: Action, what: str, why: str, who: str | None, *, yes: bool, as_json: bool
) -> None:
    from marketing_pipeline.delivery import holding

    said = Said(why=why, who=undecided.login() if who is None else who)
    if action is Action.CANCEL and not yes and sys.stdin.isatty():
        typer.confirm(f"Cancel {what} for good?", abort=True)
    progress_to = Console(stderr=True)
    with Progress(
        TextColumn("effects moved"),
        BarColumn(),
        MofNCompleteColumn(),
        console=progress_to,
        transient=True,
        disable=as_json or not progress_to.is_terminal,
    ) as progress:
        bar = progress.add_task(str(action), total=None)
        report = ask(
            lambda conn: holding.control(
                conn, action, what, said, lambda moved: progress.advance(bar, moved)
            )
        )
    told = document(report)
    if as_json:
        print(json.dumps(told))
    else:
        show(told)
