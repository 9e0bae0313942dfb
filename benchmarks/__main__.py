"""Measures the pipeline beside its baselines and targets.

    python -m benchmarks [--only NAME] [--quick] [--peers] [--json FILE]

Figures are for reading and not a test: a target that is missed is marked, and the exit code is 0.
What breaks off, or says that its figures would be void, is named at the end, and the exit code is
1. Each line is shown as soon as it is known, and all of them at the end. Where one trial takes
minutes (planning, replaying, memory, priority) it is made once, against a target and no baseline.
"""

import argparse
import importlib
import json
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from rich.console import Console

from benchmarks import dispatch, figures
from benchmarks.figures import Line

# By the first part of their lines' names: what has targets comes first, the longest come last.
MODULES = (
    "ingest",
    "transport",
    "latency",
    "dispatch",
    "planning",
    "replaying",
    "protocol",
    "memory",
    "priority",
    "lookups",
    "isolation",
)
Section = Callable[[bool], Iterable[Line]]


def main() -> None:
    arguments = _arguments()
    chosen = {
        name: section
        for name, section in sections(peers=arguments.peers).items()
        if arguments.only in name or arguments.only.startswith(name)
    }
    if not chosen:
        names = ", ".join(sections(peers=True))
        raise SystemExit(f"--only {arguments.only!r} is part of no name; there are: {names}")
    console, found, void = Console(highlight=False), list[Line](), list[str]()
    for place, (name, section) in enumerate(chosen.items(), 1):
        began = time.monotonic()
        with console.status(f"{place} of {len(chosen)}: {name}"):
            try:
                for line in section(arguments.quick):
                    assert line.name.startswith(name), "or ONLY would not find it"
                    found.append(line)
                    console.print(figures.sentence(line))
            except (SystemExit, Exception) as reason:  # the others are worth having
                if isinstance(reason, Exception):
                    console.print_exception()
                void.append(f"{name}: {reason!r}")
                console.print(f"[red]{void[-1]}[/]")
        console.print(f"[dim]{name}: {time.monotonic() - began:.0f} s[/]")
        if arguments.json:  # after each: what has been measured is not lost with the rest
            arguments.json.write_text(json.dumps(figures.for_programs(found), indent=2) + "\n")
    figures.show_lines(found)
    if void:
        raise SystemExit("\n".join(void))


def sections(*, peers: bool) -> dict[str, Section]:
    """What can be measured, by name; dispatch in its parts."""
    found: dict[str, Section] = {}
    for name in MODULES:
        found |= dispatch.SECTIONS if name == "dispatch" else {name: partial(_lines, name)}
        if name == "dispatch" and peers:
            found["peers"] = partial(_lines, "peers.against")
    return found


def _lines(module: str, quick: bool) -> Iterable[Line]:
    """Imported only when its turn comes: what one needs must not hold up the others."""
    lines: Section = importlib.import_module(f"benchmarks.{module}").lines
    return lines(quick)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--only", default="", help="a section or a line, or a part of a section's name"
    )
    parser.add_argument("--quick", action="store_true", help="less of everything")
    parser.add_argument("--peers", action="store_true", help="beside pgqueuer and procrastinate")
    parser.add_argument("--json", type=Path, help="write the lines there too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
