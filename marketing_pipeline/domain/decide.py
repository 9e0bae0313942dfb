"""What happens next, given what the provider answered."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import assert_never

from marketing_pipeline.domain import digest
from marketing_pipeline.domain.effect import Contract, DeliveryClass, Effect
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

MAX_ATTEMPTS = 6  # the first and five retries
BACKOFF_BASE = timedelta(seconds=1)
BACKOFF_CAP = timedelta(seconds=60)
REPROBE = timedelta(minutes=5)  # a block whose end nobody told is tried again after this
HOPE = timedelta(days=1)  # a repeat goes on for so long without a clear answer
KEY_MARGIN = 0.1  # share of a key's life that is not relied on: clocks and queues differ


@dataclass(frozen=True, slots=True)
class Settle:
    """-> SENT."""

    reference: str


@dataclass(frozen=True, slots=True)
class Bury:
    """-> FAILED."""

    reason: str


@dataclass(frozen=True, slots=True)
class Retry:
    """-> PLANNED, or DOUBT where an earlier attempt is still unresolved."""

    due_at: datetime
    reason: str
    in_doubt: bool
    counts: bool = True  # False gives the attempt back: waiting is not failing
    pause_until: datetime | None = None  # the provider as a whole waits as long
    blocked: bool = False  # the pause is durable and the operator is told


@dataclass(frozen=True, slots=True)
class Doubt:
    """-> DOUBT."""

    due_at: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """-> UNKNOWN: a person decides."""

    reason: str


Decision = Settle | Bury | Retry | Doubt | GiveUp


@dataclass(frozen=True, slots=True)
class Repeat:
    """In doubt: the same bytes with the same key, where that is safe or wished for all the same."""


@dataclass(frozen=True, slots=True)
class LookUp:
    """In doubt: ask the provider whether it has it."""


Step = Repeat | LookUp | GiveUp


def decide(effect: Effect, contract: Contract, outcome: Outcome, now: datetime) -> Decision:
    """What a send's outcome means for its effect."""
    in_doubt = effect.doubt_since is not None
    match outcome:
        case Accepted(reference):
            return Settle(reference)
        case Refused(reason):  # of the repeat, which says nothing of the attempt in doubt
            return GiveUp(reason) if in_doubt else Bury(reason)
        case Throttled(retry_after, reason):
            until = now + retry_after
            return Retry(until, reason, in_doubt, counts=False, pause_until=until)
        case Blocked(until, reason):  # a revoked key must not fail ten thousand mails
            resume = until or now + REPROBE
            return Retry(resume, reason, in_doubt, counts=False, pause_until=resume, blocked=True)
        case Unreached(reason) if effect.attempts >= MAX_ATTEMPTS and not in_doubt:
            return Bury(reason)
        case Unreached(reason):
            return Retry(now + backoff(effect), reason, in_doubt)
        case Ambiguous(reason):
            wait = (
                max(contract.settle_delay, backoff(effect)) if in_doubt else contract.settle_delay
            )
            return Doubt(now + wait, reason)  # never resend blindly
        case _:
            assert_never(outcome)


def in_doubt(effect: Effect, contract: Contract, now: datetime) -> Step:
    """What a due DOUBT calls for."""
    match contract.delivery_class:
        case DeliveryClass.KEYED if not key_lives(effect, contract, now):
            return GiveUp("the provider no longer remembers our key: a repeat could be a duplicate")
        case DeliveryClass.BLIND if not contract.at_least_once:
            return GiveUp("the provider can neither deduplicate nor look up")
        case DeliveryClass.KEYED | DeliveryClass.BLIND if is_hopeless(effect, now):
            return GiveUp(f"no clear answer in {effect.attempts} attempts since the day before")
        case DeliveryClass.KEYED | DeliveryClass.BLIND:
            return Repeat()
        case DeliveryClass.SEARCHABLE if within_horizon(effect, contract, now):
            return LookUp()
        case DeliveryClass.SEARCHABLE:
            return GiveUp("the provider's look-up no longer reaches back to the attempt")
        case _:
            assert_never(contract.delivery_class)


def decide_look_up(effect: Effect, contract: Contract, finding: Finding, now: datetime) -> Decision:
    """What a look-up's finding means for its effect."""
    match finding:
        case Found(reference):
            return Settle(reference)
        case Absent() if effect.attempts >= MAX_ATTEMPTS:
            return Bury(f"not delivered in {effect.attempts} attempts")
        case Absent():
            return Retry(now, "looked up: the provider does not have it", in_doubt=False)
        case Inconclusive(reason) if within_horizon(effect, contract, now):
            # What took `settle_delay` to show is not worth asking for every second.
            wait = max(backoff(effect), min(REPROBE, contract.settle_delay))
            return Doubt(now + wait, reason)
        case Inconclusive(reason):
            return GiveUp(reason)
        case _:
            assert_never(finding)


def key_lives(effect: Effect, contract: Contract, now: datetime) -> bool:
    """Is a repeat still safe? Counted from the first attempt that may have used the key."""
    if contract.key_life is None:
        return True
    first = effect.first_attempt_at
    return first is not None and now < first + contract.key_life * (1 - KEY_MARGIN)


def is_hopeless(effect: Effect, now: datetime) -> bool:
    """Has a repeat gone on for so long that a person should look?"""
    first = effect.first_attempt_at
    return effect.attempts >= MAX_ATTEMPTS and first is not None and now >= first + HOPE


def within_horizon(effect: Effect, contract: Contract, now: datetime) -> bool:
    """Can the provider's look-up still see the last attempt?"""
    last = effect.last_attempt_at
    return last is not None and contract.horizon is not None and now < last + contract.horizon


def backoff(effect: Effect) -> timedelta:
    """Double each time up to the cap, spread by up to half.

    The spread comes from the effect and not from chance: a replay must wait
    exactly as long as the run it repeats.
    """
    doubled = BACKOFF_BASE * int(2 ** min(max(effect.attempts - 1, 0), 16))
    wait = min(doubled, BACKOFF_CAP)
    return wait * (1 + digest.fraction(effect.id, effect.attempts) / 2)
