"""How long a provider asks us to wait: every unit in use, each by its name.

The same header name means seconds from now at one provider and an instant at another (RateLimit-
Reset: Resend, Bluesky), so the unit is guessed by the number's size only where nobody can know it.
"""

import math
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

SHORTEST = timedelta(seconds=1)  # "0" is taken as "soon": a wait of nothing would be a busy loop
_AN_INSTANT = 1e9  # seconds: in 2001 as an instant, and in 31 years as a span


def seconds(text: str | None) -> timedelta | None:
    """Seconds from now, fractions allowed."""
    number = _number(text)
    return None if number is None else _span(number)


def milliseconds(text: str | None) -> timedelta | None:
    """Milliseconds from now."""
    number = _number(text)
    return None if number is None else _span(number / 1000)


def epoch(text: str | None, now: datetime) -> timedelta | None:
    """An instant in seconds since 1970, fractions allowed."""
    number = _number(text)
    return None if number is None else _span(number - now.timestamp())


def seconds_or_epoch(text: str | None, now: datetime) -> timedelta | None:
    """Either, told apart by size: for a receiver that nobody has documented."""
    number = _number(text)
    is_instant = number is not None and number > _AN_INSTANT
    return epoch(text, now) if is_instant else seconds(text)


def http_date(text: str | None, now: datetime) -> timedelta | None:
    """An instant as in `Mon, 20 Dec 2021 20:33:21 UTC` (RFC 9110, RFC 5322)."""
    try:
        instant = parsedate_to_datetime(text or "")
    except (ValueError, OverflowError):
        return None
    if instant.tzinfo is None:  # RFC 5322 writes "unknown zone, but UTC" as -0000
        instant = instant.replace(tzinfo=UTC)
    return instant - now


def retry_after(text: str | None, now: datetime) -> timedelta | None:
    """A Retry-After: seconds or a date (RFC 9110, 10.2.3)."""
    wait = seconds(text)
    return http_date(text, now) if wait is None else wait


def first(
    waits: Iterable[timedelta | None], *, default: timedelta, longest: timedelta
) -> timedelta:
    """The first wait that can be meant, else the default: one that is over or absurd is no hint."""
    for wait in waits:
        if wait is not None and timedelta(0) <= wait <= longest:
            return max(wait, SHORTEST)
    return default


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _span(number: float) -> timedelta | None:
    try:
        return timedelta(seconds=number)
    except OverflowError:
        return None
