"""Checks the operator's file: all that is wrong with it, or what it has and when it is next due."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import typer
from rich.console import Console
from rich.table import Table

from marketing_pipeline.campaigns import rendering
from marketing_pipeline.campaigns.document import ConfigError, Problem
from marketing_pipeline.campaigns.mailings import AudienceEntry, CampaignEntry, SequenceEntry
from marketing_pipeline.campaigns.schema import PipelineFile
from marketing_pipeline.delivery.assembly import Assembly, Destination, assemble
from marketing_pipeline.domain import occurrences
from marketing_pipeline.domain.effect import DeliveryClass
from marketing_pipeline.settings import Settings

_LETTERS = {DeliveryClass.KEYED: "A", DeliveryClass.SEARCHABLE: "B", DeliveryClass.BLIND: "C"}
_NEVER = "never again"


def check(
    console: Console, used: Settings, file: Path | None, now: datetime, *, as_json: bool
) -> int:
    """Show what is to be said of a file; returns the exit code, 2 where something is wrong."""
    chosen = used if file is None else replace(used, campaigns_file=file)
    try:
        told = document(assemble(chosen), now)
    except ConfigError as error:
        if as_json:
            print(json.dumps({"problems": [_problem(one) for one in error.problems]}))
        else:
            typer.echo("\n".join(map(str, error.problems)), err=True)
        return 2
    if as_json:
        print(json.dumps(told))
    else:
        show(console, told)
    return 0


def document(found: Assembly, now: datetime) -> dict[str, Any]:
    """What a file has, as JSON takes it; nothing of it is secret."""
    file = found.configuration.file
    return {
        "problems": [],
        "file": str(found.configuration.document.path),
        "version": found.configuration.meaning.rules.digest,
        "providers": {name: _provider(one) for name, one in found.destinations.items()},
        "routes": {
            str(type): [{"step": step.step, "provider": step.provider} for step in steps]
            for type, steps in file.routes.items()
        },
        "audiences": {name: _audience(one) for name, one in file.audiences.items()},
        "campaigns": {name: _campaign(one, now) for name, one in file.campaigns.items()},
        "sequences": {name: _sequence(one) for name, one in file.sequences.items()},
        "templates": {
            one.name: list(rendering.reads(one)) for one in found.configuration.templates.values()
        },
        "warnings": list(_warnings(file, now)),
        "notes": [
            f"{name}: {variable} is not set; until then its effects wait"
            for name, destination in found.destinations.items()
            for variable in destination.missing
        ],
    }


def _problem(one: Problem) -> dict[str, Any]:
    return {"file": str(one.path), "line": one.line, "where": one.where, "problem": one.text}


def _provider(one: Destination) -> dict[str, Any]:
    return {
        "adapter": one.entry.adapter,
        "class": _LETTERS[one.provider.contract.delivery_class],
        "kind": str(one.provider.kind),
    }


def _audience(one: AudienceEntry) -> list[str]:
    """The conditions that it sets."""
    return sorted(one.model_dump(exclude_defaults=True))


def _campaign(one: CampaignEntry, now: datetime) -> dict[str, Any]:
    return {
        "audience": one.audience,
        "templates": _templates_of(one),
        "approve": one.approve,
        "next": _next(one, now),
    }


def _templates_of(one: CampaignEntry) -> list[str]:
    if one.split is None:
        return [str(one.template)]
    return [variant.template for variant in one.split.variants.values()]


def _next(one: CampaignEntry, now: datetime) -> str | None:
    """The local time at which it is next due; None where somebody triggers it."""
    if one.schedule is None:
        return None
    occurrence = occurrences.next_after(one.schedule.schedule(), now)
    if occurrence is None:
        return _NEVER
    local = occurrence.instant.astimezone(ZoneInfo(one.schedule.timezone))
    return f"{local:%a} {local.isoformat(timespec='minutes')}"


def _sequence(one: SequenceEntry) -> dict[str, Any]:
    return {"on": str(one.on), "steps": [step.step for step in one.steps]}


def _warnings(file: PipelineFile, now: datetime) -> Iterator[str]:
    """What is right and yet hardly meant."""
    steps = [step for route in file.routes.values() for step in route]
    mails = [name for one in file.campaigns.values() for name in _templates_of(one)]
    mails += [step.template for one in file.sequences.values() for step in one.steps]
    mails += [step.template for step in steps if step.template is not None]
    asked = {one.audience for one in file.campaigns.values()}
    asked |= {
        name for one in file.sequences.values() for name in (one.audience, one.stop_when) if name
    }
    for section, known, uses in (
        ("providers", file.providers, {step.provider for step in steps}),
        ("templates", file.templates, set(mails)),
        ("audiences", file.audiences, asked),
    ):
        for name in sorted(known.keys() - uses):
            yield f"{section}.{name} is not used; use it, or leave it out"
    for name, campaign in file.campaigns.items():
        if _next(campaign, now) == _NEVER:
            yield f"campaigns.{name} is never due again; give it a time to come, or leave it out"


def show(console: Console, told: Mapping[str, Any]) -> None:
    """The same for people."""
    table = Table("what", "name", "which")
    for what, name, which in _rows(told):
        table.add_row(what, name, which)
    print(f"{told['file']} is in order")
    console.print(table)
    for warning in told["warnings"]:
        print(f"warning: {warning}")
    for note in told["notes"]:
        print(f"note: {note}")


def _rows(told: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    for name, one in told["providers"].items():
        yield "provider", name, f"{one['adapter']}, {one['kind']}, class {one['class']}"
    for type, steps in told["routes"].items():
        yield "route", type, ", ".join(f"{one['step']} by {one['provider']}" for one in steps)
    for name, conditions in told["audiences"].items():
        yield "audience", name, ", ".join(conditions) or "everybody"
    for name, one in told["campaigns"].items():
        when = f"next {one['next']}" if one["next"] else "when triggered"
        approved = ", once approved" if one["approve"] else ""
        mails = " or ".join(one["templates"])
        yield "campaign", name, f"{mails} to {one['audience']}, {when}{approved}"
    for name, one in told["sequences"].items():
        yield "sequence", name, f"after {one['on']}: {', '.join(one['steps'])}"
    for name, reads in told["templates"].items():
        yield "template", name, f"reads {', '.join(reads) or 'nothing'}"
