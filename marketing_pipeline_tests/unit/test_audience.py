"""An audience is a fold over facts: properties that hold for every log."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from marketing_pipeline.domain import audience
from marketing_pipeline.domain.audience import Audience
from marketing_pipeline.domain.person import LeadFact, Member

Fold = Callable[[Iterable[LeadFact], Audience], list[Member]]

NAMES, VALUES, SOURCES = ("city", "plan"), ("a", "b", None), ("web", "fair")
attributes = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(VALUES))
audiences = st.builds(
    Audience,
    sources=st.frozensets(st.sampled_from(SOURCES)),
    where=attributes,
    newest=st.none() | st.integers(0, 4),
)
EVERYBODY = Audience()


@st.composite
def logs(draw: st.DrawFn) -> list[LeadFact]:
    """Facts of few people, so that they meet; by person, and of each in order of seq, with gaps."""
    seqs = sorted(draw(st.sets(st.integers(1, 40), max_size=12)))
    facts = [
        LeadFact(
            seq=seq,
            recipient_id=named(draw(st.integers(1, 5))),
            source=draw(st.sampled_from(SOURCES)),
            attributes=draw(attributes),
        )
        for seq in seqs
    ]
    return by_person(facts)


def named(person: int) -> str:
    return str(UUID(int=person))


def by_person(facts: Iterable[LeadFact]) -> list[LeadFact]:
    """As the log gives them."""
    return sorted(facts, key=lambda one: (one.recipient_id, one.seq))


def fact(seq: int, person: int, source: str = "web", **attributes: str) -> LeadFact:
    return LeadFact(seq=seq, recipient_id=named(person), source=source, attributes=attributes)


def people(found: Iterable[Member]) -> list[str]:
    return [one.recipient_id for one in found]


def expected(facts: list[LeadFact], of: Audience) -> set[str]:
    """The definition, by looking at each person's facts and not by folding."""
    chosen: dict[str, int] = {}
    for person in {one.recipient_id for one in facts}:
        own = [one for one in facts if one.recipient_id == person]
        said = {name: value for one in own for name, value in one.attributes.items()}
        if of.sources and not of.sources.intersection(one.source for one in own):
            continue
        if all(name in said and said[name] == value for name, value in of.where.items()):
            chosen[person] = max(one.seq for one in own)
    newest = sorted(chosen, key=lambda person: chosen[person], reverse=True)
    return set(newest if of.newest is None else newest[: of.newest])


def check(fold: Fold, facts: list[LeadFact], of: Audience, cut: int) -> None:
    """Everything that an audience promises."""
    facts = by_person(facts)
    found = fold(facts, of)
    ids = people(found)
    assert ids == sorted(set(ids)), "once each, in stable order"
    assert set(ids) == expected(facts, of)
    assert fold(iter(facts), of) == found, "the same facts give the same list"
    assert set(ids) <= set(people(fold(facts, replace(of, newest=None)))), "a limit only narrows"
    if of.newest is None:
        assert set(ids) <= set(people(fold(facts, EVERYBODY))), "a filter only narrows"
    before = [one for one in facts if one.seq <= cut]
    later = [one._replace(seq=one.seq + 1000) for one in facts]
    both = by_person(before + later)
    assert fold([one for one in both if one.seq <= cut], of) == fold(before, of)
    for member in fold(facts, EVERYBODY):
        own = [one for one in facts if one.recipient_id == member.recipient_id]
        assert member.seq == own[-1].seq
        assert member.sources == {one.source for one in own}
        for name, value in member.attributes.items():
            assert value == [one.attributes[name] for one in own if name in one.attributes][-1]


@given(logs(), audiences, st.integers(0, 41))
@example([fact(1, 2, city="a"), fact(2, 1), fact(3, 2, city="b")], Audience(newest=1), 2)
def test_an_audience_is_what_its_facts_say(facts: list[LeadFact], of: Audience, cut: int) -> None:
    check(audience.members, facts, of, cut)


@given(logs(), audiences, st.integers(1, 3))
def test_facts_of_others_change_nobody(facts: list[LeadFact], of: Audience, person: int) -> None:
    unlimited = replace(of, newest=None)
    own = [one for one in facts if one.recipient_id == named(person)]
    among_all = [m for m in audience.members(facts, unlimited) if m.recipient_id == named(person)]
    assert audience.members(own, unlimited) == among_all


def test_an_attribute_that_is_null_is_not_one_that_is_missing() -> None:
    of = Audience(where={"city": None})
    said = LeadFact(seq=1, recipient_id=named(1), source="web", attributes={"city": None})
    assert people(audience.members([said, fact(2, 2)], of)) == [named(1)]


def _oldest_wins(facts: Iterable[LeadFact], of: Audience) -> list[Member]:
    return audience.members(reversed(list(facts)), of)


def _in_order_of_arrival(facts: Iterable[LeadFact], of: Audience) -> list[Member]:
    return sorted(audience.members(facts, of), key=lambda member: member.seq)


def _last_fact_only(facts: Iterable[LeadFact], of: Audience) -> list[Member]:
    last = {one.recipient_id: one for one in facts}
    return audience.members(sorted(last.values(), key=lambda one: one.seq), of)


def _limit_before_filter(facts: Iterable[LeadFact], of: Audience) -> list[Member]:
    facts = list(facts)
    newest = people(audience.members(facts, Audience(newest=of.newest)))
    every = audience.members(facts, replace(of, newest=None))
    return [member for member in every if member.recipient_id in newest]


@pytest.mark.parametrize(
    ("wrong", "facts", "of"),
    [
        (_oldest_wins, [fact(1, 1, city="a"), fact(2, 1, city="b")], Audience(where={"city": "b"})),
        (_in_order_of_arrival, [fact(1, 2), fact(2, 1)], EVERYBODY),
        (_last_fact_only, [fact(1, 1, city="a"), fact(2, 1)], Audience(where={"city": "a"})),
        (
            _limit_before_filter,
            [fact(1, 1, city="a"), fact(2, 2, city="b")],
            Audience(where={"city": "a"}, newest=1),
        ),
    ],
)
def test_a_fold_that_is_wrong_would_be_found_out(
    wrong: Fold, facts: list[LeadFact], of: Audience
) -> None:
    check(audience.members, facts, of, 1)
    with pytest.raises(AssertionError):
        check(wrong, facts, of, 1)
