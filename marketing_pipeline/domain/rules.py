"""What the operator's file means for planning: routes, campaigns, sequences."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import IntEnum
from typing import Any, TypeVar

from marketing_pipeline.domain import digest
from marketing_pipeline.domain.audience import Audience
from marketing_pipeline.domain.effect import EffectKind
from marketing_pipeline.domain.event import Event, EventType

_Named = TypeVar("_Named")


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
class Variant:
    """One of the mails that are tried against each other."""

    template: TemplateRef
    name: str = ""
    share: float = 1.0  # of those who are mailed


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """Who is mailed what."""

    audience: Audience
    variants: tuple[Variant, ...]  # whose shares come to 1
    split: str = ""  # what lots are drawn by, besides the person: another one draws anew
    holdout: float = 0.0  # share of the audience that is mailed nothing
    pace: timedelta = timedelta(0)  # between one mail and the next
    priority: Priority | None = None  # None: the route's
    approve: bool = False  # sent only as a plan that a person has approved

    def variant_of(self, person: str) -> Variant | None:
        """A person's variant, drawn by hash; None: they are held out.

        The holdout is drawn first: other shares move nobody into it or out of it.
        """
        if len(self.variants) == 1 and not self.holdout:
            return self.variants[0]
        drawn = digest.fraction("split", self.split, person)
        if drawn < self.holdout:
            return None
        drawn = (drawn - self.holdout) / (1 - self.holdout)
        for variant in self.variants[:-1]:
            if drawn < variant.share:
                return variant
            drawn -= variant.share
        return self.variants[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceStep:
    """A mail of a sequence, so long after what came before it."""

    name: str
    after: timedelta
    template: TemplateRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequence:
    """Mails that follow an event one after the other, until a condition holds."""

    version: str  # of what the file says of it
    on: EventType
    audience: Audience  # whom it is for, and with `unless` what ends it
    steps: tuple[SequenceStep, ...]
    priority: Priority | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """All that planning takes from the configuration, and its digest."""

    digest: str
    routes: Mapping[EventType, tuple[Route, ...]]
    campaigns: Mapping[str, Campaign]
    sequences: Mapping[str, Sequence] = field(default_factory=dict)
    templates: Mapping[str, TemplateRef] = field(default_factory=dict)


def person_of(event: Event) -> str | None:
    """Whom a CAMPAIGN_TRIGGER is for alone, as a sequence's step is; None: a whole audience."""
    found = event.payload.get("recipient") if event.type is EventType.CAMPAIGN_TRIGGER else None
    return found if isinstance(found, str) else None


def given(event: Event) -> Mapping[str, Any] | None:
    """The variables that the test of a template brings; None: it is no test."""
    if "template" not in event.payload:
        return None
    variables = event.payload.get("variables")
    return variables if isinstance(variables, dict) else {}


def campaign_of(event: Event, rules: Rules) -> Campaign:
    """The campaign that a CAMPAIGN_TRIGGER names.

    A step of a sequence and a test of a template are campaigns to one person.

    Raises:
        Unplannable: the configuration has none of that name.
    """
    payload = event.payload
    if person_of(event) is None:
        return _named(rules.campaigns, "campaign", payload)
    if "template" in payload:
        template = _named(rules.templates, "template", payload)
        return Campaign(audience=Audience(), variants=(Variant(template=template),))
    sequence = _named(rules.sequences, "sequence", payload)
    step = _named({one.name: one for one in sequence.steps}, "step", payload)
    return Campaign(
        audience=sequence.audience,
        variants=(Variant(template=step.template),),
        priority=sequence.priority,
    )


def _named(known: Mapping[str, _Named], what: str, payload: Mapping[str, Any]) -> _Named:
    name = payload.get(what)
    if not isinstance(name, str) or name not in known:
        names = ", ".join(sorted(known)) or "none"
        raise Unplannable(f"payload.{what}: no {what} {name!r}; the file has: {names}")
    return known[name]


def with_priority(route: Route, campaign: Campaign) -> Route:
    """The route as this campaign uses it."""
    return route if campaign.priority is None else replace(route, priority=campaign.priority)
