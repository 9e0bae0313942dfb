"""Lots that are drawn by hash, and what a trigger to one person means."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketing_pipeline.domain import digest, rules, sequence
from marketing_pipeline.domain.audience import Audience
from marketing_pipeline.domain.event import Event, EventType, Origin
from marketing_pipeline.domain.rules import (
    Campaign,
    Priority,
    Rules,
    Sequence,
    SequenceStep,
    TemplateRef,
    Unplannable,
    Variant,
)

NOW = datetime(2026, 3, 1, 9, tzinfo=UTC)
A, B, C = (TemplateRef(hash=letter * 64, reads=()) for letter in "abc")
PEOPLE = [str(uuid5(digest.NAMESPACE, str(number))) for number in range(4000)]


def split(*shares: float, holdout: float = 0.0, salt: str = "spring") -> Campaign:
    variants = tuple(
        Variant(template=template, name=name, share=share)
        for template, name, share in zip((A, B, C), "abc", shares, strict=False)
    )
    return Campaign(audience=Audience(), variants=variants, split=salt, holdout=holdout)


def drawn(campaign: Campaign) -> dict[str, str | None]:
    found = {person: campaign.variant_of(person) for person in PEOPLE}
    return {person: one.name if one else None for person, one in found.items()}


@pytest.mark.parametrize(
    ("campaign", "expected"),
    [
        (split(0.5, 0.5), {"a": 0.5, "b": 0.5}),
        (split(0.2, 0.3, 0.5), {"a": 0.2, "b": 0.3, "c": 0.5}),
        (split(0.5, 0.5, holdout=0.2), {None: 0.2, "a": 0.4, "b": 0.4}),
        (split(1.0, 0.0), {"a": 1.0}),
        (split(1.0, holdout=0.1), {None: 0.1, "a": 0.9}),
    ],
)
def test_each_gets_about_its_share(campaign: Campaign, expected: dict[str | None, float]) -> None:
    counts = Counter(drawn(campaign).values())
    assert counts.keys() == expected.keys()
    for name, share in expected.items():
        # Four standard deviations: the people are fixed, so this holds or it does not.
        assert (
            abs(counts[name] / len(PEOPLE) - share) < 4 * (share * (1 - share) / 4000) ** 0.5 + 1e-9
        )


def test_shares_that_are_not_kept_would_be_found_out() -> None:
    with pytest.raises(AssertionError):
        test_each_gets_about_its_share(split(0.6, 0.4), {"a": 0.5, "b": 0.5})


def test_other_shares_move_nobody_out_of_the_holdout() -> None:
    held = {person for person, name in drawn(split(0.5, 0.5, holdout=0.3)).items() if name is None}
    again = drawn(split(0.1, 0.9, holdout=0.3))
    assert held == {person for person, name in again.items() if name is None}


def test_another_salt_draws_anew() -> None:
    before, after = drawn(split(0.5, 0.5)), drawn(split(0.5, 0.5, salt="summer"))
    same = sum(before[person] == after[person] for person in PEOPLE)
    assert 0.4 < same / len(PEOPLE) < 0.6


@given(st.uuids(), st.floats(0, 0.9), st.floats(0, 1))
def test_a_lot_is_the_same_whenever_it_is_drawn(person: UUID, holdout: float, share: float) -> None:
    campaign = split(share, 1 - share, holdout=holdout)
    first = campaign.variant_of(str(person))
    assert campaign.variant_of(str(person)) is first
    assert first is None or first.name in "ab"


SEQUENCE = Sequence(
    version="v1",
    on=EventType.LEAD_CAPTURE,
    audience=Audience(),
    steps=(
        SequenceStep(name="tips", after=timedelta(days=2), template=A),
        SequenceStep(name="offer", after=timedelta(days=3), template=B),
    ),
    priority=Priority.NORMAL,
)
RULES = Rules(
    digest="d" * 64,
    routes={},
    campaigns={"news": split(1.0)},
    sequences={"onboarding": SEQUENCE},
    templates={"welcome": C},
)
LEAD = Event(
    id=UUID(int=1),
    seq=1,
    type=EventType.LEAD_CAPTURE,
    payload={},
    source="web",
    origin=Origin.LIVE,
    scheduled_at=NOW,
    recipient_id=UUID(int=2),
)


def trigger(**payload: Any) -> Event:
    return replace(LEAD, type=EventType.CAMPAIGN_TRIGGER, payload=payload, recipient_id=None)


def follow(event: Event, by: Rules = RULES, *, mailed: bool = True) -> list[Any]:
    return list(sequence.follow_ups(event, by, mailed=mailed, now=NOW))


def as_recorded(new: Any) -> Event:
    return replace(
        LEAD, id=new.id, type=new.type, payload=new.payload, scheduled_at=new.scheduled_at
    )


def test_a_sequence_goes_on_step_by_step_and_ends() -> None:
    [tips] = follow(LEAD)
    assert (tips.type, tips.scheduled_at) == (EventType.CAMPAIGN_TRIGGER, NOW + timedelta(days=2))
    assert tips.caused_by == LEAD.id
    [offer] = follow(as_recorded(tips))
    assert offer.scheduled_at == NOW + timedelta(days=5)
    assert offer.payload["origin"] == str(LEAD.id)
    assert offer.payload["recipient"] == str(LEAD.recipient_id)
    assert follow(as_recorded(offer)) == []


def test_each_step_is_recorded_once_however_often_it_is_planned() -> None:
    [first], [again] = follow(LEAD), follow(LEAD)
    assert first.idempotency_key == again.idempotency_key
    [other_lead] = follow(replace(LEAD, id=UUID(int=9)))
    assert other_lead.idempotency_key != first.idempotency_key
    edited = replace(RULES, sequences={"onboarding": replace(SEQUENCE, version="v2")})
    [other_version] = follow(LEAD, edited)
    assert other_version.idempotency_key != first.idempotency_key


def test_who_gets_no_mail_in_a_step_has_left_the_sequence() -> None:
    [tips] = follow(LEAD)
    assert follow(as_recorded(tips), mailed=False) == []


def test_history_begins_no_sequence() -> None:
    assert follow(replace(LEAD, origin=Origin.HISTORY)) == []


def test_a_step_means_a_campaign_to_one_person() -> None:
    [tips] = follow(LEAD)
    event = as_recorded(tips)
    assert rules.person_of(event) == str(LEAD.recipient_id)
    campaign = rules.campaign_of(event, RULES)
    assert campaign.variants == (Variant(template=A),)
    assert campaign.priority is Priority.NORMAL


def test_a_test_means_a_template_for_one_person() -> None:
    event = trigger(campaign="test", template="welcome", recipient=str(UUID(int=2)))
    assert rules.campaign_of(event, RULES).variants == (Variant(template=C),)


@pytest.mark.parametrize(
    ("payload", "told"),
    [
        ({"campaign": "nwes"}, "payload.campaign: no campaign 'nwes'; the file has: news"),
        ({"campaign": 7}, "payload.campaign: no campaign 7; the file has: news"),
        (
            {"campaign": "x", "recipient": "p", "sequence": "gone", "step": "tips"},
            "payload.sequence: no sequence 'gone'; the file has: onboarding",
        ),
        (
            {"campaign": "x", "recipient": "p", "sequence": "onboarding", "step": "gone"},
            "payload.step: no step 'gone'; the file has: offer, tips",
        ),
        (
            {"campaign": "x", "recipient": "p", "template": "gone"},
            "payload.template: no template 'gone'; the file has: welcome",
        ),
        (
            {"campaign": "news", "recipient": "p"},
            "payload.sequence: no sequence None; the file has: onboarding",
        ),
    ],
)
def test_what_the_file_does_not_have_is_told(payload: dict[str, Any], told: str) -> None:
    with pytest.raises(Unplannable) as refusal:
        rules.campaign_of(trigger(**payload), RULES)
    assert str(refusal.value) == told
