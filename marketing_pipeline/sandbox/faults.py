"""Faults on demand: which call is hit, and by what."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum


class Kind(StrEnum):
    """What can go wrong; "before" and "after" say whether the provider had acted."""

    THROTTLE = "throttle"  # nothing done; 429 with the provider's own hints, for `seconds`
    QUOTA = "quota"  # nothing done; the provider's words for a used-up quota
    ERROR_BEFORE = "error_before"  # nothing done; 500
    ERROR_AFTER = "error_after"  # acted; 500
    HANG_BEFORE = "hang_before"  # nothing done; silence for `seconds`, then closed
    HANG_AFTER = "hang_after"  # acted; silence for `seconds`, then closed
    RESET_BEFORE = "reset_before"  # nothing done; RST
    RESET_AFTER = "reset_after"  # acted; RST
    CLOSE_AFTER = "close_after"  # acted; FIN without an answer
    HALF_BODY_AFTER = "half_body_after"  # acted; half of the answer's body, then FIN
    SLOW = "slow"  # acted; the answer comes after `seconds`, and until then the key is in flight


BEFORE = frozenset(
    {Kind.THROTTLE, Kind.QUOTA, Kind.ERROR_BEFORE, Kind.HANG_BEFORE, Kind.RESET_BEFORE}
)
UNANSWERED = frozenset(
    {Kind.HANG_BEFORE, Kind.HANG_AFTER, Kind.RESET_BEFORE, Kind.RESET_AFTER, Kind.CLOSE_AFTER}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Either a share of the matching calls or the next `times` of them."""

    provider: str
    operation: str | None  # None: every operation of the provider
    kind: Kind
    share: float | None  # 0..1
    times: int | None
    seconds: timedelta
    seed: int


class Faults:
    """The rules in force; the first that hits a call wins."""

    def __init__(self, rules: Sequence[Rule] = ()) -> None:
        self.rules = tuple(rules)
        self._left = [rule.times for rule in self.rules]

    def choose(self, number: int, provider: str, operation: str) -> Rule | None:
        """The rule that hits this call of the record, if one does; uses up one of its `times`."""
        for index, rule in enumerate(self.rules):
            if rule.provider != provider or rule.operation not in (None, operation):
                continue
            left = self._left[index]
            if left is None:
                if rule.share is not None and _fraction(rule.seed, index, number) < rule.share:
                    return rule
            elif left > 0:
                self._left[index] = left - 1
                return rule
        return None


def _fraction(seed: int, index: int, number: int) -> float:
    """A number in [0, 1) that a second run derives again; each rule hits calls of its own."""
    digest = hashlib.sha256(f"{seed}:{index}:{number}".encode()).digest()
    return int.from_bytes(digest[:6]) / 2**48
