"""How figures are summed up, shown and written."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

WIDTH = 110  # columns; into a file, rich would fold names at 80


def percentile(values: Sequence[float], percent: int) -> float:
    """The value that this share of all does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) * percent // 100, len(ordered) - 1)]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Number, p50, p95, p99 and the worst, rounded to a hundredth of their unit."""
    named = {f"p{percent}": percentile(values, percent) for percent in (50, 95, 99)} | {
        "worst": max(values)
    }
    return {"count": len(values), **{name: round(value, 2) for name, value in named.items()}}


def show(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table whose first column is names and whose others are figures."""
    table = Table(title=title)
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    console = Console()
    console.width = max(console.width, WIDTH)
    console.print(table)


def say(finding: str, value: float, limit: float) -> None:
    """A finding, and whether its target was met."""
    met = "[green]kept[/]" if value <= limit else "[red]BROKEN[/]"
    Console().print(f"{finding} - {met}", highlight=False)


def write(file: Path | None, figures: Mapping[str, Any] | Sequence[Any]) -> None:
    """Write them for programs, where somebody asked for it."""
    if file is not None:
        file.write_text(json.dumps(figures, indent=2) + "\n")
