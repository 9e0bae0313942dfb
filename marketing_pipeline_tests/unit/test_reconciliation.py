"""The judge of the demo, over accounts that agree and accounts that do not."""

import pytest

from marketing_pipeline.cli.reconciliation import Act, LedgerEntry, reconcile


def entry(id: str, state: str = "SENT") -> LedgerEntry:
    return LedgerEntry(id=id, state=state)


def act(key: str | None, *, repeat: bool = False, provider: str = "mailgun") -> Act:
    return Act(provider=provider, operation="send", key=key, repeat=repeat)


def test_two_empty_accounts_agree() -> None:
    assert reconcile([], []).agrees


def test_each_effect_sent_and_done_once_agrees() -> None:
    assert reconcile([entry("a"), entry("b")], [act("b"), act("a")]).agrees


def test_an_upsert_repeated_unchanged_is_no_second_time() -> None:
    assert reconcile([entry("a")], [act("a"), act("a", repeat=True)]).agrees


def test_an_effect_done_twice_is_found() -> None:
    found = reconcile([entry("a")], [act("a"), act("a")])
    assert found.twice == ("a",)
    assert not found.agrees


def test_an_effect_done_at_two_providers_was_done_twice() -> None:
    found = reconcile([entry("a")], [act("a", provider="mailgun"), act("a", provider="resend")])
    assert found.twice == ("a",)


def test_an_effect_that_counts_as_sent_and_was_never_done_is_lost() -> None:
    found = reconcile([entry("a"), entry("b")], [act("a")])
    assert found.lost == ("b",)
    assert not found.agrees


@pytest.mark.parametrize("state", ["PLANNED", "SENDING", "DOUBT", "FAILED", "SUPPRESSED"])
def test_an_act_that_the_ledger_does_not_admit_is_unaccounted_for(state: str) -> None:
    found = reconcile([entry("a", state)], [act("a")])
    assert found.unaccounted == ("a",)
    assert not found.agrees


def test_an_act_of_an_effect_that_the_ledger_does_not_have_is_unaccounted_for() -> None:
    assert reconcile([], [act("a")]).unaccounted == ("a",)


def test_an_act_that_nobody_can_attribute_is_unaccounted_for() -> None:
    found = reconcile([entry("a")], [act("a"), act(None)])
    assert found.unaccounted == ("an act of mailgun send",)


@pytest.mark.parametrize("state", ["PLANNED", "FAILED", "SUPPRESSED", "UNKNOWN"])
def test_what_was_neither_sent_nor_done_agrees(state: str) -> None:
    assert reconcile([entry("a", state)], []).agrees


def test_an_unknown_effect_agrees_with_having_been_done() -> None:
    assert reconcile([entry("a", "UNKNOWN")], [act("a")]).agrees


def test_an_unknown_effect_done_twice_is_found() -> None:
    assert reconcile([entry("a", "UNKNOWN")], [act("a"), act("a")]).twice == ("a",)
