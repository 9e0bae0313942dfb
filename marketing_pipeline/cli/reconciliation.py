"""Compares the ledger with what the providers themselves say they did."""

from collections import Counter
from collections.abc import Iterable, Set
from dataclasses import dataclass

_DONE = "SENT"
_UNDECIDED = "UNKNOWN"  # held and shown: it may or may not have been done


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEntry:
    """An effect as our ledger has it."""

    id: str
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One thing a provider did."""

    provider: str
    operation: str
    key: str | None  # the effect's id; None: nobody can say whose it was
    repeat: bool  # an upsert done again, unchanged: harmless


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciliation:
    """Where the two accounts differ; all empty when they agree."""

    twice: tuple[str, ...]  # effects done more than once
    lost: tuple[str, ...]  # SENT by our account, and never done
    unaccounted: tuple[str, ...]  # done, and our account does not say so

    @property
    def agrees(self) -> bool:
        return not (self.twice or self.lost or self.unaccounted)


def reconcile(
    ledger: Iterable[LedgerEntry], acts: Iterable[Act], *, earlier: Set[str] = frozenset()
) -> Reconciliation:
    """Compare the whole ledger with every act.

    `earlier` are effects that were SENT before the record of acts began: that it has no act of
    one is no loss, and that it has one means that it was done again.

    An effect that came to be done through two operations, or at two providers, was done twice.
    An UNKNOWN effect may have been done or not; that it was is no difference, for it says so.
    """
    states = {entry.id: entry.state for entry in ledger}
    done = list(acts)
    times = Counter(act.key for act in done if act.key is not None and not act.repeat)
    keys = {act.key for act in done if act.key is not None}
    unattributed = [f"an act of {act.provider} {act.operation}" for act in done if act.key is None]
    return Reconciliation(
        twice=tuple(sorted(key for key, n in times.items() if n + (key in earlier) > 1)),
        lost=tuple(
            sorted(
                id
                for id, state in states.items()
                if state == _DONE and id not in keys and id not in earlier
            )
        ),
        unaccounted=tuple(
            unattributed + sorted(key for key in keys if states.get(key) not in {_DONE, _UNDECIDED})
        ),
    )
