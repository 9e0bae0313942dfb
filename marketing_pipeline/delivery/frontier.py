"""Where a look for due work begins: not among what was taken a moment ago.

What was taken leaves its entry in an index of open work until no snapshot is older: while a backup
reads the log for an hour, each look from the front would step over all that was done in that hour.
"""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Generic, TypeVar

# By so much a look begins before the place: rows are written in another order than they commit.
OVERLAP = timedelta(seconds=2)
LONGEST = 5.0  # seconds until the next look at all there is: one may have taken long in vain

Place = TypeVar("Place")


@dataclass(frozen=True, slots=True, kw_only=True)
class Look(Generic[Place]):
    """One look, from a place on."""

    since: Place
    whole: bool  # at all there is
    began: float  # monotonic


@dataclass(slots=True, kw_only=True)
class Idleness:
    """Since when there has been nothing to do, as far as one who looks for work knows."""

    since: float | None = None  # monotonic; None: there is work, or nobody knows yet
    sure: float = -math.inf  # when the latest look at all there is began that found nothing

    def found(self) -> None:
        self.since = None

    def found_nothing(self, *, whole: bool, began: float) -> None:
        """By a look that was not whole there is none to begin with."""
        if whole:
            self.sure = began
            if self.since is None:
                self.since = time.monotonic()


@dataclass(slots=True, kw_only=True)
class Frontier(Generic[Place]):
    """Of work that is taken in the order of an index.

    What comes to lie before the place that was reached (it was dated back, or nobody could take it
    when it was passed) is found by looks at all there is. Where these are cheap nearly each look is
    one; where they are not, so many are that they take their share of the time.
    """

    first: Place  # before all there can be
    share: float = 0.1  # of the time, for looks at all there is
    reached: Place = field(init=False)  # by what was taken last
    _whole_at: float = -math.inf  # monotonic: when all there is may be looked at again

    def __post_init__(self) -> None:
        self.reached = self.first

    @property
    def whole_in(self) -> float:
        """Seconds until all there is may be looked at."""
        return max(self._whole_at - time.monotonic(), 0)

    def look_whole(self) -> None:
        """Let the next look be at all there is: something is known to be there."""
        self._whole_at = -math.inf

    @contextmanager
    def look(self) -> Iterator[Look[Place]]:
        began = time.monotonic()
        whole = began >= self._whole_at
        yield Look(since=self.first if whole else self.reached, whole=whole, began=began)
        if whole:
            ended = time.monotonic()
            self._whole_at = ended + min((ended - began) / self.share, LONGEST)

    def reach(self, place: Place, look: Look[Place]) -> None:
        """Begin there from now on, unless somebody who looked meanwhile has come to another place.

        A look at all there is may have found something further back, and goes on from there.
        """
        if look.whole or self.reached is look.since:
            self.reached = place
