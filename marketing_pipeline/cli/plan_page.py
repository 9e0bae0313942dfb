"""Shows a plan: as tables for people."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from marketing_pipeline.delivery import plan_document


def show(console: Console, told: Mapping[str, Any]) -> None:
    """Tables for a terminal, and last what can be done with it."""
    console.print(f"[bold]{told['campaign']}[/] due {told['occurrence']}, event {told['event_id']}")
    console.print(
        f"as of {told['cut']['at']} (facts up to {told['cut']['seq']:,}), epoch {told['epoch']}"
    )
    mails = Table("step", "variant", "template", "provider", "people", title="who gets what")
    for one in told["mails"]:
        template, many = one["template_name"] or one["template"][:12], f"{one['people']:,}"
        mails.add_row(one["step"], one["variant"] or "-", template, one["provider"], many)
    console.print(mails)
    if told["reasons"]:
        left = Table("why", "detail", "people", title="who gets nothing")
        for one in told["reasons"]:
            left.add_row(one["why"], one["detail"], f"{one['people']:,}")
        console.print(left)
    for line in _lines(told):
        console.print(line, highlight=False, soft_wrap=True)


def _lines(told: Mapping[str, Any]) -> list[str]:
    command = plan_document.command(told)
    return [
        plan_document.since(told),
        f"{told['count']:,} mails, {plan_document.lasts(told)}, cost: {plan_document.cost(told)}",
        f"digest {told['digest']}",
        *plan_document.standing(told),
        *([command] if command else []),
    ]
