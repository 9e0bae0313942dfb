"""What the effects of a campaign's step share, taken once, so that a million are made quickly."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from json.encoder import encode_basestring
from typing import Any

from marketing_pipeline.domain import digest, plan, rules
from marketing_pipeline.domain.event import Event
from marketing_pipeline.domain.person import Member
from marketing_pipeline.domain.plan import PlannedEffect
from marketing_pipeline.domain.rules import Campaign, Route, Rules, TemplateRef

_quoted: Callable[[str], str] = encode_basestring  # as RFC 8785 wants a string
_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}  # RFC 9562, 4.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """What is the effects' own, in columns; the rest stands in their stencil."""

    ids: Sequence[str]
    people: Sequence[str]
    variables: Sequence[str]  # JSON
    templates: Sequence[str]  # hashes
    lines: bytes  # of the plan's digest


class _Text:
    """The constant parts of what a template's effects say."""

    __slots__ = ("after", "hash", "names")

    def __init__(self, route: Route, template: TemplateRef) -> None:
        after = digest.canonical([int(route.priority), template.hash]).decode()[1:-1]
        reads = sorted(set(template.reads), key=lambda name: name.encode("utf-16-be"))
        self.hash = template.hash
        self.after = f'",{after},{{'  # of a line, between the person and the variables
        self.names = tuple((name, _quoted(name) + ":") for name in reads)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stencil:
    """A step of a campaign, of which each member makes one effect.

    Says the same as `plan.effects`, which defines it: tests hold one to the other.
    """

    event: Event
    epoch: int
    route: Route
    campaign: Campaign
    version: int
    starts_at: datetime
    _named: "hashlib._Hash" = field(init=False, repr=False)  # of an identity up to the person
    _before: str = field(init=False, repr=False)  # of a line, between the id and the person
    _texts: Mapping[str, _Text] = field(init=False, repr=False)  # by template

    def __post_init__(self) -> None:
        event, route = self.event, self.route
        own = [str(event.id), self.epoch, event.type, route.step, route.provider, route.kind]
        named = hashlib.sha1(digest.NAMESPACE.bytes, usedforsecurity=False)
        named.update(digest.canonical(own)[:-1] + b',"')
        before = digest.canonical([route.step, route.provider, route.kind]).decode()[1:-1]
        texts = {
            variant.template.hash: _Text(route, variant.template)
            for variant in self.campaign.variants
        }
        object.__setattr__(self, "_named", named)
        object.__setattr__(self, "_before", f'",{before},"')
        object.__setattr__(self, "_texts", texts)

    def mailed(self, members: Sequence[Member]) -> Sequence[Member]:
        """Those of an audience whom the lot holds not out."""
        if not self.campaign.holdout:
            return members
        return [one for one in members if self.campaign.variant_of(one.recipient_id) is not None]

    def once_key(self, person: str) -> str:
        """What a person's effect shares with those that it excludes."""
        key = plan.once_key(self.event, self.route, self.epoch, person)
        assert key is not None, "asked for steps that have a `once` alone"
        return key

    def rows(self, members: Sequence[Member]) -> Rows:
        """One effect for each member, of whom none is held out.

        Raises:
            ValueError: a variable holds what RFC 8785 cannot express.
        """
        people = [member.recipient_id for member in members]
        ids = [self._identity(person) for person in people]
        texts = [self._text_of(person) for person in people]
        said = [
            _variables(text, member.attributes) for text, member in zip(texts, members, strict=True)
        ]
        before = self._before
        lines = [
            f'["{identity}{before}{person}{text.after}{canonical}}}]\n'
            for identity, person, text, (canonical, _) in zip(ids, people, texts, said, strict=True)
        ]
        return Rows(
            ids=ids,
            people=people,
            variables=[stored for _, stored in said],
            templates=[text.hash for text in texts],
            lines="".join(lines).encode(),
        )

    def effects(self, members: Sequence[Member], place: int) -> Iterator[PlannedEffect]:
        """The same as whole effects, for the few that need more than their row.

        `place` is how many effects of the plan come before.
        """
        only = Rules(
            digest="",
            routes={self.event.type: (self.route,)},
            campaigns={self.event.payload["campaign"]: self.campaign},
        )
        starts = self.starts_at + place * self.campaign.pace
        return plan.effects(self.event, only, self.epoch, members, self.version, starts)

    def _text_of(self, person: str) -> _Text:
        variant = self.campaign.variant_of(person)
        assert variant is not None, "those held out are left out before"
        return self._texts[variant.template.hash]

    def _identity(self, person: str) -> str:
        """UUIDv5 as `digest.identity` makes it."""
        named = self._named.copy()
        named.update(f'{person}"]'.encode())
        found = named.hexdigest()
        return (
            f"{found[:8]}-{found[8:12]}-5{found[13:16]}"
            f"-{_VARIANT[found[16]]}{found[17:20]}-{found[20:32]}"
        )


def _variables(text: _Text, attributes: Mapping[str, Any]) -> tuple[str, str]:
    """Canonical members of a JSON object, and the object as the ledger keeps it.

    They differ where a value is a number: 1.0 stays 1.0 in the ledger, which templates see.
    """
    said = [(key, attributes[name]) for name, key in text.names if name in attributes]
    try:
        canonical = ",".join([key + _quoted(value) for key, value in said])
        return canonical, f"{{{canonical}}}"
    except TypeError:  # not all of them are text
        canonical = ",".join([key + digest.canonical(value).decode() for key, value in said])
        stored = ",".join([key + json.dumps(value) for key, value in said])
        return canonical, f"{{{stored}}}"


def stencils(
    event: Event, by: Rules, epoch: int, version: int, starts_at: datetime | None = None
) -> list[Stencil]:
    """The steps of a campaign, in the order of its plan; none of one that plans nothing.

    Raises:
        Unplannable: the event names what the configuration does not have.
    """
    if not plan.needs_audience(event):
        return []
    campaign = rules.campaign_of(event, by)
    return [
        Stencil(
            event=event,
            epoch=epoch,
            route=rules.with_priority(route, campaign),
            campaign=campaign,
            version=version,
            starts_at=event.scheduled_at if starts_at is None else starts_at,
        )
        for route in by.routes[event.type]
    ]
