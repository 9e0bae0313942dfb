"""Schedules as people read them."""

from datetime import UTC, datetime, timedelta
from typing import assert_never
from zoneinfo import ZoneInfo

from cronsim import CronSim

from marketing_pipeline.domain.occurrences import Dst, Late, Missed, Schedule

_ANY = datetime(2020, 1, 1, tzinfo=UTC)  # a cron is read from some moment on


def in_words(schedule: Schedule) -> str:
    """When it fires, by the clocks there."""
    if schedule.at is not None:
        return f"once at {schedule.at:%Y-%m-%d %H:%M}, {schedule.timezone}"
    assert schedule.cron is not None, "a schedule has one of the two"
    return f"{CronSim(schedule.cron, _ANY).explain()}, {schedule.timezone} ({schedule.cron})"


def rules(schedule: Schedule) -> str:
    """What becomes of times that are not there or there twice, and of those that are missed."""
    return f"{_when_clocks_are_set(schedule.dst)} {_when_missed(schedule.missed)}"


def moment(instant: datetime, timezone: str) -> str:
    """Local time with its zone, and UTC."""
    local, utc = instant.astimezone(ZoneInfo(timezone)), instant.astimezone(UTC)
    form = "%H:%M" if local.date() == utc.date() else "%Y-%m-%d %H:%M"
    return f"{local:%Y-%m-%d %H:%M} {timezone} ({utc:{form}} UTC)"


def _when_clocks_are_set(dst: Dst) -> str:
    match dst:
        case Dst.SKIP:
            return "A time that the clocks skip is left out; one that comes twice fires once."
        case Dst.SHIFT:
            return "A time that the clocks skip fires later; one that comes twice fires twice."
        case Dst.ONCE:
            return "A time that the clocks skip fires later; one that comes twice fires once."
        case _:
            assert_never(dst)


def _when_missed(missed: Missed) -> str:
    within = _span(missed.within)
    match missed.policy:
        case Late.CATCH_UP:
            return (
                f"Of what was missed, up to {missed.at_most} are made good for {within} (catch_up)."
            )
        case Late.LATEST:
            return f"Of what was missed, the newest is made good for {within} (latest)."
        case Late.DROP:
            return "What was missed is not made good (drop)."
        case _:
            assert_never(missed.policy)


def _span(span: timedelta) -> str:
    """In the largest unit that it is a whole number of."""
    seconds = span.total_seconds()
    for unit, of in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds % of == 0:
            return f"{seconds / of:.0f}{unit}"
    return f"{seconds:g}s"
