"""What follows from an outcome: properties that hold for every effect and every answer."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import get_args
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketing_pipeline.domain import decide
from marketing_pipeline.domain.decide import Bury, Doubt, GiveUp, LookUp, Repeat, Retry, Settle
from marketing_pipeline.domain.effect import Contract, DeliveryClass, Effect
from marketing_pipeline.domain.outcome import (
    Absent,
    Accepted,
    Ambiguous,
    Blocked,
    Found,
    Inconclusive,
    Outcome,
    Refused,
    Throttled,
    Unreached,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
spans = st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=2))
outcomes = st.one_of(
    st.builds(Accepted, st.text(min_size=1)),
    st.builds(Throttled, spans, st.just("slow down")),
    st.builds(Blocked, st.one_of(st.none(), st.just(NOW + timedelta(hours=1))), st.just("no")),
    st.builds(Refused, st.just("bad address")),
    st.builds(Unreached, st.just("refused")),
    st.builds(Ambiguous, st.just("no answer")),
)
contracts = st.builds(
    Contract,
    delivery_class=st.sampled_from(DeliveryClass),
    settle_delay=spans,
    key_life=st.one_of(st.none(), spans),
    horizon=st.one_of(st.none(), spans),
    at_least_once=st.booleans(),  # of the blind alone, but deciding must not rely on that
)


@st.composite
def effects(draw: st.DrawFn) -> Effect:
    first = NOW - draw(spans)
    last = first + (NOW - first) * draw(st.floats(0, 1))
    return Effect(
        id=UUID(int=draw(st.integers(0, 2**128 - 1))),
        attempts=draw(st.integers(1, decide.MAX_ATTEMPTS)),
        first_attempt_at=first,
        last_attempt_at=last,
        doubt_since=draw(st.one_of(st.none(), st.just(last))),
    )


@given(effects(), contracts, outcomes)
def test_nothing_is_planned_again_while_an_attempt_may_have_been_done(
    effect: Effect, contract: Contract, outcome: Outcome
) -> None:
    decision = decide.decide(effect, contract, outcome, NOW)
    if isinstance(decision, Retry):
        assert decision.in_doubt == (effect.doubt_since is not None)
    if isinstance(outcome, Ambiguous):
        assert isinstance(decision, Doubt)
        assert decision.due_at >= NOW + contract.settle_delay
        assert effect.doubt_since or decision.due_at == NOW + contract.settle_delay


@given(effects(), contracts, outcomes)
def test_only_an_accepted_one_is_sent_and_only_a_certain_refusal_fails(
    effect: Effect, contract: Contract, outcome: Outcome
) -> None:
    decision = decide.decide(effect, contract, outcome, NOW)
    assert isinstance(decision, Settle) == isinstance(outcome, Accepted)
    if isinstance(decision, Bury):
        assert isinstance(outcome, Refused | Unreached)
        assert effect.doubt_since is None


@given(effects(), contracts, st.one_of(st.builds(Throttled, spans, st.just("later"))))
def test_a_throttled_effect_waits_as_long_as_it_was_told_and_loses_no_attempt(
    effect: Effect, contract: Contract, outcome: Throttled
) -> None:
    decision = decide.decide(effect, contract, outcome, NOW)
    assert isinstance(decision, Retry)
    assert decision.due_at == NOW + outcome.retry_after
    assert not decision.counts


@given(effects(), contracts)
def test_doubt_never_repeats_without_a_key_that_lives_unless_twice_is_better_than_not_at_all(
    effect: Effect, contract: Contract
) -> None:
    step = decide.in_doubt(effect, contract, NOW)
    if isinstance(step, LookUp):
        assert contract.delivery_class is DeliveryClass.SEARCHABLE
    elif isinstance(step, Repeat) and contract.delivery_class is DeliveryClass.BLIND:
        assert contract.at_least_once
    elif isinstance(step, Repeat):
        assert contract.delivery_class is DeliveryClass.KEYED
        assert decide.key_lives(effect, contract, NOW)


@given(effects(), contracts)
def test_without_that_wish_a_blind_doubt_is_for_a_person_at_once(
    effect: Effect, contract: Contract
) -> None:
    blind = replace(contract, delivery_class=DeliveryClass.BLIND, at_least_once=False)
    assert isinstance(decide.in_doubt(effect, blind, NOW), GiveUp)


def test_alerts_are_repeated_for_a_day_and_then_a_person_looks() -> None:
    alerts = Contract(
        delivery_class=DeliveryClass.BLIND, settle_delay=timedelta(seconds=30), at_least_once=True
    )
    tried = Effect(
        id=UUID(int=1),
        attempts=decide.MAX_ATTEMPTS,
        first_attempt_at=NOW,
        last_attempt_at=NOW,
        doubt_since=NOW,
    )
    assert isinstance(decide.in_doubt(tried, alerts, NOW + timedelta(hours=23)), Repeat)
    assert isinstance(decide.in_doubt(tried, alerts, NOW + timedelta(hours=24)), GiveUp)
    first = replace(tried, attempts=1, doubt_since=None)
    doubt = decide.decide(first, alerts, Ambiguous("no answer"), NOW)
    assert isinstance(doubt, Doubt)
    assert doubt.due_at == NOW + alerts.settle_delay


@given(effects(), contracts)
def test_only_a_clean_negative_sends_again(effect: Effect, contract: Contract) -> None:
    for finding in (Found("ref"), Absent(), Inconclusive("try later")):
        decision = decide.decide_look_up(effect, contract, finding, NOW)
        sends_again = isinstance(decision, Retry) and not decision.in_doubt
        assert not sends_again or isinstance(finding, Absent)


@given(effects())
def test_backoff_doubles_within_its_bounds_and_repeats_itself(effect: Effect) -> None:
    wait = decide.backoff(effect)
    assert wait == decide.backoff(effect)
    assert decide.BACKOFF_BASE <= wait <= decide.BACKOFF_CAP * 1.5


def test_a_key_past_its_life_is_not_relied_on() -> None:
    contract = Contract(
        delivery_class=DeliveryClass.KEYED,
        settle_delay=timedelta(seconds=30),
        key_life=timedelta(hours=24),
    )
    young = Effect(
        id=UUID(int=1),
        attempts=1,
        first_attempt_at=NOW - timedelta(hours=21),
        last_attempt_at=NOW - timedelta(hours=21),
        doubt_since=NOW - timedelta(hours=21),
    )
    assert isinstance(decide.in_doubt(young, contract, NOW), Repeat)
    assert isinstance(decide.in_doubt(young, contract, NOW + timedelta(hours=1)), GiveUp)


def test_the_strategies_know_every_outcome() -> None:
    with pytest.raises(AssertionError):  # the known-bad case: one outcome forgotten
        assert len(get_args(Outcome)) == 5
    assert len(get_args(Outcome)) == 6
