"""How views count effects: by the states they ended in, and what is still open as one."""

from collections.abc import Iterable

from marketing_pipeline.domain.effect import OPEN, EffectState

COUNTED = ("sent", "failed", "suppressed", "unknown", "open")  # the columns, in their order


def column(state: str) -> str:
    """The column that an effect in this state counts under."""
    return "open" if EffectState(state) in OPEN else state.lower()


def counts(effects: Iterable[tuple[str | None, int]]) -> dict[str, int]:
    """Effects by column, from states and how many stand in each; None is no effect."""
    found = dict.fromkeys(COUNTED, 0)
    for state, count in effects:
        if state is not None:
            found[column(state)] += count
    return found
