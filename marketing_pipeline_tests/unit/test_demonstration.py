"""The demo's traffic and its verdict, over books that agree and books that do not."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from marketing_pipeline.cli import traffic
from marketing_pipeline.cli.demonstration import Books, describe
from marketing_pipeline.cli.reconciliation import Reconciliation
from marketing_pipeline.cli.traffic import Answers
from marketing_pipeline.event_log.reading import Balance
from marketing_pipeline.event_log.status import Outcome


def balance(**values: int) -> Balance:
    counts = {"planned": 3, "sent": 3, **dict.fromkeys(("failed", "suppressed", "unknown"), 0)}
    counts |= {"open": 0, "unplanned": 0, "missing": 0} | values
    return Balance(day=datetime.now(UTC).date(), **counts)


def outcome(**effects: int) -> Outcome:
    return Outcome(effects=effects, calls=3, retries=0, latency_ms=(1.0, 2.0, 3.0))


def acts(**found: tuple[str, ...]) -> Reconciliation:
    return Reconciliation(**{"twice": (), "lost": (), "unaccounted": (), **found})


GOOD = Books(
    answers=Answers(Counter(ACCEPTED=2, DUPLICATE=1)),
    logged=2,
    unfinished=0,
    outcome=outcome(SENT=3),
    days=[balance()],
    acts=acts(),
)


def test_books_that_agree_are_balanced() -> None:
    result = describe(GOOD, 1.0)
    assert result["balanced"]
    assert result["differences"] == []


@pytest.mark.parametrize(
    ("spoilt", "said"),
    [
        ({"acts": acts(twice=("a",))}, "1 effects were done twice"),
        ({"acts": acts(lost=("a",))}, "1 effects were lost"),
        ({"acts": acts(unaccounted=("a",))}, "1 acts unaccounted for"),
        ({"logged": 1}, "2 events were accepted, 1 logged"),
        ({"logged": 3}, "2 events were accepted, 3 logged"),
        ({"unfinished": 1}, "1 events are unfinished"),
        ({"days": [balance(unplanned=1)]}, "1 events have no plan"),
        ({"days": [balance(missing=1)]}, "1 effects differ between plans and ledger"),
        ({"days": [balance(missing=1), balance(missing=-1)]}, "2 effects differ"),
        ({"days": [balance(open=1)]}, "1 effects are open"),
        ({"days": []}, "no plans"),
        ({"outcome": outcome(SENT=2, DOUBT=1)}, "1 effects are open"),
    ],
)
def test_books_that_differ_are_not_balanced(spoilt: dict[str, Any], said: str) -> None:
    result = describe(replace(GOOD, **spoilt), 1.0)
    assert not result["balanced"]
    assert any(said in one for one in result["differences"])


def test_two_thousand_events_are_sent_and_a_tenth_of_them_again() -> None:
    leads, posts, campaigns = traffic.events("run")
    assert (len(leads), len(posts), len(campaigns)) == (1200, 780, 20)
    sent = traffic.repeated(leads + posts)
    again = len(sent) - len(leads + posts)
    assert again == len(leads + posts) // 10
    keys = Counter(event["idempotencyKey"] for event in sent)
    assert len(keys) == len(leads + posts)
    assert max(keys.values()) == 2


def test_some_are_sent_twice_at_once_some_later_and_some_with_another_body() -> None:
    events = traffic.events("run")[1][:30]
    sent = traffic.repeated(events)
    assert sent[10] == sent[11]
    assert sent[-2] == events[20]
    assert sent[-1]["idempotencyKey"] == events[29]["idempotencyKey"]
    assert sent[-1]["payload"] != events[29]["payload"]


def test_two_runs_share_no_key() -> None:
    one, other = (
        {event["idempotencyKey"] for batch in traffic.events(run) for event in batch}
        for run in ("one", "other")
    )
    assert not one & other
