"""A clock for the sandbox that tests move by hand."""

from datetime import UTC, datetime


class Clock:
    """Starts on a day of its own, and stands still until it is moved."""

    def __init__(self) -> None:
        self.now = datetime(2026, 3, 1, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now
