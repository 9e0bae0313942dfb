"""Tells the story of something: as one document for programs, as a tree for people."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from marketing_pipeline.cli import next_steps
from marketing_pipeline.cli.redaction import Redaction
from marketing_pipeline.event_log.story import Entry, EventStory, Standing, Story

WIDE = 160  # characters a line where nobody's terminal sets another width
_BULKY = ("config_digest", "digest", "fingerprint", "template")  # told whole to programs


def document(story: Story, asked: str, now: datetime) -> dict[str, Any]:
    """The story as JSON takes it. Addresses are left out, unless somebody asked by one."""
    shown = Redaction(asked=asked.strip().lower() if story.kind == "recipient" else None)
    return {
        "asked": asked,
        "found": story.kind,
        "events": [_event(one, now, shown) for one in story.events],
    }


def show(console: Console, told: Mapping[str, Any]) -> None:
    """A tree for each event: what happened in time order, and where everything stands."""
    if not told["events"]:
        console.print("nothing was recorded of this person, and nothing planned for them")
    for event in told["events"]:
        console.print(_tree(event))


def console() -> Console:
    """One that breaks no ids where a file or another program reads on."""
    usual = Console()
    return usual if usual.is_terminal else Console(width=WIDE)


def _event(one: EventStory, now: datetime, shown: Redaction) -> dict[str, Any]:
    fields = {
        name: value
        for name, value in asdict(one).items()
        if name not in {"effects", "entries", "id"}
    }
    told = {"id": str(one.id)} | {name: shown.value(value) for name, value in fields.items()}
    told["next"] = shown.text(next_steps.of_event(one, now))
    told["effects"] = [_effect(effect, now, shown) for effect in one.effects]
    told["entries"] = [_entry(entry, shown) for entry in one.entries]
    return told


def _effect(one: Standing, now: datetime, shown: Redaction) -> dict[str, Any]:
    fields = asdict(one)
    del fields["setup"]  # the operator's options concern nobody here
    told = {name: shown.value(value) for name, value in fields.items()}
    told["adapter"] = one.setup.get("adapter")
    told["reference"] = _reference(one.id, one.reference, shown)
    told["next"] = shown.text(next_steps.of_effect(one, now))
    return told


def _entry(one: Entry, shown: Redaction) -> dict[str, Any]:
    facts = {name: shown.value(value) for name, value in one.facts.items()}
    if one.effect_id is not None and "reference" in facts:
        facts["reference"] = _reference(one.effect_id, one.facts["reference"], shown)
    return {
        "at": one.at.astimezone(UTC).isoformat(),
        "what": one.what,
        "event_id": shown.value(one.event_id),
        "effect_id": shown.value(one.effect_id),
        "facts": facts,
    }


def _reference(effect_id: UUID, reference: str | None, shown: Redaction) -> str | None:
    """A Message-Id of ours looks like an address and is none."""
    if reference is None or reference.startswith(f"{effect_id}@"):
        return reference
    return shown.text(reference)


def _tree(event: Mapping[str, Any]) -> Tree:
    tree = Tree(Text(f"{event['type']} {event['id']}: {event['status']}", style="bold"))
    if event["causes"]:
        tree.add(Text(f"caused by {', '.join(event['causes'])}"))
    if event["caused"]:
        tree.add(Text(f"led to {', '.join(event['caused'])}"))
    names = {one["id"]: f"{one['step']} {one['id'][:8]}" for one in event["effects"]}
    for entry in event["entries"]:
        tree.add(_line(entry, names.get(entry["effect_id"])))
    for one in event["effects"]:
        name = f"{one['step']} ({one['provider']}) {one['id']}: {one['state']}"
        branch = tree.add(Text(name, style="bold"))
        if one["last_error"]:
            branch.add(Text(f"because {one['last_error']}"))
        branch.add(Text(f"next: {one['next']}"))
    if (untold := sum(event["states"].values()) - len(event["effects"])) > 0:
        states = ", ".join(f"{count:,} {state}" for state, count in event["states"].items())
        tree.add(Text(f"{untold:,} more effects; of all, {states}"))
    tree.add(Text(f"next: {event['next']}", style="bold"))
    return tree


def _line(entry: Mapping[str, Any], effect: str | None) -> Text:
    at = datetime.fromisoformat(entry["at"])
    line = Text(f"{at:%Y-%m-%d %H:%M:%S}.{at.microsecond // 1000:03d}  ", style="dim")
    line.append(f"{effect or 'event'}  " if entry["event_id"] else "", style="cyan")
    return line.append(_told(entry["what"], entry["facts"]), style="default")


def _told(what: str, facts: Mapping[str, Any]) -> str:
    match what:
        case "attempt":
            return _attempt(facts)
        case "intervention":
            return f'{facts["who"]} did `{facts["action"]}`: "{facts["why"]}"'
        case "resolved":
            return f'{facts["who"]} decided `{facts["action"]}`: "{facts["why"]}"'
        case "settled":
            return f"{facts['state']}: {facts['reason'] or facts['reference']}"
        case "feedback":
            detail = f": {facts['detail']}" if facts["detail"] else ""
            return f"{facts['provider']} tells: {facts['kind']}{detail}"
        case "suppressed":
            return f"the person must not be reached ({facts['scope']}): {facts['reason']}"
        case "paused":
            return f"{facts['provider']} paused until {facts['until']}: {facts['reason']}"
        case _:
            short = {
                name: str(value)[:12] if name in _BULKY else value
                for name, value in facts.items()
                if value is not None
            }
            return f"{what}: " + ", ".join(f"{name} {value}" for name, value in short.items())


def _attempt(facts: Mapping[str, Any]) -> str:
    name = f"call {facts['number']} ({facts['purpose'].replace('_', '-')})"
    if facts["outcome"] is None:
        return f"{name}: no answer is on record"
    status = f" {facts['status_code']}" if facts["status_code"] is not None else ""
    seconds = f" in {facts['seconds']:.3f} s" if facts["seconds"] is not None else ""
    reason = f": {facts['reason']}" if facts["reason"] else ""
    return f"{name}: {facts['outcome']}{status}{seconds}{reason}"
