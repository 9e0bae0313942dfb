"""What a run of trials came to, in the same words for every suite."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Protocol

FAILED_AS_IT_MUST = "failed as it must"
PASSED = "passed, so the harness is blind to it"


class Progress(Protocol):
    """Told of trials as they come; how they are shown is the caller's."""

    def expect(self, kind: str, trials: int) -> None:
        """So many more trials of a kind are to come."""
        ...

    def done(self, kind: str, trials: int = 1) -> None: ...


class Silent:
    """For runs that nobody watches."""

    def expect(self, kind: str, trials: int) -> None: ...

    def done(self, kind: str, trials: int = 1) -> None: ...


@dataclass(slots=True, kw_only=True)
class Tally:
    """Sums over trials; two of them add up."""

    trials: Counter[str] = field(default_factory=Counter)  # by kind
    effects: int = 0  # planned in all trials
    duplicates: int = 0  # effects acted on more than once, by the sandbox's account
    losses: int = 0  # effects that were not acted on, or acts that the ledger does not admit
    unknown: Counter[str] = field(default_factory=Counter)  # effects held for a person, by kind
    crashes: list[str] = field(
        default_factory=list
    )  # engines that did not bear it; others took over
    over_limit: int = 0  # calls beyond a provider's limit, by the sandbox's clock
    controls: dict[str, str] = field(default_factory=dict)
    seconds: float = 0
    troubles: list[str] = field(default_factory=list)  # a line for each trial that went wrong

    def add(self, other: "Tally") -> None:
        """Seconds are not added: suites may run side by side, and the caller has the clock."""
        self.trials += other.trials
        self.effects += other.effects
        self.duplicates += other.duplicates
        self.losses += other.losses
        self.unknown += other.unknown
        self.crashes += other.crashes
        self.over_limit += other.over_limit
        self.controls |= other.controls
        self.troubles += other.troubles

    @property
    def holds(self) -> bool:
        """Nothing twice, nothing lost, nothing over a limit, and every control failed."""
        controls = all(verdict == FAILED_AS_IT_MUST for verdict in self.controls.values())
        clean = not (self.duplicates or self.losses or self.over_limit or self.troubles)
        return clean and controls

    def document(self) -> dict[str, Any]:
        """For programs; the keys are what readers of `--json` rely on."""
        return {
            "trials": self.trials.total(),
            "by_kind": dict(self.trials),
            "effects": self.effects,
            "duplicates": self.duplicates,
            "losses": self.losses,
            "over_limit": self.over_limit,
            "unknown": self.unknown.total(),
            "unknown_by_kind": dict(+self.unknown),
            "crashes": list(self.crashes),
            "controls": dict(self.controls),
            "seconds": round(self.seconds, 1),
            "troubles": list(self.troubles),
        }
