"""What an audience may ask of people: consent, tags, behaviour, and why somebody is left out."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketing_pipeline.domain import audience
from marketing_pipeline.domain.audience import Audience, LeftOut, Why
from marketing_pipeline.domain.person import NOTHING, Behaviour, LeadFact, Traits

NOW = datetime(2026, 3, 1, 9, tzinfo=UTC)
DAY = timedelta(days=1)
ADA = str(UUID(int=1))


def facts(*said: Mapping[str, Any]) -> list[LeadFact]:
    """What Ada said, oldest first."""
    return [LeadFact(seq, ADA, "web", one) for seq, one in enumerate(said, start=1)]


def done(**when: datetime) -> Traits:
    return Traits({}, {ADA: {Behaviour(name): at for name, at in when.items()}})


def why(said: list[LeadFact], of: Audience, traits: Traits = NOTHING) -> tuple[Why, str] | None:
    """Why Ada is left out; None where she is not."""
    chosen, left = audience.sift(said, of, traits, NOW)
    assert len(chosen) + len(left) == 1, "everybody is one of both"
    return (left[0].why, left[0].detail) if left else None


@pytest.mark.parametrize(
    ("said", "agreed"),
    [
        ([{"consent": {"news": True}}], True),
        ([{"consent": {"news": True}}, {}], True),
        ([{"consent": {"news": True}}, {"consent": {"news": False}}], False),
        ([{"consent": {"news": False}}, {"consent": {"news": True}}], True),
        ([{"consent": {"news": True}}, {"consent": {"calls": False}}], True),
        ([{"consent": {"calls": True}}], False),
        ([{"consent": {"news": "yes"}}], False),
        ([{"consent": ["news"]}], False),
        ([{"consent": True}], False),
        ([{}], False),
    ],
)
def test_only_what_was_said_to_be_true_last_is_consent(said: list[Any], agreed: bool) -> None:
    expected = None if agreed else (Why.NO_CONSENT, "news")
    assert why(facts(*said), Audience(consent=("news",))) == expected


@pytest.mark.parametrize(
    ("said", "of", "unmet"),
    [
        ([{"tags": ["a", "b"]}], Audience(tags=frozenset("ab")), None),
        ([{"tags": ["a"]}, {"tags": ["b"]}], Audience(tags=frozenset("ab")), None),
        ([{"tags": ["a", "b"]}, {"tags": ["-a"]}], Audience(tags=frozenset("a")), "not tagged a"),
        ([{"tags": ["-a"]}, {"tags": ["a"]}], Audience(tags=frozenset("a")), None),
        ([{"tags": ["b"]}], Audience(any_tag=frozenset("ab")), None),
        ([{"tags": []}], Audience(any_tag=frozenset("ab")), "tagged none of a, b"),
        ([{"tags": ["c"]}], Audience(no_tag=frozenset("c")), "tagged c"),
        ([{"tags": "c"}], Audience(no_tag=frozenset("c")), None),
        ([{"tags": [1, None]}], Audience(tags=frozenset("a")), "not tagged a"),
    ],
)
def test_tags_add_up_until_they_are_taken_away(
    said: list[Any], of: Audience, unmet: str | None
) -> None:
    expected = None if unmet is None else (Why.FILTERED, unmet)
    assert why(facts(*said), of) == expected


@pytest.mark.parametrize(
    ("ago", "of", "unmet"),
    [
        (5 * DAY, Audience(did={Behaviour.OPENED: 7 * DAY}), None),
        (7 * DAY, Audience(did={Behaviour.OPENED: 7 * DAY}), "not opened within 7 days"),
        (900 * DAY, Audience(did={Behaviour.OPENED: None}), None),
        (None, Audience(did={Behaviour.OPENED: None}), "not opened"),
        (5 * DAY, Audience(did_not={Behaviour.OPENED: 7 * DAY}), "opened within 7 days"),
        (7 * DAY, Audience(did_not={Behaviour.OPENED: 7 * DAY}), None),
        (900 * DAY, Audience(did_not={Behaviour.OPENED: None}), "opened"),
        (None, Audience(did_not={Behaviour.OPENED: None}), None),
        (5 * DAY, Audience(did={Behaviour.CLICKED: None}), "not clicked"),
    ],
)
def test_lately_is_reckoned_from_the_cut(
    ago: timedelta | None, of: Audience, unmet: str | None
) -> None:
    traits = NOTHING if ago is None else done(opened=NOW - ago)
    assert why(facts({}), of, traits) == (None if unmet is None else (Why.FILTERED, unmet))


def test_an_attribute_may_be_one_of_a_list() -> None:
    of = Audience(where={"country": ("DE", "AT")})
    assert why(facts({"country": "AT"}), of) is None
    assert why(facts({"country": "CH"}), of) == (Why.FILTERED, "where country")


def test_who_is_suppressed_is_left_out_with_the_reason() -> None:
    assert why(facts({}), Audience(), Traits({ADA: "left"}, {})) == (Why.SUPPRESSED, "left")


def test_a_sequence_stops_for_whoever_has_come_to_belong_elsewhere() -> None:
    of = Audience().but_not(Audience(did={Behaviour.CLICKED: None}))
    assert why(facts({}), of) is None
    assert why(facts({}), of, done(clicked=NOW)) == (
        Why.STOPPED,
        "what ends it has come to pass",
    )
    suppressed = Traits({ADA: "left"}, done(clicked=NOW).did)
    assert why(facts({}), of, suppressed)[0] is Why.STOPPED, "she has clicked all the same"


def test_a_condition_that_does_not_hold_is_told_before_a_suppression() -> None:
    """Whoever was never meant is not one of those whom a suppression has cost a mail."""
    of = Audience(sources=frozenset({"fair"}))
    assert why(facts({}), of, Traits({ADA: "left"}, {})) == (Why.FILTERED, "source")


LATELY = st.dictionaries(
    st.sampled_from(Behaviour), st.none() | st.sampled_from([DAY, 3 * DAY]), max_size=2
)
TAGS = st.frozensets(st.sampled_from("ab"), max_size=1)
audiences = st.builds(
    Audience,
    consent=st.sampled_from([(), ("news",)]),
    tags=TAGS,
    any_tag=TAGS,
    no_tag=TAGS,
    did=LATELY,
    did_not=LATELY,
)
saying = st.fixed_dictionaries(
    {},
    optional={
        "tags": st.lists(st.sampled_from(["a", "b", "-a", "-b"])),
        "consent": st.fixed_dictionaries({"news": st.booleans()}),
    },
)
doing = st.dictionaries(
    st.sampled_from(Behaviour), st.integers(0, 4).map(lambda days: NOW - days * DAY)
)


def belongs(said: list[Any], did: Mapping[Behaviour, datetime], of: Audience) -> bool:
    """The definition once more, from the newest fact backwards."""

    def tagged(tag: str) -> bool:
        for one in reversed(said):
            for given_tag in reversed(one.get("tags", [])):
                if given_tag in {tag, f"-{tag}"}:
                    return given_tag == tag
        return False

    def agreed(purpose: str) -> bool:
        given_last = [one["consent"][purpose] for one in said if "consent" in one]
        return bool(given_last) and given_last[-1]

    def lately(what: Behaviour, within: timedelta | None) -> bool:
        return what in did and (within is None or NOW - did[what] < within)

    return (
        all(map(agreed, of.consent))
        and all(map(tagged, of.tags))
        and (not of.any_tag or any(map(tagged, of.any_tag)))
        and not any(map(tagged, of.no_tag))
        and all(lately(*one) for one in of.did.items())
        and not any(lately(*one) for one in of.did_not.items())
    )


@given(st.lists(saying, min_size=1, max_size=4), doing, audiences)
def test_an_audience_is_what_its_conditions_say(
    said: list[Any], did: Mapping[Behaviour, datetime], of: Audience
) -> None:
    assert (why(facts(*said), of, Traits({}, {ADA: did})) is None) == belongs(said, did, of)


def test_the_definition_itself_would_find_a_fold_that_is_wrong() -> None:
    """The known-bad case: a later fact that is not looked at."""
    said = [{"consent": {"news": True}}, {"consent": {"news": False}}]
    of = Audience(consent=("news",))
    assert (why(facts(said[0]), of) is None) != belongs(said, {}, of)


@given(st.lists(st.tuples(st.integers(1, 6), saying), max_size=8), audiences, doing)
def test_everybody_is_mailed_or_left_out_for_one_reason(
    said: list[tuple[int, Any]], of: Audience, did: Mapping[Behaviour, datetime]
) -> None:
    log = sorted(
        (
            LeadFact(seq, str(UUID(int=person)), "web", one)
            for seq, (person, one) in enumerate(said)
        ),
        key=lambda fact: (fact.recipient_id, fact.seq),
    )
    everybody = sorted({fact.recipient_id for fact in log})
    traits = Traits(dict.fromkeys(everybody[::2], "left"), dict.fromkeys(everybody, did))
    chosen, left = audience.sift(log, of, traits, NOW)
    told = [member.recipient_id for member in chosen] + [one.person for one in left]
    assert sorted(told) == everybody
    assert not {one.recipient_id for one in chosen} & set(traits.suppressed)
    assert all(isinstance(one, LeftOut) and one.detail for one in left)
