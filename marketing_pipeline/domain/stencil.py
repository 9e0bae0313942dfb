"""What the effects of a campaign's step share, taken once, so that a million are made quickly."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from json.encoder import encode_basestring
from typing import Any

from marketing_pipeline.domain import digest, plan
from marketing_pipeline.domain.audience import Audience, Member
from marketing_pipeline.domain.event import Event
from marketing_pipeline.domain.plan import PlannedEffect, Route, Rules, TemplateRef

_quoted: Callable[[str], str] = encode_basestring  # as RFC 8785 wants a string
_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}  # RFC 9562, 4.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """What is the effects' own, in columns; the rest stands in their stencil."""

    ids: Sequence[str]
    people: Sequence[str]
    variables: Sequence[str]  # JSON
    lines: bytes  # of the plan's digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Stencil:
    """A step of a campaign, of which each member makes one effect.

    Says the same as `plan.effects`, which defines it: tests hold one to the other.
    """

    event: Event
    epoch: int
    route: Route
    template: TemplateRef
    version: int
    _named: "hashlib._Hash" = field(init=False, repr=False)  # of an identity up to the person
    _before: str = field(init=False, repr=False)  # of a line, between the id and the person
    _after: str = field(init=False, repr=False)  # of a line, between the person and the variables
    _names: tuple[tuple[str, str], ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        event, route = self.event, self.route
        own = [str(event.id), self.epoch, event.type, route.step, route.provider, route.kind]
        named = hashlib.sha1(digest.NAMESPACE.bytes, usedforsecurity=False)
        named.update(digest.canonical(own)[:-1] + b',"')
        before = digest.canonical([route.step, route.provider, route.kind]).decode()[1:-1]
        after = digest.canonical([int(route.priority), self.template.hash]).decode()[1:-1]
        reads = sorted(set(self.template.reads), key=lambda name: name.encode("utf-16-be"))
        object.__setattr__(self, "_named", named)
        object.__setattr__(self, "_before", f'",{before},"')
        object.__setattr__(self, "_after", f'",{after},{{')
        object.__setattr__(self, "_names", tuple((name, _quoted(name) + ":") for name in reads))

    def rows(self, members: Sequence[Member]) -> Rows:
        """One effect for each member.

        Raises:
            ValueError: a variable holds what RFC 8785 cannot express.
        """
        people = [member.recipient_id for member in members]
        ids = [self._identity(person) for person in people]
        said = [self._variables(member.attributes) for member in members]
        before, after = self._before, self._after
        lines = [
            f'["{identity}{before}{person}{after}{canonical}}}]\n'
            for identity, person, (canonical, _) in zip(ids, people, said, strict=True)
        ]
        return Rows(
            ids=ids,
            people=people,
            variables=[stored for _, stored in said],
            lines="".join(lines).encode(),
        )

    def effects(self, members: Iterable[Member]) -> Iterator[PlannedEffect]:
        """The same as whole effects, for the few that need more than their row."""
        only = Rules(
            digest="",
            routes={self.event.type: (self.route,)},
            campaigns={
                self.event.payload["campaign"]: plan.Campaign(
                    audience=Audience(), template=self.template
                )
            },
        )
        return plan.effects(self.event, only, self.epoch, list(members), self.version)

    def _identity(self, person: str) -> str:
        """UUIDv5 as `digest.identity` makes it."""
        named = self._named.copy()
        named.update(f'{person}"]'.encode())
        found = named.hexdigest()
        return (
            f"{found[:8]}-{found[8:12]}-5{found[13:16]}"
            f"-{_VARIANT[found[16]]}{found[17:20]}-{found[20:32]}"
        )

    def _variables(self, attributes: Mapping[str, Any]) -> tuple[str, str]:
        """Canonical members of a JSON object, and the object as the ledger keeps it.

        They differ where a value is a number: 1.0 stays 1.0 in the ledger, which templates see.
        """
        read = [(key, attributes[name]) for name, key in self._names if name in attributes]
        try:
            canonical = ",".join([key + _quoted(value) for key, value in read])
            return canonical, f"{{{canonical}}}"
        except TypeError:  # not all of them are text
            canonical = ",".join([key + digest.canonical(value).decode() for key, value in read])
            stored = ",".join([key + json.dumps(value) for key, value in read])
            return canonical, f"{{{stored}}}"


def stencils(event: Event, rules: Rules, epoch: int, version: int) -> list[Stencil]:
    """The steps of a campaign, in the order of its plan; none of one that plans nothing.

    Raises:
        Unplannable: the event names what the configuration does not have.
    """
    if not plan.needs_audience(event):
        return []
    template = plan.campaign_of(event, rules).template
    return [
        Stencil(event=event, epoch=epoch, route=route, template=template, version=version)
        for route in rules.routes[event.type]
    ]
