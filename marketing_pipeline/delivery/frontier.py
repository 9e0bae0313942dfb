"""Where a look for due work begins: not among what was taken a moment ago.

What was taken leaves its entry in an index of open work until no snapshot is older: while a backup
reads the log for an hour, each look from the front would step over all that was done in that hour.
"""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Place = TypeVar("Place")


@dataclass(frozen=True, slots=True, kw_only=True)
class Look(Generic[Place]):
    """One look, from a place on."""

    since: Place
    whole: bool  # at all there is


@dataclass(slots=True, kw_only=True)
class Frontier(Generic[Place]):
    """Of work that is taken in the order of an index.

    What comes to lie before the place that was reached (it was dated back, or held by somebody
    else when it was passed) is found by looks at all there is. Where these are cheap each look is
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

    @contextmanager
    def look(self) -> Iterator[Look[Place]]:
        began = time.monotonic()
        whole = began >= self._whole_at
        yield Look(since=self.first if whole else self.reached, whole=whole)
        if whole:
            ended = time.monotonic()
            self._whole_at = ended + (ended - began) / self.share
