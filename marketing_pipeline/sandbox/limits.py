"""How many calls a provider takes, and how hard it was pushed."""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """At most this many calls in any span of that length."""

    calls: int
    window: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """What a provider's rate headers tell a caller."""

    limit: Limit
    remaining: int
    reset: timedelta  # until the oldest call leaves the window


# Generous, so that only a test that asks for a limit meets one; the spans are the providers' own.
DEFAULTS: Mapping[str, Limit] = {
    "hubspot": Limit(calls=200_000, window=timedelta(seconds=10)),
    "resend": Limit(calls=20_000, window=timedelta(seconds=1)),
    "mailgun": Limit(calls=20_000, window=timedelta(seconds=1)),
    "webhook": Limit(calls=20_000, window=timedelta(seconds=1)),
}


class Window:
    """The sliding window of one provider.

    Refused calls do not use up the limit, or a caller that hammers would never get in again; they
    do count towards the peak, which says what the caller sent.
    """

    def __init__(self, limit: Limit, history: Iterable[tuple[datetime, bool]] = ()) -> None:
        """history: instant and "was admitted" of the latest calls, oldest first."""
        self.limit = limit
        self._seen: deque[datetime] = deque()
        self._admitted: deque[datetime] = deque()
        for at, admitted in history:
            self._seen.append(at)
            if admitted:
                self._admitted.append(at)

    def enter(self, at: datetime) -> timedelta | None:
        """None when the call is within the limit, else how long until there is room."""
        start = at - self.limit.window
        for calls in (self._seen, self._admitted):
            while calls and calls[0] <= start:
                calls.popleft()
        self._seen.append(at)
        if len(self._admitted) >= self.limit.calls:
            return self._admitted[0] - start
        self._admitted.append(at)
        return None

    def pressure(self) -> int:
        """Calls seen in the window that ends with the latest one, refused ones included."""
        return len(self._seen)

    def allowance(self, at: datetime) -> Allowance:
        reset = self._admitted[0] + self.limit.window - at if self._admitted else timedelta()
        remaining = self.limit.calls - len(self._admitted)
        return Allowance(limit=self.limit, remaining=remaining, reset=reset)
