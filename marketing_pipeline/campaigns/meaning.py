"""What a version of the operator's file means, from the form in which the log keeps it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from marketing_pipeline.campaigns.rendering import Sender
from marketing_pipeline.domain import digest
from marketing_pipeline.domain.audience import Audience
from marketing_pipeline.domain.effect import EffectKind
from marketing_pipeline.domain.event import EventType
from marketing_pipeline.domain.person import Behaviour
from marketing_pipeline.domain.rules import (
    Campaign,
    Once,
    Priority,
    Route,
    Rules,
    Sequence,
    SequenceStep,
    TemplateRef,
    Variant,
)

Stored = Mapping[str, Any]  # JSON; nothing in it depends on the order of an object's members
Refs = Mapping[str, TemplateRef]


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """What a version of the file means for plans and renderings.

    `body` is its JSON form without secrets: what the log keeps under `rules.digest`, and what `of`
    makes the same value of again, years later.
    """

    body: Stored
    rules: Rules
    sender: Sender


def of(body: Stored) -> Meaning:
    """What a stored version meant; what later versions may say besides is simply not in it."""
    refs = {
        name: TemplateRef(hash=entry["hash"], reads=tuple(entry["reads"]))
        for name, entry in body["templates"].items()
    }
    audiences = {name: _audience(entry) for name, entry in body["audiences"].items()}
    rules = Rules(
        digest=digest.fingerprint(body),
        routes={
            EventType(type): tuple(_route(step, refs) for step in steps)
            for type, steps in body["routes"].items()
        },
        campaigns={
            name: _campaign(name, entry, audiences, refs)
            for name, entry in body["campaigns"].items()
        },
        sequences={
            name: _sequence(entry, audiences, refs)
            for name, entry in body.get("sequences", {}).items()
        },
        templates=refs,
    )
    return Meaning(body=body, rules=rules, sender=Sender(**body["sender"]))


def _route(step: Stored, refs: Refs) -> Route:
    once = step.get("once")
    return Route(
        step=step["step"],
        provider=step["provider"],
        kind=EffectKind(step["kind"]),
        priority=Priority[step["priority"].upper()],
        template=refs[step["template"]] if step["template"] else None,
        properties=step["properties"],
        once=None if once is None else Once(within=_seconds(once["within"])),
        max_age=_seconds(step.get("max_age")),
    )


def _audience(entry: Stored) -> Audience:
    tags = entry.get("tags", {})
    return Audience(
        sources=frozenset(entry["sources"]),
        where={
            name: tuple(value) if isinstance(value, list) else value
            for name, value in entry["where"].items()
        },
        newest=entry["newest"],
        consent=tuple(entry.get("consent", ())),
        tags=frozenset(tags.get("all", ())),
        any_tag=frozenset(tags.get("any", ())),
        no_tag=frozenset(tags.get("none", ())),
        did=_lately(entry.get("did", {})),
        did_not=_lately(entry.get("did_not", {})),
    )


def _lately(entry: Stored) -> dict[Behaviour, timedelta | None]:
    return {Behaviour(name): _seconds(within) for name, within in entry.items()}


def _campaign(name: str, entry: Stored, audiences: Mapping[str, Audience], refs: Refs) -> Campaign:
    split = entry.get("split")
    variants = (
        tuple(
            Variant(name=one["name"], template=refs[one["template"]], share=one["share"])
            for one in split["variants"]
        )
        if split
        else (Variant(template=refs[entry["template"]]),)
    )
    return Campaign(
        audience=audiences[entry["audience"]],
        variants=variants,
        split=f"{name}/{split['salt']}" if split else "",
        holdout=split["holdout"] if split else 0.0,
        pace=_seconds(entry.get("pace")) or timedelta(0),
        priority=_priority(entry),
        approve=entry.get("approve", False),
    )


def _sequence(entry: Stored, audiences: Mapping[str, Audience], refs: Refs) -> Sequence:
    whom = audiences[entry["audience"]] if entry["audience"] else Audience()
    stop = audiences[entry["stop_when"]] if entry["stop_when"] else None
    return Sequence(
        version=digest.fingerprint(entry)[:12],
        on=EventType(entry["on"]),
        audience=whom.but_not(stop) if stop else whom,
        steps=tuple(
            SequenceStep(
                name=step["step"],
                after=timedelta(seconds=step["after"]),
                template=refs[step["template"]],
            )
            for step in entry["steps"]
        ),
        priority=_priority(entry),
    )


def _priority(entry: Stored) -> Priority | None:
    return Priority[entry["priority"].upper()] if entry.get("priority") else None


def _seconds(stored: float | None) -> timedelta | None:
    return None if stored is None else timedelta(seconds=stored)
