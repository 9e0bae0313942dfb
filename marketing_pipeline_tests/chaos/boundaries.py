"""Strikes at every message that an engine exchanges with anything, one trial each."""

import random
import tempfile
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import TypeVar

from marketing_pipeline_tests.chaos import batches, naming, trial
from marketing_pipeline_tests.chaos.bench import Batch, Bench, Ground, bench, ground
from marketing_pipeline_tests.chaos.proxy import Action, Fault, Side
from marketing_pipeline_tests.chaos.tally import Progress, Tally
from marketing_pipeline_tests.chaos.trial import Outcome

T = TypeVar("T")
_turn = threading.Lock()

AT_ONCE = 4  # trials that run side by side: most of a trial is waiting for a lease
POLLED = 4  # how many of one idle question are struck at
# To strike after a message is to strike before the next one of its connection: CI does without.
BRIEF = ((Action.KILL, Side.BEFORE), (Action.CUT, Side.BEFORE))
STRIKES = tuple((action, side) for action in (Action.KILL, Action.CUT) for side in Side)


@dataclass(frozen=True, slots=True)
class Strike:
    """A trial to come."""

    batch: Batch
    fault: Fault

    @property
    def kind(self) -> str:
        return f"{self.batch.name}: {self.fault.action} {self.fault.side}"


def run(budget: int, seed: int, progress: Progress) -> Tally:
    """As many trials as the budget says: every boundary once if it suffices, else a sample.

    A larger budget goes round again, for the order of messages differs from run to run.
    """
    with ground() as shared, benches(shared, AT_ONCE) as several:
        everything = every(several[0], batches.ALL, STRIKES)
        chance = random.Random(seed)  # noqa: S311 - it picks an order that a second run repeats
        chance.shuffle(everything)
        return strike(several, list(islice(cycle(everything), budget)), progress)


def every(
    own: Bench, some: Sequence[Batch], strikes: Sequence[tuple[Action, Side]]
) -> list[Strike]:
    """Every boundary of these batches with each of these strikes."""
    return [
        Strike(batch, Fault(message=name, occurrence=nth, action=action, side=side))
        for batch in some
        for name, nth in boundaries(own, batch)
        if not batch.about or any(word in name for word in batch.about)
        for action, side in strikes
    ]


def strike(several: Sequence[Bench], planned: Sequence[Strike], progress: Progress) -> Tally:
    """A trial each."""
    tally = Tally()
    for kind, trials in Counter(one.kind for one in planned).items():
        progress.expect(kind, trials)

    def do(own: Bench, one: Strike) -> None:
        outcome = trial.run(own, one.batch, one.fault)
        words = f"{one.batch.name}, {one.fault}"
        count(tally, outcome, one.kind, words)
        progress.done(one.kind)

    side_by_side(several, planned, do)
    return tally


def boundaries(own: Bench, batch: Batch) -> list[tuple[str, int]]:
    """The messages of a quiet run, as name and occurrence; idle questions only a few times."""
    trial.run(own, batch, None)  # the gate and the caches are cold
    counts = Counter(trial.run(own, batch, None).messages)
    return [
        (name, nth)
        for name, count in counts.items()
        for nth in range(1, 1 + (min(count, POLLED) if naming.is_poll(name) else count))
    ]


@contextmanager
def benches(shared: Ground, count: int) -> Iterator[list[Bench]]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        yield [stack.enter_context(bench(shared, folder / str(n))) for n in range(count)]


def side_by_side(
    several: Sequence[Bench], planned: Sequence[T], do: Callable[[Bench, T], None]
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
        tally.unknown[kind] += len(verdict.unknown)
        if outcome.crash:
            tally.crashes.append(f"{words}: {outcome.crash}")
        found = [verdict.words() if not verdict.clean else "", outcome.trouble or ""]
        if outcome.wrongly_held:
            found.append(f"UNKNOWN without need: {', '.join(outcome.wrongly_held)}")
        if any(found):
            said = "; ".join(one for one in found if one)
            tally.troubles.append(f"{words}: {said}")
