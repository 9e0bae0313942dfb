"""Runs the suites that are asked for and shows what came of them."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table

from marketing_pipeline_tests.chaos.tally import Progress, Tally

Suite = Callable[[int, int, Progress], Tally]
"""Budget in trials, seed, whom to tell; one suite after another, each with its own servers."""

SHARES = {  # of all trials; a killed engine is one, a blow to the whole system is one
    "boundaries": 0.72,
    "frozen": 0.07,
    "controls": 0.01,  # each once, however many are asked for
    "system": 0.02,
    "limits": 0.02,
    "kills": 0.16,  # the last takes what the others left of their shares
}


@dataclass(slots=True)
class Shown:
    """A bar for each kind of trial."""

    bars: Bars
    _tasks: dict[str, TaskID] = field(default_factory=dict)

    def expect(self, kind: str, trials: int) -> None:
        if kind in self._tasks:
            task = self._tasks[kind]
            self.bars.update(task, total=(self.bars.tasks[task].total or 0) + trials)
        else:
            self._tasks[kind] = self.bars.add_task(kind, total=trials)

    def done(self, kind: str, trials: int = 1) -> None:
        if kind not in self._tasks:
            self.expect(kind, 0)
        self.bars.advance(self._tasks[kind], trials)


def available() -> list[str]:
    return list(SHARES)


def run(trials: int, seed: int, only: Sequence[str], console: Console) -> Tally:
    """Share the trials out among the suites; where only some are asked for, among those."""
    names = sorted(only, key=available().index) or available()
    whole = sum(SHARES[name] for name in names)
    tally, began = Tally(), time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Bars(*columns, TimeElapsedColumn(), console=console) as bars:
        for name in names:
            suite: Suite = import_module(f"{__package__}.{name}").run
            left = trials - tally.trials.total()
            budget = left if name == names[-1] else round(trials * SHARES[name] / whole)
            tally.add(suite(max(1, budget), seed, Shown(bars)))
    tally.seconds = time.monotonic() - began
    return tally


def show(tally: Tally, console: Console) -> None:
    kinds = Table(title="Trials")
    kinds.add_column("kind")
    kinds.add_column("trials", justify="right")
    kinds.add_column("unknown", justify="right")
    for kind in sorted(tally.trials | tally.unknown):
        kinds.add_row(kind, f"{tally.trials[kind]:,}", f"{tally.unknown[kind]:,}")
    kinds.add_section()
    kinds.add_row("all", f"{tally.trials.total():,}", f"{tally.unknown.total():,}")
    console.print(kinds)
    sums = Table(title=f"Books compared after {tally.seconds:,.0f} s")
    numbers = {
        "effects": tally.effects,
        "duplicates": tally.duplicates,
        "losses": tally.losses,
        "unknown": tally.unknown.total(),
        "over limit": tally.over_limit,
        "engines crashed": len(tally.crashes),
    }
    for name in numbers:
        sums.add_column(name, justify="right")
    sums.add_row(*(f"{number:,}" for number in numbers.values()))
    console.print(sums)
    if tally.controls:
        controls = Table(title="Controls, each of which has to fail")
        controls.add_column("control")
        controls.add_column("verdict")
        for name, verdict in sorted(tally.controls.items()):
            controls.add_row(name, verdict)
        console.print(controls)
    for trouble in tally.troubles:
        console.print(trouble, style="red", markup=False, highlight=False)


def write(tally: Tally, file: Path) -> None:
    file.write_text(json.dumps(tally.document(), indent=2) + "\n")
