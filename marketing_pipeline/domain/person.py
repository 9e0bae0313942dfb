"""A person as the log knows them: everything that was said of them and done, up to a cut."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple


class Behaviour(StrEnum):
    """What a person did, or what came of mailing them; spelled as in `feedback.kind`."""

    MAILED = "mailed"  # a provider has taken a mail for them: from the ledger
    DELIVERED = "delivered"
    OPENED = "opened"
    CLICKED = "clicked"
    BOUNCED = "bounced"
    COMPLAINED = "complained"


class LeadFact(NamedTuple):
    """What one LEAD_CAPTURE says of a person.

    A tuple with the id as text, which sorts as the id does: a campaign goes through a million.
    """

    seq: int
    recipient_id: str
    source: str
    attributes: Mapping[str, Any]


class Traits(NamedTuple):
    """What the log says of people besides what they told us, up to the cut; by person."""

    suppressed: Mapping[str, str]  # why they must not be mailed
    did: Mapping[str, Mapping[Behaviour, datetime]]  # when last


NOTHING = Traits({}, {})


class Member(NamedTuple):
    """A person as all their facts up to the cut describe them."""

    recipient_id: str
    seq: int  # of their latest fact
    sources: frozenset[str]
    attributes: Mapping[str, Any]
    told: Sequence[Mapping[str, Any]] = ()  # each fact's, oldest first


def fold(facts: Iterable[LeadFact]) -> Iterator[Member]:
    """People, one after the other, of facts by recipient and of each in order of seq.

    A later fact overrides an earlier one attribute by attribute.
    """
    return (_member(list(own)) for _, own in groupby(facts, _recipient))


_recipient = attrgetter("recipient_id")


def _member(facts: Sequence[LeadFact]) -> Member:
    """One person's facts, oldest first."""
    seq, recipient_id, source, attributes = facts[-1]
    if len(facts) == 1:
        return Member(recipient_id, seq, frozenset((source,)), attributes, (attributes,))
    sources = frozenset(fact.source for fact in facts)
    said = {name: value for fact in facts for name, value in fact.attributes.items()}
    return Member(recipient_id, seq, sources, said, [fact.attributes for fact in facts])


def tags(person: Member) -> frozenset[str]:
    """All tags of their facts' `tags`; one written `-name` takes `name` away again."""
    found: set[str] = set()
    for said in person.told:
        given = said.get("tags")
        for tag in given if isinstance(given, list) else ():
            if isinstance(tag, str) and tag.startswith("-"):
                found.discard(tag[1:])
            elif isinstance(tag, str):
                found.add(tag)
    return frozenset(found)


def consents(person: Member) -> frozenset[str]:
    """The purposes of their facts' `consent` that were last said to be true; nothing is implied."""
    last: dict[str, Any] = {}
    for said in person.told:
        given = said.get("consent")
        if isinstance(given, dict):
            last |= given
    return frozenset(purpose for purpose, agreed in last.items() if agreed is True)
