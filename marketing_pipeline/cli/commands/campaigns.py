"""`marketing-pipeline plan`, `approve`, `replay` and their kind: what is sent to whom, and when."""

import json
import os
import sys
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from marketing_pipeline.cli import asking
from marketing_pipeline.cli.asking import AsJson
from marketing_pipeline.event_log.location import locate

app = typer.Typer()
command = partial(app.command, rich_help_panel="Campaigns")
console = Console()


@command()
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


@command()
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


@command(name="send-test")
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


@command()
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


@command()
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


@command()
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


@command()
def campaigns(as_json: AsJson = False) -> None:
    """When each campaign is due, what became of its last time, and which steps are to come."""
    from marketing_pipeline.cli import campaigning

    told = campaigning.overview(datetime.now(UTC))
    if as_json:
        print(json.dumps(told))
    else:
        campaigning.show(console, told)


@command()
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
