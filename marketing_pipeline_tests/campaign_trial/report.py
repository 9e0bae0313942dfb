"""What a trial came to, for people and for programs."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from marketing_pipeline_tests.campaign_trial import controls, judge
from marketing_pipeline_tests.campaign_trial.judge import Verdict
from marketing_pipeline_tests.campaign_trial.story import Trial
from marketing_pipeline_tests.chaos.tally import FAILED_AS_IT_MUST


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A trial that has been judged."""

    trial: Trial
    verdict: Verdict
    controls: Mapping[str, str]

    @property
    def holds(self) -> bool:
        failed = all(said == FAILED_AS_IT_MUST for said in self.controls.values())
        return self.verdict.clean and failed and not self.trial.troubles

    def states(self, state: str) -> int:
        return sum(one.state == state for one in self.trial.books.ledger.values())

    def document(self) -> dict[str, Any]:
        """For programs; the keys are what readers of `--json` rely on."""
        of, books, verdict = self.trial, self.trial.books, self.verdict
        return {
            "recipients": of.recipients,
            "provider": "searchable" if books.searchable else "keyed",
            "planned": len(books.approved),
            "held_out": len(books.held_out),
            "sent": self.states("SENT"),
            "suppressed": self.states("SUPPRESSED"),
            "failed": self.states("FAILED"),
            "unknown": self.states("UNKNOWN"),
            "acts": len(books.acts),
            "unsubscribed": len(books.left),
            "duplicates": len(verdict.duplicates),
            "losses": len(verdict.losses),
            "strays": len(verdict.strays),
            "held_out_reached": len(verdict.held_out),
            "after_unsubscribe": len(verdict.after_unsubscribe),
            "during_pause": len(verdict.during_pause),
            "unexplained": len(verdict.unexplained),
            "kills": of.kills,
            "in_flight": of.in_flight,
            "freezes": of.freezes,
            "paused": books.paused is not None,
            "calls": dict(of.calls),
            "longest_lag_ms": round(judge.lag(books).total_seconds() * 1000),
            "seconds": round(of.seconds, 1),
            "effects_per_second": round(len(books.approved) / of.seconds, 1),
            "controls": dict(self.controls),
            "troubles": [*of.troubles, *verdict.words()],
            "holds": self.holds,
        }


def judged(trial: Trial) -> Report:
    return Report(
        trial=trial, verdict=judge.judge(trial.books), controls=controls.tried(trial.books)
    )


def show(report: Report, console: Console) -> None:
    said = report.document()
    sums = Table(title=f"A campaign to {report.trial.recipients:,} people")
    sums.add_column("what")
    sums.add_column("how many", justify="right")
    for name, value in said.items():
        if isinstance(value, int | float | str):
            sums.add_row(name.replace("_", " "), value if isinstance(value, str) else f"{value:,}")
    console.print(sums)
    calls = Table(title="Calls, by the fault that hit them or the status they got")
    calls.add_column("call")
    calls.add_column("how many", justify="right")
    for name, many in sorted(report.trial.calls.items()):
        calls.add_row(name, f"{many:,}")
    console.print(calls)
    table = Table(title="Controls, each of which has to fail")
    table.add_column("control")
    table.add_column("verdict")
    for name, verdict in report.controls.items():
        table.add_row(name, verdict)
    console.print(table)
    for trouble in said["troubles"]:
        console.print(trouble, style="red", markup=False, highlight=False)


def write(report: Report, file: Path) -> None:
    file.write_text(json.dumps(report.document(), indent=2) + "\n")
