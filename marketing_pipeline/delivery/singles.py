"""Campaigns to one person: the steps of sequences, and tests of templates."""

from collections.abc import Mapping, Sequence
from itertools import groupby

from psycopg import AsyncConnection

from marketing_pipeline.domain import audience, plan, rules
from marketing_pipeline.domain.audience import Why
from marketing_pipeline.domain.event import Event
from marketing_pipeline.domain.person import Behaviour, LeadFact, Member, Traits
from marketing_pipeline.domain.rules import Rules, Unplannable
from marketing_pipeline.event_log import people
from marketing_pipeline.event_log.cuts import Cut

Known = Mapping[str, tuple[Sequence[LeadFact], Traits]]  # what the log says of some people


async def known(
    conn: AsyncConnection, events: Sequence[Event], by: Rules, cut: Cut | None
) -> Known:
    """What the log says up to the cut of those whom these events are for alone."""
    wanted: dict[str, frozenset[Behaviour]] = {}
    for event in events:
        person = rules.person_of(event)
        if person is not None and plan.needs_audience(event):
            wanted[person] = wanted.get(person, frozenset()) | _behaviours(event, by)
    if not wanted or cut is None:
        return {}
    found: dict[str, tuple[Sequence[LeadFact], Traits]] = {}
    facts = await people.people_of(conn, wanted, cut.seq)
    for person, own in groupby(facts, lambda fact: fact.recipient_id):
        told = list(own)
        found[person] = told, await people.traits(conn, told, wanted[person], cut.seq)
    return found


def members(
    event: Event, by: Rules, cut: Cut | None, found: Known
) -> tuple[list[Member], dict[str, int]]:
    """The one person, or why they get nothing, counted as for any audience.

    Raises:
        Unplannable: the event names what the rules do not have, or nobody.
    """
    campaign = rules.campaign_of(event, by)
    person = rules.person_of(event)
    given = rules.given(event)
    if given is not None and person not in found:  # a test goes to whom no lead is of, too
        return [Member(str(person), 0, frozenset(), given)], {}
    if cut is None or person is None or person not in found:
        raise Unplannable(f"payload.recipient: nothing is known of a person {person!r}")
    facts, traits = found[person]
    chosen, left = audience.sift(facts, campaign.audience, traits, cut.at)
    if given is not None:
        chosen = [one._replace(attributes={**one.attributes, **given}) for one in chosen]
    return chosen, {str(Why(one.why)): 1 for one in left}


def _behaviours(event: Event, by: Rules) -> frozenset[Behaviour]:
    try:
        return rules.campaign_of(event, by).audience.behaviours
    except Unplannable:  # said where it is planned
        return frozenset()
