"""Engines that stand still past their lease, and providers that are slower than they say.

The residual of design and README: an engine frozen between its last check and the write, and a
provider that acts later than its settle delay. The first is at no message, so a freeze here is
never there; the second is shown by controls.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle, islice

from marketing_pipeline_tests.chaos import batches, boundaries, trial
from marketing_pipeline_tests.chaos.bench import Batch, Bench, ground
from marketing_pipeline_tests.chaos.proxy import Action, Fault, Side
from marketing_pipeline_tests.chaos.tally import Progress, Tally
from marketing_pipeline_tests.chaos.trial import Outcome

MAILGUN, RESEND = "POST mailgun messages", "POST resend emails"
KEPT = 0.7  # seconds that a key of batches.FORGETTING lives


@dataclass(frozen=True, slots=True)
class Case:
    """A trial to come."""

    kind: str
    words: str
    run: Callable[[Bench], Outcome]


def run(budget: int, seed: int, progress: Progress) -> Tally:
    """The named cases once, and freezes at as many boundaries as the budget leaves."""
    tally = Tally()
    with ground() as shared, boundaries.benches(shared, boundaries.AT_ONCE) as several:
        cases = [*NAMED, *islice(freezes(several[0], seed), max(0, budget - len(NAMED)))]
        for kind in sorted({case.kind for case in cases}):
            progress.expect(kind, sum(case.kind == kind for case in cases))

        def do(own: Bench, case: Case) -> None:
            boundaries.count(tally, case.run(own), case.kind, case.words)
            progress.done(case.kind)

        boundaries.side_by_side(several, cases, do)
    return tally


def freezes(own: Bench, seed: int) -> "cycle[Case]":
    """A freeze at every boundary, in an order of the seed's, for ever."""
    cases = [
        _freeze(batch, Fault(message=name, occurrence=nth, action=Action.FREEZE, side=side))
        for batch in batches.ALL
        for name, nth in boundaries.boundaries(own, batch)
        for side in Side
    ]
    random.Random(seed).shuffle(cases)  # noqa: S311 - an order that a second run repeats
    return cycle(cases)


def _freeze(batch: Batch, fault: Fault) -> Case:
    kind = f"{batch.name}: {fault.action} {fault.side}"
    return Case(kind, f"{batch.name}, {fault}", lambda bench: trial.freeze(bench, batch, fault))


def _answer_lost(message: str, action: Action) -> Fault:
    return Fault(message=f"provider < {message}", occurrence=1, action=action, side=Side.BEFORE)


def _late(message: str, seconds: float) -> Fault:
    return Fault(
        message=f"provider > {message}",
        occurrence=1,
        action=Action.LATE,
        side=Side.BEFORE,
        late=seconds,
    )


def _acts_late(message: str, seconds: float) -> Callable[[Bench], Outcome]:
    """A request that arrives long after its connection has ended; the index shows it at once."""

    def run(bench: Bench) -> Outcome:
        fault = _late(message, seconds)
        return trial.run(bench, batches.SEARCHED, fault, before=lambda: bench.index_after(0))

    return run


def _seen_late(seconds: float) -> Callable[[Bench], Outcome]:
    """A mail that is taken and that the search does not show for so long."""

    def run(bench: Bench) -> Outcome:
        fault = _answer_lost(MAILGUN, Action.KILL)
        return trial.run(bench, batches.SEARCHED, fault, before=lambda: bench.index_after(seconds))

    return run


def _forgotten(batch: Batch) -> Callable[[Bench], Outcome]:
    """The answer is lost, and the provider forgets the key before anybody can repeat the call."""

    def run(bench: Bench) -> Outcome:
        def expire() -> None:
            time.sleep(KEPT)
            bench.forget_keys()

        return trial.run(bench, batch, _answer_lost(RESEND, Action.KILL), meanwhile=expire)

    return run


def _held(run: Callable[[Bench], Outcome]) -> Callable[[Bench], Outcome]:
    """The effect has to end UNKNOWN: anything else is a trouble."""

    def checked(bench: Bench) -> Outcome:
        outcome = run(bench)
        assert outcome.verdict.unknown, f"nothing was held: {outcome.verdict.words() or 'all sent'}"
        return outcome

    return checked


def _sent_twice(run: Callable[[Bench], Outcome]) -> Callable[[Bench], bool]:
    return lambda bench: bool(run(bench).verdict.twice)


NAMED = (
    Case("acts within the settle delay", "a late act", _acts_late(MAILGUN, 0.3)),
    Case("seen within the settle delay", "a late index", _seen_late(0.5)),
    Case("a key expires", "a dead key", _held(_forgotten(batches.FORGETTING))),
)
CONTROLS = {  # the residual, shown: what no engine can know
    "a provider that acts after its settle delay": _sent_twice(_acts_late(MAILGUN, 60)),
    "a provider that shows mails after its settle delay": _sent_twice(_seen_late(30)),
    "a provider that forgets keys before their life": _sent_twice(_forgotten(batches.KEYED)),
}
