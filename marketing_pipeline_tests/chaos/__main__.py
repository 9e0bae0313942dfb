"""`python -m marketing_pipeline_tests.chaos`: so many trials, a table, and whether it held."""

import argparse
import sys
from pathlib import Path

from rich.console import Console

from marketing_pipeline_tests.chaos import report


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m marketing_pipeline_tests.chaos", description=__doc__
    )
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1, help="which trials, and in which order")
    parser.add_argument("--json", type=Path, help="write the sums to this file")
    parser.add_argument(
        "--only", action="append", default=[], choices=report.available(), help="may be repeated"
    )
    arguments = parser.parse_args()
    console = Console()
    tally = report.run(arguments.trials, arguments.seed, arguments.only, console)
    report.show(tally, console)
    if arguments.json:
        report.write(tally, arguments.json)
    return 0 if tally.holds else 1


if __name__ == "__main__":
    sys.exit(main())
