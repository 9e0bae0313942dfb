"""What follows an event by itself, days later: the next step of a sequence."""

from collections.abc import Iterator
from datetime import datetime

from marketing_pipeline.domain import event as events
from marketing_pipeline.domain import rules
from marketing_pipeline.domain.event import Event, EventType, NewEvent, Origin
from marketing_pipeline.domain.rules import Rules, Sequence, SequenceStep

SOURCE = "sequence"  # of the events that are recorded for steps


def follow_ups(event: Event, by: Rules, *, mailed: bool, now: datetime) -> Iterator[NewEvent]:
    """The steps that are to follow this event: one of each sequence that it begins, or the next.

    Whoever was not `mailed` in a step has left the sequence: what ends it has come to pass, or they
    must not be reached. Each is a CAMPAIGN_TRIGGER whose key is made of the sequence's version, the
    step and the event that it began with, so that it is recorded once, whoever plans it again.
    """
    if event.origin is Origin.HISTORY:
        return
    if event.type is EventType.CAMPAIGN_TRIGGER:
        if mailed and (following := _next(event, by)):
            name, step = following
            origin, person = str(event.payload["origin"]), str(rules.person_of(event))
            yield _due(name, by.sequences[name], step, origin, person, event, now)
        return
    for name, sequence in sorted(by.sequences.items()):
        if sequence.on is event.type and sequence.steps:
            person = str(event.recipient_id)
            yield _due(name, sequence, sequence.steps[0], str(event.id), person, event, now)


def _next(event: Event, by: Rules) -> tuple[str, SequenceStep] | None:
    """The step after this event's, as the file has it now."""
    name = event.payload.get("sequence")
    if not isinstance(name, str) or name not in by.sequences:
        return None
    steps = by.sequences[name].steps
    places = [n for n, step in enumerate(steps) if step.name == event.payload.get("step")]
    if not places or places[0] + 1 == len(steps):
        return None
    return name, steps[places[0] + 1]


def _due(
    name: str,
    sequence: Sequence,
    step: SequenceStep,
    origin: str,
    person: str,
    after: Event,
    now: datetime,
) -> NewEvent:
    return events.new(
        type=EventType.CAMPAIGN_TRIGGER,
        payload={
            "campaign": name,
            "sequence": name,
            "step": step.name,
            "origin": origin,
            "recipient": person,
        },
        source=SOURCE,
        key=f"{name}/{sequence.version}/{step.name}/{origin}",
        now=now,
        scheduled_at=after.scheduled_at + step.after,
        caused_by=after.id,
    )
