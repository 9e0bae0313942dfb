"""Strikes at every message that an engine exchanges with anything, one trial each."""

import random
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from marketing_pipeline_tests.chaos import batches, trial
from marketing_pipeline_tests.chaos.bench import Batch, Bench, Ground, bench, ground
from marketing_pipeline_tests.chaos.proxy import Action, Fault, Side
from marketing_pipeline_tests.chaos.tally import Progress, Tally
from marketing_pipeline_tests.chaos.trial import Outcome

_turn = threading.Lock()

AT_ONCE = 3  # trials that run side by side: most of a trial is waiting for a lease
SLACK = 5  # messages beyond a quiet run's count that are tried too: no two runs have equally many
STRIKES = tuple((action, side) for action in (Action.KILL, Action.CUT) for side in Side)


@dataclass(frozen=True, slots=True)
class Planned:
    """A trial to come."""

    batch: Batch
    fault: Fault


def run(budget: int, seed: int, progress: Progress) -> Tally:
    """As many trials as the budget says: every boundary once if it suffices, else a sample.

    A larger budget goes round again, for the order of messages differs from run to run.
    """
    tally = Tally()
    with ground() as shared:
        for batch in batches.ALL:
            shared.template(batch)
        with benches(shared, AT_ONCE) as several:
            planned = list(islice(rounds(several[0], seed), budget))
            for kind in sorted({_kind(one) for one in planned}):
                progress.expect(kind, sum(_kind(one) == kind for one in planned))
            side_by_side(several, planned, lambda own, one: _try(own, one, tally, progress))
    return tally


def rounds(own: Bench, seed: int) -> Iterator[Planned]:
    """Every boundary of every batch with every strike, in an order of the seed's, for ever."""
    counts = {batch: messages(own, batch) for batch in batches.ALL}
    everything = [
        Planned(batch, Fault(n=n, action=action, side=side))
        for batch, count in counts.items()
        for n in range(1, count + 1)
        for action, side in STRIKES
    ]
    chance = random.Random(seed)  # noqa: S311 - it picks an order that a second run repeats
    while True:
        chance.shuffle(everything)
        yield from everything


def messages(own: Bench, batch: Batch) -> int:
    """How many messages a quiet run exchanges; the first run's gate and caches are cold."""
    return max(trial.run(own, batch, None).messages for _ in range(2)) + SLACK


@contextmanager
def benches(shared: Ground, count: int) -> Iterator[list[Bench]]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        yield [stack.enter_context(bench(shared, folder / str(n))) for n in range(count)]


def side_by_side(
    several: Sequence[Bench], planned: Sequence[Planned], do: Callable[[Bench, Planned], None]
) -> None:
    """Share the trials out among the benches; an error of one ends all, and is raised."""
    waiting = deque(planned)

    def work(own: Bench) -> None:
        while waiting:
            try:
                one = waiting.popleft()
            except IndexError:  # another was quicker
                return
            try:
                do(own, one)
            except BaseException:
                waiting.clear()
                raise

    with ThreadPoolExecutor(len(several)) as workers:
        for done in [workers.submit(work, own) for own in several]:
            done.result()


def count(tally: Tally, outcome: Outcome, kind: str, words: str) -> None:
    """Add a trial to the sums; callers on several threads take turns."""
    if not outcome.struck:
        return
    verdict = outcome.verdict
    with _turn:
        tally.trials[kind] += 1
        tally.effects += verdict.effects
        tally.duplicates += len(verdict.twice)
        tally.losses += len(verdict.lost) + len(verdict.unaccounted)
        tally.unknown += len(verdict.unknown)
        found = [verdict.words() if not verdict.clean else "", outcome.trouble or ""]
        if any(found):
            said = "; ".join(one for one in found if one)
            tally.troubles.append(f"{words} ({outcome.struck}): {said}")


def _kind(one: Planned) -> str:
    return f"{one.batch.name}: {one.fault.action} {one.fault.side}"


def _try(own: Bench, one: Planned, tally: Tally, progress: Progress) -> None:
    outcome = trial.run(own, one.batch, one.fault)
    count(tally, outcome, _kind(one), f"{one.batch.name}, {one.fault}")
    progress.done(_kind(one))
