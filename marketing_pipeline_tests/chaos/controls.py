"""What must fail in the same harness: a judge that never says no has not been asked."""

from collections.abc import Callable

from marketing_pipeline_tests import plain_hook
from marketing_pipeline_tests.chaos import batches, frozen, limits, trial
from marketing_pipeline_tests.chaos.bench import Bench, ground
from marketing_pipeline_tests.chaos.boundaries import benches
from marketing_pipeline_tests.chaos.judge import Verdict
from marketing_pipeline_tests.chaos.proxy import Action, Fault, Side
from marketing_pipeline_tests.chaos.tally import FAILED_AS_IT_MUST, PASSED, Progress, Tally

Control = Callable[[Bench], bool]
"""Does something wrong on a bench; True where it was caught."""

_SEND = "POST mailgun messages"
_HOOK_ANSWERED = f"provider < POST webhook {plain_hook.NAME}"
_ASKED, _ANSWERED = f"provider > {_SEND}", f"provider < {_SEND}"


def run(budget: int, seed: int, progress: Progress) -> Tally:  # noqa: ARG001 - each, once
    """Every control once, whatever the budget: they are few, and none may be left out."""
    tally = Tally()
    controls = registered()
    progress.expect("control", len(controls))
    with ground() as shared, benches(shared, 1) as (bench,):
        for name, control in controls.items():
            tally.controls[name] = FAILED_AS_IT_MUST if control(bench) else PASSED
            progress.done("control")
    return tally


def registered() -> dict[str, Control]:
    """These and those of the limits' suite, whose harness is its own."""
    return CONTROLS | limits.CONTROLS


def _strike(action: Action, message: str) -> Fault:
    return Fault(message=message, occurrence=1, action=action, side=Side.BEFORE)


def _alerts(bench: Bench) -> bool:
    """No flaw: what a plain hook gets again after a lost answer, as `at_least_once` says."""
    outcome = trial.run(bench, batches.ALERTS, _strike(Action.KILL, _HOOK_ANSWERED))
    assert outcome.struck, f"there was no {_HOOK_ANSWERED!r} to strike at"
    return bool(outcome.verdict.twice)


def _flawed(flaw: str, fault: Fault, caught: Callable[[Verdict], object]) -> Control:
    def control(bench: Bench) -> bool:
        outcome = trial.run(bench, batches.SEARCHED, fault, flaw=flaw)
        assert outcome.struck, f"{flaw}: there was no {fault.message!r} to strike at"
        return bool(caught(outcome.verdict))

    return control


CONTROLS: dict[str, Control] = {
    "the usual recipe": _flawed(
        "follows the usual recipe",
        _strike(Action.KILL, _ANSWERED),
        lambda verdict: verdict.twice,
    ),
    "the attempt recorded after the call": _flawed(
        "records the attempt after the call",
        _strike(Action.KILL, _ANSWERED),
        lambda verdict: verdict.twice,
    ),
    "the transport's ConnectTimeout believed": _flawed(
        "believes that a lost answer was never asked for",
        _strike(Action.CUT, _ANSWERED),
        lambda verdict: verdict.twice,
    ),
    "settled before the call": _flawed(
        "settles before the call",
        _strike(Action.KILL, _ASKED),
        lambda verdict: verdict.lost,
    ),
    "a plain hook that is declared at_least_once": _alerts,
    **frozen.CONTROLS,
}
