"""From an event to its effects: properties that hold for every event and every file."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketing_pipeline.domain import digest, plan, stencil
from marketing_pipeline.domain.audience import Audience
from marketing_pipeline.domain.effect import EffectKind
from marketing_pipeline.domain.event import Event, EventType, Origin
from marketing_pipeline.domain.person import Member
from marketing_pipeline.domain.plan import PlannedEffect
from marketing_pipeline.domain.rules import (
    Campaign,
    Once,
    Priority,
    Route,
    Rules,
    TemplateRef,
    Unplannable,
    Variant,
)

Planning = Callable[[Event, Rules, int, Iterable[Member]], Iterable[PlannedEffect]]

NOW = datetime(2026, 3, 1, 9, tzinfo=UTC)
WELCOME = TemplateRef(hash="a" * 64, reads=("first_name",))
NEWS = TemplateRef(hash="b" * 64, reads=("first_name", "city"))
KINDS = {
    EventType.LEAD_CAPTURE: (EffectKind.CONTACT, EffectKind.EMAIL),
    EventType.CAMPAIGN_TRIGGER: (EffectKind.EMAIL,),
    EventType.CONTENT_PUBLISH: (EffectKind.POST,),
}
few = settings(max_examples=50)  # an example is a whole file and an event
spans = st.timedeltas(min_value=timedelta(seconds=1), max_value=timedelta(days=60))


@st.composite
def steps(draw: st.DrawFn, type: EventType) -> tuple[Route, ...]:
    """Steps of one event type; their names differ, which the file is checked for."""
    names = draw(st.lists(st.sampled_from("abcd"), min_size=1, max_size=4, unique=True))
    found = []
    for name in names:
        kind = draw(st.sampled_from(KINDS[type]))
        own = type is EventType.LEAD_CAPTURE and kind is EffectKind.EMAIL
        found.append(
            Route(
                step=name,
                provider=draw(st.sampled_from(("one", "two"))),
                kind=kind,
                priority=draw(st.sampled_from(Priority)),
                template=WELCOME if own else None,
                properties={"firstname": "first_name"} if kind is EffectKind.CONTACT else {},
                once=draw(st.none() | st.builds(Once, within=st.none() | spans)),
                max_age=draw(st.none() | spans),
            )
        )
    return tuple(found)


@st.composite
def files(draw: st.DrawFn) -> Rules:
    return Rules(
        digest="c" * 64,
        routes={type: draw(steps(type)) for type in EventType},
        campaigns={"news": Campaign(audience=Audience(), variants=(Variant(template=NEWS),))},
    )


@st.composite
def events(draw: st.DrawFn, origin: Origin | None = None) -> Event:
    type = draw(st.sampled_from(EventType))
    is_lead = type is EventType.LEAD_CAPTURE
    said: dict[str, Any] = {"first_name": draw(st.text(max_size=5)), "secret": "s"}
    return Event(
        id=draw(st.uuids()),
        seq=draw(st.integers(1, 10**6)),
        type=type,
        payload={"campaign": "news"} if type is EventType.CAMPAIGN_TRIGGER else said,
        source="web",
        origin=origin or draw(st.sampled_from(Origin)),
        scheduled_at=NOW + draw(st.timedeltas(timedelta(0), timedelta(days=30))),
        recipient_id=draw(st.uuids()) if is_lead else None,
    )


@st.composite
def crowds(draw: st.DrawFn) -> list[Member]:
    """Members as `audience.members` gives them: once each, by recipient."""
    return [
        Member(
            recipient_id=str(UUID(int=number)),
            seq=number,
            sources=frozenset({"web"}),
            attributes={"first_name": str(number), "secret": "s"},
        )
        for number in sorted(draw(st.sets(st.integers(1, 50), max_size=6)))
    ]


def check(planning: Planning, event: Event, rules: Rules, epoch: int, crowd: list[Member]) -> None:
    """Everything that a plan promises."""
    found = list(planning(event, rules, epoch, crowd))
    ids = [one.id for one in found]
    assert len(set(ids)) == len(ids), "an effect is one row"
    assert list(planning(event, rules, epoch, crowd)) == found, "a replay plans what the run did"
    if event.origin is Origin.HISTORY:
        assert found == [], "what is imported has happened already"
        return
    people: list[UUID | None] = [UUID(member.recipient_id) for member in crowd]
    if event.type is not EventType.CAMPAIGN_TRIGGER:
        people = [event.recipient_id]
    routes = rules.routes[event.type]
    wanted = [(route.step, person) for route in routes for person in people]
    assert [(one.step, one.recipient_id) for one in found] == wanted, (
        "step by step, person by person"
    )
    again = {one.id for one in planning(event, rules, epoch + 1, crowd)}
    assert again.isdisjoint(ids), "a new epoch makes new effects"
    other = replace(event, id=UUID(int=event.id.int ^ 1))
    assert {one.id for one in planning(other, rules, epoch, crowd)}.isdisjoint(ids)
    for one in found:
        [route] = [route for route in routes if route.step == one.step]
        _check_effect(one, event, route)


def _check_effect(one: PlannedEffect, event: Event, route: Route) -> None:
    assert (one.provider, one.kind, one.priority) == (route.provider, route.kind, route.priority)
    assert one.due_at == event.scheduled_at
    assert one.expires_at == (None if route.max_age is None else one.due_at + route.max_age)
    assert (one.once_key is None) == (route.once is None)
    within = route.once.within if route.once else None
    assert one.once_until == (None if within is None else one.due_at + within)
    assert (one.template is not None) == (one.kind is EffectKind.EMAIL)
    assert (one.ordering_key is not None) == (one.kind is EffectKind.CONTACT)
    if one.kind is not EffectKind.POST:
        assert "secret" not in one.variables, "a person's data goes no further than needed"


@few
@given(events(), files(), st.integers(0, 3), crowds())
def test_a_plan_is_stable_whole_and_without_doubles(
    event: Event, rules: Rules, epoch: int, crowd: list[Member]
) -> None:
    check(plan.effects, event, rules, epoch, crowd)


@few
@given(events(Origin.HISTORY), files(), crowds())
def test_history_plans_nothing_and_asks_for_no_audience(
    event: Event, rules: Rules, crowd: list[Member]
) -> None:
    assert list(plan.effects(event, rules, 0, crowd)) == []
    assert not plan.needs_audience(event)


@few
@given(events(Origin.LIVE), files(), crowds())
def test_every_effect_of_a_plan_weighs_in_its_digest(
    event: Event, rules: Rules, crowd: list[Member]
) -> None:
    lines = [one.line() for one in plan.effects(event, rules, 0, crowd)]
    whole = digest.running(lines)
    for place in range(len(lines)):
        assert digest.running(lines[:place] + lines[place + 1 :]) != whole


@few
@given(events(Origin.LIVE), files(), st.integers(0, 3))
def test_two_events_of_a_person_share_a_key_of_once_and_other_people_do_not(
    event: Event, rules: Rules, epoch: int
) -> None:
    if event.type is not EventType.LEAD_CAPTURE:
        return

    def keys(of: Event, in_epoch: int = epoch) -> list[str | None]:
        return [one.once_key for one in plan.effects(of, rules, in_epoch, [])]

    assert keys(replace(event, id=UUID(int=1), seq=event.seq + 1)) == keys(event)
    spoken = {key for key in keys(event) if key}
    assert len(spoken) == sum(key is not None for key in keys(event)), "steps do not share one"
    assert spoken.isdisjoint(keys(replace(event, recipient_id=UUID(int=1))))
    assert spoken.isdisjoint(keys(event, epoch + 1)), "a new epoch may reach them again"


def _campaign_event(payload: dict[str, Any]) -> Event:
    return Event(
        id=UUID(int=7),
        seq=1,
        type=EventType.CAMPAIGN_TRIGGER,
        payload=payload,
        source="web",
        origin=Origin.LIVE,
        scheduled_at=NOW,
        recipient_id=None,
    )


MAIL = Route(step="a", provider="one", kind=EffectKind.EMAIL, priority=Priority.BULK)
RULES = Rules(
    digest="c" * 64,
    routes={type: (MAIL, replace(MAIL, step="b")) for type in EventType},
    campaigns={"news": Campaign(audience=Audience(), variants=(Variant(template=NEWS),))},
)
CROWD = [
    Member(recipient_id=str(UUID(int=n)), seq=n, sources=frozenset(), attributes={"secret": "s"})
    for n in (1, 2)
]


def test_a_campaign_that_the_file_does_not_have_cannot_be_planned() -> None:
    with pytest.raises(Unplannable, match=r"payload\.campaign: no campaign 'old'; .*: news"):
        list(plan.effects(_campaign_event({"campaign": "old"}), RULES, 0, CROWD))


def _without_the_person(
    event: Event, rules: Rules, epoch: int, crowd: Iterable[Member]
) -> Iterator[PlannedEffect]:
    for one in plan.effects(event, rules, epoch, crowd):
        yield replace(one, id=UUID(int=event.id.int ^ ord(one.step) ^ epoch << 64))


def _without_the_epoch(
    event: Event, rules: Rules, _: int, crowd: Iterable[Member]
) -> Iterable[PlannedEffect]:
    return plan.effects(event, rules, 0, crowd)


def _by_chance(event: Event, rules: Rules, epoch: int, crowd: Iterable[Member]) -> Any:
    return sorted(plan.effects(event, rules, epoch, crowd), key=lambda one: one.id)


def _first_step_only(event: Event, rules: Rules, epoch: int, crowd: Iterable[Member]) -> Any:
    return [one for one in plan.effects(event, rules, epoch, crowd) if one.step == "a"]


def _everything_it_knows(
    event: Event, rules: Rules, epoch: int, crowd: Iterable[Member]
) -> Iterator[PlannedEffect]:
    for one in plan.effects(event, rules, epoch, crowd):
        yield replace(one, variables={"secret": "s"})


@pytest.mark.parametrize(
    "wrong",
    [_without_the_person, _without_the_epoch, _by_chance, _first_step_only, _everything_it_knows],
)
def test_a_planning_that_is_wrong_would_be_found_out(wrong: Planning) -> None:
    event = _campaign_event({"campaign": "news"})
    check(plan.effects, event, RULES, 0, CROWD)
    with pytest.raises(AssertionError):
        check(wrong, event, RULES, 0, CROWD)


def _lead_of(person: UUID) -> Event:
    return Event(
        id=UUID(int=7),
        seq=1,
        type=EventType.LEAD_CAPTURE,
        payload={"first_name": "Ada"},
        source="web",
        origin=Origin.LIVE,
        scheduled_at=NOW,
        recipient_id=person,
    )


LEADS = Rules(
    digest="c" * 64,
    routes={EventType.LEAD_CAPTURE: (replace(MAIL, template=WELCOME),)},
    campaigns={},
)


def test_a_leads_effects_are_the_same_whatever_its_person_is_called() -> None:
    """A lead that is new to a restored log and posted again is given another random person."""

    def ids(version: int) -> list[set[UUID]]:
        people = (UUID(int=1), UUID(int=2))
        return [
            {one.id for one in plan.effects(_lead_of(person), LEADS, 0, (), version)}
            for person in people
        ]

    first, again = ids(plan.VERSION)
    assert first == again
    first, again = ids(1)  # the known-bad case, and why there is a second version
    assert first.isdisjoint(again)


STORED = {  # digests as logs hold them
    1: "d5918452135e961eba33489280776fabe39d8ef895cd50f5a4094dccc928c1c2",
    2: "f52093ab24b67e7d1f28a5e129116f3c706c97fee6f85f5d0f40be33e425c1bf",
}
CAMPAIGNS_STORED = "0989bf9f3ba868018f3d6f171a0b02fc187e622810478754106f85fd04bd5623"


@pytest.mark.parametrize("version", STORED)
def test_a_stored_plan_is_redone_by_its_own_version(version: int) -> None:
    def taken(by: int) -> str:
        lead = plan.effects(_lead_of(UUID(int=1)), LEADS, 0, (), by)
        return digest.running(one.line() for one in lead)

    assert taken(version) == STORED[version]
    assert all(taken(other) != STORED[version] for other in STORED if other != version)


@pytest.mark.parametrize("version", STORED)
def test_a_campaigns_plan_is_the_same_under_every_version(version: int) -> None:
    again = plan.effects(_campaign_event({"campaign": "news"}), RULES, 0, CROWD, version)
    assert digest.running(one.line() for one in again) == CAMPAIGNS_STORED


values = st.text(max_size=8) | st.none() | st.booleans() | st.integers(-9, 9) | st.just(1.0)


@st.composite
def wordy_crowds(draw: st.DrawFn) -> list[Member]:
    """People of whom all kinds of things are known."""
    return [
        Member(
            recipient_id=str(draw(st.uuids())),
            seq=number,
            sources=frozenset(),
            attributes=draw(st.dictionaries(st.sampled_from(WORDS), values)),
        )
        for number in range(draw(st.integers(0, 4)))
    ]


WORDS = ("first_name", "\uff5e", "\U0001f600", 'a"b\n', "z")


@st.composite
def wordy_campaigns(draw: st.DrawFn) -> Campaign:
    """To everybody: one mail, or several against each other and against none."""
    wordy = Variant(template=TemplateRef(hash="d" * 64, reads=WORDS), share=draw(st.floats(0, 1)))
    terse = Variant(template=TemplateRef(hash="e" * 64, reads=WORDS[:1]), share=1 - wordy.share)
    return Campaign(
        audience=Audience(),
        variants=draw(st.sampled_from([(wordy,), (wordy, terse)])),
        split=draw(st.sampled_from("ab")),
        holdout=draw(st.sampled_from([0.0, 0.5])),
        pace=draw(st.sampled_from([timedelta(0), timedelta(seconds=7)])),
        priority=draw(st.none() | st.sampled_from(Priority)),
    )


@few
@given(wordy_crowds(), wordy_campaigns(), st.sampled_from(sorted(STORED)), st.integers(0, 3))
def test_what_a_stencil_makes_is_what_a_plan_is(
    crowd: list[Member], wordy: Campaign, version: int, epoch: int
) -> None:
    event = _campaign_event({"campaign": "news"})
    rules = replace(RULES, campaigns={"news": wordy})
    whole = list(plan.effects(event, rules, epoch, crowd, version))
    steps = stencil.stencils(event, rules, epoch, version)
    made = [step.rows(step.mailed(crowd)) for step in steps]
    assert [hash for rows in made for hash in rows.templates] == [one.template for one in whole]
    assert [UUID(id) for rows in made for id in rows.ids] == [one.id for one in whole]
    people = [UUID(person) for rows in made for person in rows.people]
    assert people == [one.recipient_id for one in whole]
    stored = [json.loads(one) for rows in made for one in rows.variables]
    assert [repr(sorted(one.items())) for one in stored] == [
        repr(sorted(one.variables.items())) for one in whole
    ], "1.0 does not become 1"
    lines = b"".join(rows.lines for rows in made)
    assert digest.sha256(lines) == digest.running(one.line() for one in whole)
    each = len(whole) // len(steps)
    assert [
        one
        for number, step in enumerate(steps)
        for one in step.effects(step.mailed(crowd), number * each)
    ] == whole


def test_a_stencil_takes_what_a_plan_takes_and_no_more() -> None:
    event = _campaign_event({"campaign": "news"})
    [step, _] = stencil.stencils(event, RULES, 0, plan.VERSION)
    for value in (2**60, "\ud800"):
        person = CROWD[0]._replace(attributes={"city": value})
        with pytest.raises(ValueError):  # noqa: PT011  # each says so in its own words
            step.rows([person])
        with pytest.raises(ValueError):  # noqa: PT011
            digest.running(one.line() for one in plan.effects(event, RULES, 0, [person]))
    assert stencil.stencils(replace(event, origin=Origin.HISTORY), RULES, 0, plan.VERSION) == []
