"""What a replay found: counts and seals that add up in any order, and what differs."""

import hashlib
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from uuid import UUID

SHOWN = 100  # differences of a day told one by one; the rest is counted


class What(StrEnum):
    """What differs; the words of a sentence about a plan or an effect."""

    PLAN = "its plan comes out differently"
    UNPLANNABLE = "was planned and no longer can be"
    MISSING = "planned and not in the ledger"
    UNPLANNED = "in the ledger and never planned"
    RENDERING = "its bytes come out differently"
    UNRENDERABLE = "can no longer be rendered"
    PROVIDER = "its provider is not in its configuration"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One thing that a replay makes otherwise than the ledger has it."""

    day: date
    event_id: UUID
    effect_id: UUID | None  # None: it is about the whole plan
    what: What
    expected: str  # what the replay makes
    recorded: str  # what the ledger has

    def __str__(self) -> str:
        subject = f"effect {self.effect_id}" if self.effect_id else f"event {self.event_id}"
        return f"{subject}: {self.what}: expected {self.expected}, recorded {self.recorded}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What was found of a part of a day; parts add up to the same whatever their order.

    Of the differences those come first that sort first, so that they are the same ones too.
    """

    events: int = 0
    effects: int = 0
    rendered: int = 0
    erased: int = 0
    seals: int = 0
    differences: tuple[Difference, ...] = ()
    more: int = 0  # differences beyond those

    def __add__(self, other: "Findings") -> "Findings":
        both = sorted(self.differences + other.differences, key=_place)
        return Findings(
            events=self.events + other.events,
            effects=self.effects + other.effects,
            rendered=self.rendered + other.rendered,
            erased=self.erased + other.erased,
            seals=(self.seals + other.seals) % 2**256,
            differences=tuple(both[:SHOWN]),
            more=self.more + other.more + len(both[SHOWN:]),
        )


def _place(one: Difference) -> tuple[str, str, str]:
    return str(one.event_id), str(one.effect_id or ""), one.what


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What a replay of one day found."""

    day: date
    events: int
    effects: int
    rendered: int  # whose bytes could be made again and were compared
    erased: int  # whose person has been forgotten since: nothing to compare with
    digest: str  # over every plan and rendering, the same on any machine
    shown: tuple[Difference, ...]  # the first of the differences
    more: int  # the rest

    @property
    def differences(self) -> tuple[str, ...]:
        """In words."""
        rest = (f"and {self.more} more",) if self.more else ()
        return tuple(map(str, self.shown)) + rest


def of_day(day: date, found: Findings) -> Verification:
    """The whole of its parts."""
    return Verification(
        day=day,
        events=found.events,
        effects=found.effects,
        rendered=found.rendered,
        erased=found.erased,
        digest=f"{found.seals:064x}",
        shown=found.differences,
        more=found.more,
    )


def seal_of_plan(event_id: UUID, epoch: int, plan_digest: str) -> int:
    """A plan as it was made again, as one number.

    A day's digest is the sum of its seals modulo 2**256, for a sum is the same in any order and
    for any division of the work, and nothing has to be held or sorted. It tells honest runs apart,
    of which two that differ have one chance in 2**256 to sum up alike. It would not withstand
    somebody who may choose a million plans to reach a sum; whoever could, could write the ledger.
    """
    return _seal(b"plan", event_id.bytes, epoch.to_bytes(8), bytes.fromhex(plan_digest))


def seal_of_rendering(effect_id: UUID, sha256: str) -> int:
    """An effect's bytes as they were made again, as one number; see `seal_of_plan`."""
    return _seal(b"rendering", effect_id.bytes, bytes.fromhex(sha256))


def _seal(*parts: bytes) -> int:
    return int.from_bytes(hashlib.sha256(b"".join(parts)).digest())
