"""Who an audience is: a fold over the facts up to a cut that never moves."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class Audience:
    """A filter over the people of the log; an empty part lets everybody through."""

    sources: frozenset[str] = frozenset()  # who captured them
    where: Mapping[str, Any] = field(default_factory=dict)  # attributes that must be equal
    newest: int | None = None  # only so many, by when they were last captured


@dataclass(frozen=True, slots=True, kw_only=True)
class LeadFact:
    """What one LEAD_CAPTURE says of a person."""

    seq: int
    recipient_id: UUID
    source: str
    attributes: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A person as all their facts up to the cut describe them."""

    recipient_id: UUID
    seq: int  # of their latest fact
    sources: frozenset[str]
    attributes: Mapping[str, Any]


def members(facts: Iterable[LeadFact], audience: Audience) -> list[Member]:
    """Fold facts, given in order of seq, into the members of an audience.

    A later fact overrides an earlier one attribute by attribute. Ordered by recipient, so that
    the same facts give the same list on any machine.
    """
    people: dict[UUID, Member] = {}
    for fact in facts:
        before = people.get(fact.recipient_id)
        people[fact.recipient_id] = Member(
            recipient_id=fact.recipient_id,
            seq=fact.seq,
            sources=(before.sources if before else frozenset()) | {fact.source},
            attributes={**(before.attributes if before else {}), **fact.attributes},
        )
    chosen = [person for person in people.values() if _belongs(person, audience)]
    if audience.newest is not None:
        chosen = sorted(chosen, key=lambda person: -person.seq)[: audience.newest]
    return sorted(chosen, key=lambda person: person.recipient_id.int)


def _belongs(person: Member, audience: Audience) -> bool:
    if audience.sources and not person.sources & audience.sources:
        return False
    missing = object()
    return all(person.attributes.get(k, missing) == v for k, v in audience.where.items())
