"""Faults that are put into the books: the judge that found none must find each of these."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta

from marketing_pipeline_tests.campaign_trial.judge import (
    DONE,
    WRITTEN_WITHIN,
    Act,
    Books,
    Entry,
    Send,
    judge,
)
from marketing_pipeline_tests.chaos.tally import FAILED_AS_IT_MUST, PASSED

Fault = Callable[[Books], Books]
_SOON = timedelta(milliseconds=1)


def tried(books: Books) -> dict[str, str]:
    """What the judge said to each of them."""
    clean = judge(books)
    return {
        name: FAILED_AS_IT_MUST
        if len(getattr(judge(fault(books)), kind)) > len(getattr(clean, kind))
        else PASSED
        for name, (kind, fault) in CONTROLS.items()
    }


def _act_doubled(books: Books) -> Books:
    return replace(books, acts=[*books.acts, books.acts[0]])


def _recipient_removed(books: Books) -> Books:
    """One who was suppressed: no mail tells of them."""
    gone, _ = _found(books, "SUPPRESSED")
    return replace(books, ledger={id: one for id, one in books.ledger.items() if id != gone})


def _mail_after_suppression(books: Books) -> Books:
    """One who was mailed and left later, whose mail comes just too late."""
    at, act = next((n, one) for n, one in enumerate(books.acts) if one.person in books.left)
    late = replace(act, at=books.left[act.person] + WRITTEN_WITHIN + _SOON)
    return replace(books, acts=[*books.acts[:at], late, *books.acts[at + 1 :]])


def _attempt_after_suppression(books: Books) -> Books:
    effect, entry = _found(books, "SUPPRESSED")
    late = Send(effect=effect, first=True, at=books.left[entry.person] + _SOON)
    return replace(books, sends=[*books.sends, late])


def _act_missing(books: Books) -> Books:
    return replace(books, acts=books.acts[1:])


def _holdout_mailed(books: Books) -> Books:
    person = min(books.held_out)
    act = Act(effect=person, person=person, at=books.acts[0].at)
    return replace(books, acts=[*books.acts, act])


def _other_template(books: Books) -> Books:
    effect, entry = _found(books, DONE)
    return replace(books, ledger={**books.ledger, effect: replace(entry, template="another")})


def _attempt_in_pause(books: Books) -> Books:
    assert books.paused is not None, "every trial is paused once"
    effect, _ = _found(books, DONE)
    send = Send(effect=effect, first=True, at=books.paused[0] + _SOON)
    return replace(books, sends=[*books.sends, send])


def _found(books: Books, state: str) -> tuple[str, Entry]:
    """An effect in this state; of those who were suppressed there are many."""
    return next((id, one) for id, one in books.ledger.items() if one.state == state)


CONTROLS: Mapping[str, tuple[str, Fault]] = {
    "the act of a SENT effect doubled": ("duplicates", _act_doubled),
    "one recipient removed": ("losses", _recipient_removed),
    "a mail after its suppression": ("after_unsubscribe", _mail_after_suppression),
    "an attempt after its suppression": ("after_unsubscribe", _attempt_after_suppression),
    "the act of a SENT effect missing": ("losses", _act_missing),
    "one of the holdout mailed": ("held_out", _holdout_mailed),
    "another template than approved": ("strays", _other_template),
    "an attempt during the pause": ("during_pause", _attempt_in_pause),
}
"""What is done to the books, and where the verdict must tell of it."""
