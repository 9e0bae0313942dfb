"""The state machine: its picture, its table in the code, and what deciding really does."""

import itertools
import re
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

from marketing_pipeline.delivery.settling import state_after
from marketing_pipeline.domain import decide
from marketing_pipeline.domain.effect import (
    TRANSITIONS,
    Contract,
    DeliveryClass,
    Effect,
    EffectState,
)
from marketing_pipeline.domain.outcome import (
    Absent,
    Accepted,
    Ambiguous,
    Blocked,
    Finding,
    Found,
    Inconclusive,
    Outcome,
    Refused,
    Throttled,
    Unreached,
)

PAGE = Path(__file__).parents[2] / "docs" / "guarantees.md"
NOW = datetime(2026, 3, 1, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=30)
OUTCOMES: tuple[Outcome, ...] = (
    Accepted("r"),
    Throttled(timedelta(seconds=1), "429"),
    Blocked(None, "401"),
    Refused("400"),
    Unreached("refused"),
    Ambiguous("500"),
)
FINDINGS: tuple[Finding, ...] = (Found("r"), Absent(), Inconclusive("not yet"))
CONTRACTS = (
    Contract(delivery_class=DeliveryClass.KEYED, settle_delay=timedelta(seconds=30)),
    Contract(
        delivery_class=DeliveryClass.KEYED,
        settle_delay=timedelta(seconds=30),
        key_life=timedelta(hours=24),
    ),
    Contract(
        delivery_class=DeliveryClass.SEARCHABLE,
        settle_delay=timedelta(minutes=30),
        horizon=timedelta(days=1),
    ),
    Contract(delivery_class=DeliveryClass.BLIND, settle_delay=timedelta(seconds=30)),
    Contract(
        delivery_class=DeliveryClass.BLIND, settle_delay=timedelta(seconds=30), at_least_once=True
    ),
)
# What is done in SQL alone, or by people.
ELSEWHERE = {
    ("PLANNED", "SENDING"),  # claimed
    ("PLANNED", "SUPPRESSED"),
    ("PLANNED", "FAILED"),
    ("PLANNED", "DOUBT"),  # adopted
    ("UNKNOWN", "SENT"),
    ("UNKNOWN", "PLANNED"),  # resolved
    ("FAILED", "PLANNED"),  # redriven
    ("PLANNED", "SENT"),
    ("FAILED", "SENT"),
    ("SUPPRESSED", "SENT"),  # late answers
}
Edge = tuple[str, str]


def drawn(page: str) -> set[tuple[str, str, str]]:
    return set(re.findall(r"^    (\w+) --> (\w+): (.*)$", page, re.MULTILINE))


def effects(attempts: int, *, doubtful: bool) -> list[Effect]:
    return [
        Effect(
            id=uuid.UUID(int=1),
            attempts=attempts,
            first_attempt_at=at,
            last_attempt_at=at,
            doubt_since=at if doubtful else None,
        )
        for at in (NOW, LONG_AGO)
    ]


def decided() -> set[Edge]:
    """Every edge that deciding takes, over all classes, answers, ages and numbers of attempts."""
    found: set[Edge] = set()
    for contract, attempts, doubtful in itertools.product(
        CONTRACTS, (1, decide.MAX_ATTEMPTS), (False, True)
    ):
        for effect in effects(attempts, doubtful=doubtful):
            for outcome in OUTCOMES:
                decision = decide.decide(effect, contract, outcome, NOW)
                found.add(("SENDING", str(state_after(decision))))
            if doubtful:
                found |= _in_doubt(effect, contract)
    return {(old, new) for old, new in found if old != new}


def _in_doubt(effect: Effect, contract: Contract) -> set[Edge]:
    match decide.in_doubt(effect, contract, NOW):
        case decide.Repeat():
            return {("DOUBT", "SENDING")}
        case decide.GiveUp():
            return {("DOUBT", "UNKNOWN")}
        case decide.LookUp():
            decisions = [decide.decide_look_up(effect, contract, one, NOW) for one in FINDINGS]
            return {("DOUBT", str(state_after(one))) for one in decisions}


def test_the_picture_is_the_table() -> None:
    assert drawn(PAGE.read_text()) == {(old, new, why) for (old, new), why in TRANSITIONS.items()}


def test_a_picture_with_one_arrow_turned_round_is_another() -> None:
    page = PAGE.read_text().replace("DOUBT --> UNKNOWN:", "UNKNOWN --> DOUBT:")
    assert drawn(page) != {(old, new, why) for (old, new), why in TRANSITIONS.items()}


def test_deciding_takes_every_drawn_edge_that_is_its_own_and_no_other() -> None:
    table = {(str(old), str(new)) for old, new in TRANSITIONS}
    assert decided() | ELSEWHERE == table
    assert not decided() & ELSEWHERE


def test_nothing_that_was_sent_ever_becomes_anything_else() -> None:
    assert not [edge for edge in TRANSITIONS if edge[0] is EffectState.SENT]
