"""From an event to its effects: pure, so that a replay plans what the run planned."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Any
from uuid import UUID

from marketing_pipeline.domain import digest
from marketing_pipeline.domain.audience import Audience, Member
from marketing_pipeline.domain.effect import EffectKind
from marketing_pipeline.domain.event import Event, EventType, Origin

# Of the planning below; stored with each plan, so that a replay plans as that version did. Under 1
# the person was a part of the identity of a lead's effects, too.
VERSION = 2


class Priority(IntEnum):
    """What goes first where the gate lets few through; a smallint in SQL."""

    URGENT = 0  # somebody is waiting for it: a welcome mail
    NORMAL = 1
    BULK = 2  # a campaign


class Unplannable(ValueError):
    """This event can never be planned as the configuration stands; says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateRef:
    """A template by content: its hash, and the variables it reads."""

    hash: str
    reads: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Once:
    """A person gets this step once, whatever number of events call for it."""

    within: timedelta | None  # None: for ever


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One effect that an event type calls for."""

    step: str
    provider: str
    kind: EffectKind
    priority: Priority
    template: TemplateRef | None = None  # an e-mail's; a campaign's mail takes the campaign's own
    properties: Mapping[str, str] = field(default_factory=dict)  # a contact's: theirs -> ours
    once: Once | None = None  # None: once for each event, which an effect's identity sees to
    max_age: timedelta | None = None  # not sent any more when so much later than it was due


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """Who is mailed what."""

    audience: Audience
    template: TemplateRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """All that planning takes from the configuration, and its digest."""

    digest: str
    routes: Mapping[EventType, tuple[Route, ...]]
    campaigns: Mapping[str, Campaign]


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


def campaign_of(event: Event, rules: Rules) -> Campaign:
    """The campaign that a CAMPAIGN_TRIGGER names.

    Raises:
        Unplannable: the configuration has none of that name.
    """
    name = event.payload["campaign"]
    if name not in rules.campaigns:
        known = ", ".join(sorted(rules.campaigns)) or "none"
        raise Unplannable(f"payload.campaign: no campaign {name!r}; the file has: {known}")
    return rules.campaigns[name]


def needs_audience(event: Event) -> bool:
    return event.type is EventType.CAMPAIGN_TRIGGER and event.origin is Origin.LIVE


def effects(
    event: Event, rules: Rules, epoch: int, audience: Iterable[Member], version: int = VERSION
) -> Iterator[PlannedEffect]:
    """The effects of an event, in a stable order.

    `audience` is read only where `needs_audience` says so, once for each route, so it must be
    re-iterable; its members come in a stable order. A stored plan is redone by its own version.

    Raises:
        Unplannable: the event names what the configuration does not have.
    """
    if event.origin is Origin.HISTORY:
        return  # what is imported has happened already
    for route in rules.routes[event.type]:
        match event.type:
            case EventType.CAMPAIGN_TRIGGER:
                template = campaign_of(event, rules).template
                for member in audience:
                    variables = _read(template, member.attributes)
                    person = UUID(member.recipient_id)
                    yield _effect(event, epoch, route, person, template, variables, version)
            case EventType.LEAD_CAPTURE:
                variables = _lead_variables(route, event.payload)
                own, lead = route.template, event.recipient_id
                yield _effect(event, epoch, route, lead, own, variables, version)
            case EventType.CONTENT_PUBLISH:
                yield _effect(event, epoch, route, None, None, event.payload, version)


def _lead_variables(route: Route, payload: Mapping[str, Any]) -> Mapping[str, Any]:
    if route.template is not None:
        return _read(route.template, payload)
    return {
        theirs: _text(payload[ours])
        for theirs, ours in route.properties.items()
        if payload.get(ours) is not None
    }


def _read(template: TemplateRef, attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    """Only what the template reads: a person's data is copied no further than needed."""
    return {name: attributes[name] for name in template.reads if name in attributes}


def _text(value: object) -> str:
    return value if isinstance(value, str) else digest.canonical(value).decode()


def _effect(
    event: Event,
    epoch: int,
    route: Route,
    recipient_id: UUID | None,
    template: TemplateRef | None,
    variables: Mapping[str, Any],
    version: int,
) -> PlannedEffect:
    person = recipient_id and str(recipient_id)
    # A lead's person is told by the event. Their own id is random: a lead that is new to a restored
    # log and posted again would get another one, and with it other effects.
    named = version == 1 or event.type is EventType.CAMPAIGN_TRIGGER
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
    once, due_at = route.once, event.scheduled_at
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
        once_key=f"{event.type}/{route.step}/{route.kind}/{epoch}/{person}" if once else None,
        once_until=due_at + once.within if once and once.within else None,
    )
