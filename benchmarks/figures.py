"""How figures are summed up, shown and written."""

import argparse
import json
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.table import Table

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One finding: a value, what it was compared with in the same run, and what is wanted of it."""

    name: str
    value: float  # the median, where it was measured more than once
    unit: str
    baseline: float | None = None  # in the same unit
    ratio: float | None = None  # of the value to its baseline: the median of the pairs
    target: str | None = None  # None: reported, and nothing is wanted of it
    met: bool | None = None
    spread: str = ""  # least to most: of what the target is for


def compared(
    name: str,
    unit: str,
    values: Sequence[float],
    baselines: Sequence[float],
    *,
    at_least: float | None = None,
    at_most: float | None = None,
) -> Line:
    """Pairs measured one after the other; the bounds are for the median of their ratios."""
    ratios = [one / other for one, other in zip(values, baselines, strict=True)]
    ratio = statistics.median(ratios)
    return Line(
        name=name,
        value=statistics.median(values),
        unit=unit,
        baseline=statistics.median(baselines),
        ratio=ratio,
        target=_target("x", at_least, at_most),
        met=_met(ratio, at_least, at_most),
        spread=f"x{min(ratios):.2f} to x{max(ratios):.2f}",
    )


def measured(
    name: str,
    unit: str,
    values: Sequence[float],
    *,
    baselines: Sequence[float] = (),
    at_least: float | None = None,
    at_most: float | None = None,
) -> Line:
    """The bounds are for the median itself, whatever its ratio to that of a baseline."""
    value = statistics.median(values)
    baseline = statistics.median(baselines) if baselines else None
    return Line(
        name=name,
        value=value,
        unit=unit,
        baseline=baseline,
        ratio=None if baseline is None else value / baseline,
        target=_target("", at_least, at_most),
        met=_met(value, at_least, at_most),
        spread=f"{number(min(values))} to {number(max(values))}" if len(values) > 1 else "",
    )


def turns(runs: int, *takers: Callable[[], Found]) -> list[list[Found]]:
    """So many runs of each, in turn and in changing order; one of each before, which is not
    counted."""
    found: list[list[Found]] = [[] for _ in takers]
    for turn in range(runs + 1):
        order = list(enumerate(takers))
        for place, take in order if turn % 2 else reversed(order):
            one = take()
            if turn:
                found[place].append(one)
    return found


def number(value: float) -> str:
    """Three digits that matter."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _target(mark: str, at_least: float | None, at_most: float | None) -> str | None:
    bounds = ((">=", at_least), ("<=", at_most))
    return " and ".join(f"{sign} {mark}{one:g}" for sign, one in bounds if one is not None) or None


def _met(value: float, at_least: float | None, at_most: float | None) -> bool | None:
    if at_least is None and at_most is None:
        return None
    return (at_least is None or value >= at_least) and (at_most is None or value <= at_most)


def as_table(lines: Sequence[Line]) -> Table:
    """Lines for people."""
    table = Table(title="medians; ratios to a baseline of the same run")
    for heading in ("", "value", "unit", "baseline", "ratio", "spread", "target", ""):
        right = heading in {"value", "baseline", "ratio", "target"}
        table.add_column(heading, justify="right" if right else "left", no_wrap=True)
    for line in lines:
        table.add_row(
            line.name,
            number(line.value),
            line.unit,
            "" if line.baseline is None else number(line.baseline),
            "" if line.ratio is None else f"x{line.ratio:.2f}",
            line.spread,
            line.target or "",
            {None: "", True: "[green]met[/]", False: "[red]MISSED[/]"}[line.met],
        )
    return table


def show_lines(lines: Sequence[Line]) -> None:
    console = Console()
    console.width = max(console.width, 140)
    console.print(as_table(lines))


def sentence(line: Line) -> str:
    """A line on its own."""
    ratio = "" if line.ratio is None else f" x{line.ratio:.2f} of {number(line.baseline or 0)}"
    spread = f" ({line.spread})" if line.spread else ""
    return f"{line.name}: {number(line.value)} {line.unit}{ratio}{spread}{_verdict(line)}"


def alone(about: str | None, lines: Callable[[bool], Iterable[Line]]) -> None:
    """One module from the command line."""
    parser = argparse.ArgumentParser(description=(about or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="less of everything")
    show_lines(list(lines(parser.parse_args().quick)))


def _verdict(line: Line) -> str:
    if line.met is None:
        return ""
    return f", {line.target}: " + ("[green]met[/]" if line.met else "[red]MISSED[/]")


def for_programs(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Lines without their spread, as `make bench JSON=FILE` writes them."""
    names = ("name", "value", "unit", "baseline", "ratio", "target", "met")
    return [{name: getattr(line, name) for name in names} for line in lines]


def percentile(values: Sequence[float], percent: int) -> float:
    """The value that this share of all does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) * percent // 100, len(ordered) - 1)]


def fifths(values: Sequence[float], percent: int) -> list[float]:
    """This percentile of each fifth of what was measured one after the other: five figures to
    take a median and a spread from."""
    length = max(len(values) // 5, 1)
    parts = [values[at : at + length] for at in range(0, length * 5, length)]
    return [percentile(part, percent) for part in parts if part]


def write(file: Path | None, figures: Mapping[str, Any] | Sequence[Any]) -> None:
    """Write them for programs, where somebody asked for it."""
    if file is not None:
        file.write_text(json.dumps(figures, indent=2) + "\n")
