"""Makes one call under a grant and a claim, and says what it tells of the provider's health."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import assert_never

from marketing_pipeline.delivery.claiming import Call, clock
from marketing_pipeline.delivery.gate import Health
from marketing_pipeline.domain.outcome import (
    Accepted,
    Ambiguous,
    Blocked,
    Finding,
    Outcome,
    Refused,
    Throttled,
    Unreached,
)
from marketing_pipeline.event_log.ledger import Purpose
from marketing_pipeline.providers import http
from marketing_pipeline.providers.observed import Observed
from marketing_pipeline.providers.protocol import Provider
from marketing_pipeline.providers.transport import NotWritten, Transport


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What a call came to."""

    answer: Outcome | Finding
    held: Throttled | Blocked | None  # said on a look-up to all of us
    status_code: int | None  # None: there was no answer
    latency: timedelta
    health: Health
    observed: tuple[Observed, ...]


@dataclass(slots=True, kw_only=True)
class LastCheck:
    """Asked before the first byte is written: is the grant good, does the claim still hold?"""

    grant_until: float  # by `claiming.clock`
    claim_until: float  # by `claiming.clock`; well before the lease ends
    grant_expired: bool = False
    claim_expired: bool = False

    def __call__(self) -> None:
        if not self.left():
            what = "grant" if self.grant_expired else "claim"
            raise NotWritten(f"the {what} ran out before the write")

    def left(self) -> timedelta:
        """How long a call may take that begins now; nothing where it must not."""
        now = clock()
        self.grant_expired |= now > self.grant_until
        self.claim_expired |= now >= self.claim_until
        if self.grant_expired or self.claim_expired:
            return timedelta(0)
        return timedelta(seconds=self.claim_until - now)


async def make(
    transport: Transport, provider: Provider, call: Call, now: datetime, check: LastCheck
) -> Made:
    """Call, or look up, once; `now` is the instant of calling."""
    left = check.left()
    if call.purpose is Purpose.LOOK_UP:
        inquiry = await http.look_up(
            transport,
            provider,
            call.request,
            effect_id=call.effect.id,
            now=now,
            within=left,
            before_write=check,
        )
        return Made(
            answer=inquiry.finding,
            held=inquiry.held,
            status_code=inquiry.status_code,
            latency=inquiry.latency,
            health=_after_look_up(inquiry.status_code, check),
            observed=inquiry.observed,
        )
    exchange = await http.call(
        transport, provider, call.request, now=now, within=left, before_write=check
    )
    outcome = exchange.outcome
    if check.grant_expired and isinstance(outcome, Unreached):  # waiting for a turn is not failing
        outcome = Throttled(timedelta(0), outcome.reason)
    return Made(
        answer=outcome,
        held=None,
        status_code=exchange.status_code,
        latency=exchange.latency,
        health=_after(outcome, check),
        observed=exchange.observed,
    )


def _after(outcome: Outcome, check: LastCheck) -> Health:
    """A refusal is a sign of life; a write that we ourselves forbade is no sign of anything."""
    if check.grant_expired or check.claim_expired:
        return Health.UNUSED
    match outcome:
        case Unreached() | Ambiguous():
            return Health.FAILED
        case Accepted() | Throttled() | Blocked() | Refused():
            return Health.HEALTHY
        case _:
            assert_never(outcome)


def _after_look_up(status_code: int | None, check: LastCheck) -> Health:
    """What a search found says nothing of the provider; that it did not answer does."""
    if check.grant_expired or check.claim_expired:
        return Health.UNUSED
    return Health.FAILED if status_code is None or status_code >= 500 else Health.HEALTHY
