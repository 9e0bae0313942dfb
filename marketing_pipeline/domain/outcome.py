"""What a call to a provider came to."""

from dataclasses import dataclass
from datetime import datetime, timedelta

LONGEST_REFERENCE = 200  # characters that are kept: the log finds by it, and an index has its limit


@dataclass(frozen=True, slots=True)
class Accepted:
    """The provider took it; `reference` is its own name for it."""

    reference: str


@dataclass(frozen=True, slots=True)
class Throttled:
    """Not now: 429 and its kin. Nothing was done."""

    retry_after: timedelta
    reason: str


@dataclass(frozen=True, slots=True)
class Blocked:
    """The whole provider refuses us: a revoked key, an exhausted quota. Nothing was done."""

    until: datetime | None  # None: nobody said when it ends
    reason: str


@dataclass(frozen=True, slots=True)
class Refused:
    """This one will never be taken, in the provider's own words. Nothing was done."""

    reason: str


@dataclass(frozen=True, slots=True)
class Unreached:
    """The request was certainly not written."""

    reason: str


@dataclass(frozen=True, slots=True)
class Ambiguous:
    """Nobody here can know whether it was done."""

    reason: str


Outcome = Accepted | Throttled | Blocked | Refused | Unreached | Ambiguous


@dataclass(frozen=True, slots=True)
class Found:
    """A look-up found that the earlier attempt had been done."""

    reference: str


@dataclass(frozen=True, slots=True)
class Absent:
    """A look-up, late enough to be believed, found nothing."""


@dataclass(frozen=True, slots=True)
class Inconclusive:
    """A look-up that answered nothing, or not in a way to rely on."""

    reason: str


Finding = Found | Absent | Inconclusive
