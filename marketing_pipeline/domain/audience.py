"""Who an audience is: a fold over the facts up to a cut that never moves."""

import heapq
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple


@dataclass(frozen=True, slots=True, kw_only=True)
class Audience:
    """A filter over the people of the log; an empty part lets everybody through."""

    sources: frozenset[str] = frozenset()  # who captured them
    where: Mapping[str, Any] = field(default_factory=dict)  # attributes that must be equal
    newest: int | None = None  # only so many, by when they were last captured


class LeadFact(NamedTuple):
    """What one LEAD_CAPTURE says of a person.

    A tuple with the id as text, which sorts as the id does: a campaign goes through a million.
    """

    seq: int
    recipient_id: str
    source: str
    attributes: Mapping[str, Any]


class Member(NamedTuple):
    """A person as all their facts up to the cut describe them."""

    recipient_id: str
    seq: int  # of their latest fact
    sources: frozenset[str]
    attributes: Mapping[str, Any]


@dataclass(slots=True)
class Newest:
    """Finds where the newest so many people begin, in bounded memory."""

    many: int
    _seqs: list[int] = field(default_factory=list)  # a heap: of the newest so far

    def add(self, people: Iterable[Member]) -> None:
        for person in people:
            if len(self._seqs) < self.many:
                heapq.heappush(self._seqs, person.seq)
            elif self.many:
                heapq.heappushpop(self._seqs, person.seq)

    @property
    def since(self) -> float:
        """The seq of the oldest of them; no seq reaches that of none."""
        return self._seqs[0] if self._seqs else math.inf


def members(facts: Iterable[LeadFact], audience: Audience) -> list[Member]:
    """Fold facts, given by recipient and of each in order of seq, into an audience's members.

    A later fact overrides an earlier one attribute by attribute. Ordered by recipient, so that
    the same facts give the same list on any machine.
    """
    chosen = list(candidates(facts, audience))
    if audience.newest is None:
        return chosen
    newest = Newest(audience.newest)
    newest.add(chosen)
    return [person for person in chosen if person.seq >= newest.since]


def candidates(facts: Iterable[LeadFact], audience: Audience) -> Iterator[Member]:
    """Who belongs to an audience, before only the newest of them are taken; streamed."""
    people = (_fold(list(own)) for _, own in groupby(facts, _recipient))
    if audience.sources or audience.where:
        return (person for person in people if _belongs(person, audience))
    return people


_recipient = attrgetter("recipient_id")


def _fold(facts: Sequence[LeadFact]) -> Member:
    """One person's facts, oldest first."""
    seq, recipient_id, source, attributes = facts[-1]
    if len(facts) == 1:
        return Member(recipient_id, seq, frozenset((source,)), attributes)
    sources = frozenset(fact.source for fact in facts)
    said = {name: value for fact in facts for name, value in fact.attributes.items()}
    return Member(recipient_id, seq, sources, said)


def _belongs(person: Member, audience: Audience) -> bool:
    if audience.sources and not person.sources & audience.sources:
        return False
    missing = object()
    return all(person.attributes.get(k, missing) == v for k, v in audience.where.items())
