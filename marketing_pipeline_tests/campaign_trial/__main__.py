"""`python -m marketing_pipeline_tests.campaign_trial`: one campaign, and whether it held."""

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from marketing_pipeline_tests.campaign_trial import report, story
from marketing_pipeline_tests.campaign_trial.story import Size, Trial

SLOWEST = 0.012  # seconds that an effect may take, all in all


def main() -> int:
    arguments = _arguments()
    console = Console()
    size = Size(
        recipients=arguments.recipients,
        adapter=arguments.adapter,
        calls=arguments.calls,
        patience=120 + arguments.recipients * SLOWEST,
        seed=arguments.seed,
    )
    found = report.judged(_watched(size, console))
    report.show(found, console)
    if arguments.json:
        report.write(found, arguments.json)
    return 0 if found.holds else 1


def _watched(size: Size, console: Console) -> Trial:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console) as bars:
        bar = bars.add_task("start", total=None)
        return story.run(
            size,
            lambda what, done, of: bars.update(
                bar, description=what, completed=done, total=of or None
            ),
        )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m marketing_pipeline_tests.campaign_trial", description=__doc__
    )
    parser.add_argument("--recipients", type=int, default=100_000)
    parser.add_argument("--adapter", choices=("mailgun", "resend"), default="mailgun")
    parser.add_argument("--calls", type=int, default=1000, help="a second, the provider's limit")
    parser.add_argument("--seed", type=int, default=1, help="who leaves, and when engines die")
    parser.add_argument("--json", type=Path, help="write the sums to this file")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
