"""Who an audience is: a filter over people as they were at a cut that never moves."""

import heapq
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple

from marketing_pipeline.domain import person as people
from marketing_pipeline.domain.person import NOTHING, Behaviour, LeadFact, Member, Traits


class Why(StrEnum):
    """Why somebody gets no mail of a campaign."""

    FILTERED = "filtered"  # a condition of the audience does not hold
    NO_CONSENT = "no consent"
    STOPPED = "stopped"  # what ends a sequence has come to pass
    SUPPRESSED = "suppressed"
    NOT_NEWEST = "not among the newest"
    HOLDOUT = "holdout"  # left out by lot, to compare with
    ALREADY_SENT = "already sent"  # `once` grants a single one


class LeftOut(NamedTuple):
    """Somebody who gets no mail, and why."""

    person: str
    why: Why
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Audience:
    """A filter over the people of the log; an empty part lets everybody through."""

    sources: frozenset[str] = frozenset()  # who captured them
    where: Mapping[str, Any] = field(default_factory=dict)  # equal; of a tuple, one of them
    consent: tuple[str, ...] = ()  # purposes, each of which they agreed to
    tags: frozenset[str] = frozenset()  # all of these
    any_tag: frozenset[str] = frozenset()
    no_tag: frozenset[str] = frozenset()
    did: Mapping[Behaviour, timedelta | None] = field(default_factory=dict)  # so lately; None: ever
    did_not: Mapping[Behaviour, timedelta | None] = field(default_factory=dict)
    newest: int | None = None  # only so many, by when they were last captured
    unless: "Audience | None" = None  # who belongs to that one does not belong to this one

    def but_not(self, other: "Audience") -> "Audience":
        """This one without those who belong to the other."""
        return replace(self, unless=other)

    @property
    def behaviours(self) -> frozenset[Behaviour]:
        """All that has to be known of people to tell who belongs."""
        inner = self.unless.behaviours if self.unless else frozenset()
        return frozenset(self.did) | frozenset(self.did_not) | inner

    @property
    def is_open(self) -> bool:
        """Does everybody belong, but for the newest?"""
        return self == Audience(newest=self.newest)


@dataclass(slots=True)
class Newest:
    """Finds where the newest so many people begin, in bounded memory."""

    many: int
    _seqs: list[int] = field(default_factory=list)  # a heap: of the newest so far

    def add(self, found: Iterable[Member]) -> None:
        for person in found:
            if len(self._seqs) < self.many:
                heapq.heappush(self._seqs, person.seq)
            elif self.many:
                heapq.heappushpop(self._seqs, person.seq)

    @property
    def since(self) -> float:
        """The seq of the oldest of them; no seq reaches that of none."""
        return self._seqs[0] if self._seqs else math.inf


def members(
    facts: Iterable[LeadFact],
    audience: Audience,
    traits: Traits = NOTHING,
    at: datetime | None = None,
) -> list[Member]:
    """An audience of facts that are given by recipient and of each in order of seq.

    Ordered by recipient, so that the same facts give the same list on any machine. `sift` says
    what `traits` and `at` are.
    """
    chosen, _ = sift(facts, audience, traits, at)
    if audience.newest is None:
        return chosen
    newest = Newest(audience.newest)
    newest.add(chosen)
    return [person for person in chosen if person.seq >= newest.since]


def sift(
    facts: Iterable[LeadFact],
    audience: Audience,
    traits: Traits = NOTHING,
    at: datetime | None = None,
) -> tuple[list[Member], list[LeftOut]]:
    """Who belongs to an audience, before only the newest of them are taken, and who does not.

    `at` is the cut's instant, from which "lately" is reckoned; an audience that asks for behaviour
    needs it, and its `traits`.
    """
    found = people.fold(facts)
    if audience.is_open and not traits.suppressed:
        return list(found), []
    chosen: list[Member] = []
    left: list[LeftOut] = []
    for person in found:
        reason = why_not(person, audience, traits, at)
        if reason is None:
            chosen.append(person)
        else:
            left.append(LeftOut(person.recipient_id, *reason))
    return chosen, left


def why_not(
    person: Member, audience: Audience, traits: Traits, at: datetime | None
) -> tuple[Why, str] | None:
    """Why a person does not belong to an audience; None where they do."""
    if (unmet := next(_unmet(person, audience, traits, at), None)) is not None:
        return Why.FILTERED, unmet
    if audience.consent and (missing := set(audience.consent) - people.consents(person)):
        return Why.NO_CONSENT, min(missing)
    if audience.unless is not None:
        done = Traits({}, traits.did)  # who is suppressed has still done what they did
        if why_not(person, audience.unless, done, at) is None:
            return Why.STOPPED, "what ends it has come to pass"
    if (reason := traits.suppressed.get(person.recipient_id)) is not None:
        return Why.SUPPRESSED, reason
    return None


def _unmet(
    person: Member, audience: Audience, traits: Traits, at: datetime | None
) -> Iterator[str]:
    """The conditions that do not hold of a person, in words."""
    if audience.sources and not person.sources & audience.sources:
        yield "source"
    for name, wanted in audience.where.items():
        if not _is(person.attributes.get(name, _MISSING), wanted):
            yield f"where {name}"
    if audience.tags or audience.any_tag or audience.no_tag:
        yield from _unmet_tags(people.tags(person), audience)
    done = traits.did.get(person.recipient_id, {})
    for behaviour, within in audience.did.items():
        if not _lately(done.get(behaviour), within, at):
            yield f"not {behaviour}{_span(within)}"
    for behaviour, within in audience.did_not.items():
        if _lately(done.get(behaviour), within, at):
            yield f"{behaviour}{_span(within)}"


def _unmet_tags(has: frozenset[str], audience: Audience) -> Iterator[str]:
    yield from (f"not tagged {tag}" for tag in sorted(audience.tags - has))
    if audience.any_tag and not audience.any_tag & has:
        yield f"tagged none of {', '.join(sorted(audience.any_tag))}"
    yield from (f"tagged {tag}" for tag in sorted(audience.no_tag & has))


_MISSING = object()


def _is(value: object, wanted: object) -> bool:
    return value in wanted if isinstance(wanted, tuple) else value == wanted


def _lately(last: datetime | None, within: timedelta | None, at: datetime | None) -> bool:
    if last is None or within is None:
        return last is not None
    assert at is not None, "who asks for behaviour says as of when"
    return last > at - within


def _span(within: timedelta | None) -> str:
    if within is None:
        return ""
    return f" within {str(within).removesuffix(', 0:00:00')}"  # whole days are days
