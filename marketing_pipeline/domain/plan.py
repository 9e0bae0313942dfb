"""From an event to its effects: pure, so that a replay plans what the run planned."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from marketing_pipeline.domain import digest, rules
from marketing_pipeline.domain.effect import EffectKind
from marketing_pipeline.domain.event import Event, EventType, Origin
from marketing_pipeline.domain.person import Member
from marketing_pipeline.domain.rules import Priority, Route, Rules, TemplateRef

# Of the planning below and of who is left out of it; stored with each plan, so that a replay plans
# as that version did. Under 1 the person was a part of the identity of a lead's effects, too. Up
# to 2 those who were suppressed were planned for, and suppressed when their turn came.
VERSION = 3
SIFTED = 3  # from this version on


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedEffect:
    """One row of a plan."""

    id: UUID
    step: str
    provider: str
    kind: EffectKind
    recipient_id: UUID | None
    ordering_key: str | None
    priority: Priority
    template: str | None
    variables: Mapping[str, Any]
    due_at: datetime
    expires_at: datetime | None  # not sent any more after this
    once_key: str | None  # effects that share it exclude each other
    once_until: datetime | None  # for how long; None: for ever, where there is a key

    def line(self) -> list[object]:
        """What the plan's digest is taken over."""
        recipient = self.recipient_id and str(self.recipient_id)
        return [
            str(self.id),
            self.step,
            self.provider,
            self.kind,
            recipient,
            int(self.priority),
            self.template,
            dict(self.variables),
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Making:
    """What the effects of an event have in common."""

    event: Event
    epoch: int
    version: int
    starts_at: datetime


def needs_audience(event: Event) -> bool:
    return event.type is EventType.CAMPAIGN_TRIGGER and event.origin is Origin.LIVE


def effects(
    event: Event,
    by: Rules,
    epoch: int,
    audience: Iterable[Member],
    version: int = VERSION,
    starts_at: datetime | None = None,
) -> Iterator[PlannedEffect]:
    """The effects of an event, in a stable order.

    `audience` is read only where `needs_audience` says so, once for each route, so it must be
    re-iterable; its members come in a stable order. A stored plan is redone by its own version.
    They come due at `starts_at`, which is when the event is due where it is left out.

    Raises:
        Unplannable: the event names what the configuration does not have.
    """
    if event.origin is Origin.HISTORY:
        return  # what is imported has happened already
    starts = event.scheduled_at if starts_at is None else starts_at
    making = _Making(event=event, epoch=epoch, version=version, starts_at=starts)
    match event.type:
        case EventType.CAMPAIGN_TRIGGER:
            yield from _campaign(making, by, audience)
        case EventType.LEAD_CAPTURE:
            for route in by.routes[event.type]:
                variables = _lead_variables(route, event.payload)
                lead = event.recipient_id
                yield _effect(making, route, lead, route.template, variables, starts)
        case EventType.CONTENT_PUBLISH:
            for route in by.routes[event.type]:
                yield _effect(making, route, None, None, event.payload, starts)


def _campaign(making: _Making, by: Rules, audience: Iterable[Member]) -> Iterator[PlannedEffect]:
    """Step by step, person by person; each a pace after the one before."""
    campaign = rules.campaign_of(making.event, by)
    due_at = making.starts_at
    for plain in by.routes[making.event.type]:
        route = rules.with_priority(plain, campaign)
        for member in audience:
            variant = campaign.variant_of(member.recipient_id)
            if variant is None:
                continue
            variables = read(variant.template, member.attributes)
            person = UUID(member.recipient_id)
            yield _effect(making, route, person, variant.template, variables, due_at)
            due_at += campaign.pace


def _lead_variables(route: Route, payload: Mapping[str, Any]) -> Mapping[str, Any]:
    if route.template is not None:
        return read(route.template, payload)
    return {
        theirs: _text(payload[ours])
        for theirs, ours in route.properties.items()
        if payload.get(ours) is not None
    }


def read(template: TemplateRef, attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    """Only what the template reads: a person's data is copied no further than needed."""
    return {name: attributes[name] for name in template.reads if name in attributes}


def _text(value: object) -> str:
    return value if isinstance(value, str) else digest.canonical(value).decode()


def once_key(event: Event, route: Route, epoch: int, person: str | None) -> str | None:
    """What effects share that exclude each other, on whatever events they follow."""
    if route.once is None:
        return None
    return f"{event.type}/{route.step}/{route.kind}/{epoch}/{person}"


def _effect(
    making: _Making,
    route: Route,
    recipient_id: UUID | None,
    template: TemplateRef | None,
    variables: Mapping[str, Any],
    due_at: datetime,
) -> PlannedEffect:
    event, epoch = making.event, making.epoch
    person = None if recipient_id is None else str(recipient_id)
    # A lead's person is told by the event. Their own id is random: a lead that is new to a restored
    # log and posted again would get another one, and with it other effects.
    named = making.version == 1 or event.type is EventType.CAMPAIGN_TRIGGER
    identity = digest.identity(
        event.id,
        epoch,
        event.type,
        route.step,
        route.provider,
        route.kind,
        person if named else None,
    )
    in_order = route.kind is EffectKind.CONTACT
    once = route.once
    return PlannedEffect(
        id=identity,
        step=route.step,
        provider=route.provider,
        kind=route.kind,
        recipient_id=recipient_id,
        ordering_key=f"{route.provider}:{person}" if in_order else None,
        priority=route.priority,
        template=template.hash if template else None,
        variables=variables,
        due_at=due_at,
        expires_at=None if route.max_age is None else due_at + route.max_age,
        once_key=once_key(event, route, epoch, person),
        once_until=due_at + once.within if once and once.within else None,
    )
