"""Which failed work may be tried once more, by a job that nobody watches."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from marketing_pipeline.domain import plan
from marketing_pipeline.domain.event import Event
from marketing_pipeline.domain.rules import Rules, Unplannable

MOST = 1  # redrives of one effect: what fails again in spite of that is for a person
# A daily job sees each failure within a day, also on a day on which it starts late.
FRESH = timedelta(hours=26)
# Outcomes after which it is certain that the provider did nothing and had nothing against it.
_SAFE = frozenset({"UNREACHED", "ABSENT"})


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedEffect:
    """A FAILED effect, with what is known of its last attempt and its person."""

    id: UUID
    event_id: UUID
    provider: str
    last_outcome: str | None  # of the last attempt; None: it was never attempted
    last_error: str
    redrives: int
    expires_at: datetime | None
    erased: bool
    suppressed: str | None  # why the person must not be reached
    once_lost: bool  # another effect has taken what `once` grants a single one
    superseded: bool  # a newer write for the same contact has gone out, or may have
    cancelled: str | None  # why a person cancelled its campaign
    resent: bool  # its event was planned again in a later epoch
    forgotten: bool  # it failed before the log was adopted, and may have been redriven since


def why_not(failed: FailedEffect, providers: Collection[str], now: datetime) -> str | None:
    """Why the effect must stay FAILED; None where sending it once more is safe.

    FAILED says that it certainly was not done, so a repeat cannot be a duplicate. It is still not
    wanted where the provider refused it or it could not be rendered: the same bytes would meet
    the same answer. `providers` are those that the operator's file has today.
    """
    if failed.cancelled is not None:
        return f"cancelled: {failed.cancelled}"
    if failed.resent:
        return "resent: its event was planned again in a later epoch, which sends it"
    if failed.last_outcome is None:
        return f"never attempted: {failed.last_error}"
    if failed.last_outcome not in _SAFE:
        return f"{failed.last_outcome.lower()}: {failed.last_error}"
    if failed.redrives >= MOST:
        return f"failed again after it was redriven: {failed.last_error}"
    if failed.forgotten:
        return "adopted: this log was restored, and may have sent it in its earlier life"
    if failed.erased:
        return "erased: the person's address is gone"
    if failed.suppressed is not None:
        return f"suppressed: {failed.suppressed}"
    if failed.once_lost:
        return "once: another effect has reached this person, or will"
    if failed.superseded:
        return "superseded: newer data has gone to this contact, and older would replace it"
    if failed.expires_at is not None and failed.expires_at <= now:
        return f"stale: its time was up at {failed.expires_at:%Y-%m-%d %H:%M:%SZ}"
    if failed.provider not in providers:
        return f"the file has no provider {failed.provider!r} any more"
    return None


def why_not_planned(event: Event, due_since: datetime, rules: Rules, now: datetime) -> str | None:
    """Why an event that failed without a plan must stay so; None where it can be planned now.

    Planning is pure, so it is tried here: an event is put back when the file has been mended, and
    not once a day to fail in the same way. What is old is left to a person, like old mail.
    """
    if now - due_since > FRESH:
        return f"too old to be planned by itself: due since {due_since:%Y-%m-%d %H:%M:%SZ}"
    try:
        for _ in plan.effects(event, rules, epoch=0, audience=()):
            pass
    except Unplannable as error:
        return str(error)
    except Exception as error:  # a poisonous event must not stop the others
        return f"planning raised {type(error).__name__}: {error}"
    return None
