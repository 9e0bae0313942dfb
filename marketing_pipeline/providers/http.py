"""From a call to what it came to: every way an exchange can end becomes a value."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import httpx

from marketing_pipeline import telemetry
from marketing_pipeline.domain.outcome import (
    Ambiguous,
    Blocked,
    Finding,
    Inconclusive,
    Outcome,
    Throttled,
    Unreached,
)
from marketing_pipeline.providers import answer
from marketing_pipeline.providers.observed import Observed
from marketing_pipeline.providers.protocol import Provider
from marketing_pipeline.providers.transport import AnswerLost, NotWritten, Transport


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """What a send came to."""

    outcome: Outcome
    status_code: int | None  # None: there was no answer
    latency: timedelta  # waiting for a connection included
    observed: tuple[Observed, ...]  # what the answer says is left of the provider's limits


@dataclass(frozen=True, slots=True, kw_only=True)
class Inquiry:
    """What a look-up came to."""

    finding: Finding
    held: Throttled | Blocked | None  # what the answer says to all of us, whatever was asked
    status_code: int | None
    latency: timedelta
    observed: tuple[Observed, ...]


async def call(
    transport: Transport,
    provider: Provider,
    request: httpx.Request,
    *,
    now: datetime,
    within: timedelta | None = None,
    before_write: Callable[[], None] | None = None,
) -> Exchange:
    """Send once; `now` is the instant of calling, from which the answer's is reckoned."""
    began = time.monotonic()
    response: httpx.Response | None = None
    outcome: Outcome
    observed: tuple[Observed, ...] = ()
    try:
        response = await transport.send(request, within=within, before_write=before_write)
        outcome = _read(provider, response, now + _since(began))
        observed = _observed(provider, response, now + _since(began))
    except NotWritten as error:
        outcome = Unreached(error.reason)
    except AnswerLost as error:
        outcome = Ambiguous(error.reason)
    status = None if response is None else response.status_code
    return Exchange(outcome=outcome, status_code=status, latency=_since(began), observed=observed)


async def look_up(
    transport: Transport,
    provider: Provider,
    request: httpx.Request,
    *,
    effect_id: UUID,
    now: datetime,
    within: timedelta | None = None,
    before_write: Callable[[], None] | None = None,
) -> Inquiry:
    """Ask once; whatever goes wrong on the way says nothing about the attempt."""
    began = time.monotonic()
    response: httpx.Response | None = None
    finding: Finding
    held: Throttled | Blocked | None = None
    observed: tuple[Observed, ...] = ()
    try:
        response = await transport.send(request, within=within, before_write=before_write)
        finding = _find(provider, response, effect_id)
        held = _held(provider, response, now + _since(began))
        observed = _observed(provider, response, now + _since(began))
    except (NotWritten, AnswerLost) as error:
        finding = Inconclusive(error.reason)
    status = None if response is None else response.status_code
    return Inquiry(
        finding=finding, held=held, status_code=status, latency=_since(began), observed=observed
    )


def _read(provider: Provider, response: httpx.Response, now: datetime) -> Outcome:
    """The adapter's verdict; an answer that it stumbles over is one that nobody can rely on."""
    try:
        return provider.outcome(response, now)
    except Exception as error:  # the mail is out or not: a bug in reading must not lose which
        return Ambiguous(answer.words(response, f"unreadable: {type(error).__name__}"))


def _find(provider: Provider, response: httpx.Response, effect_id: UUID) -> Finding:
    try:
        return provider.finding(response, effect_id)
    except Exception as error:
        return Inconclusive(answer.words(response, f"unreadable: {type(error).__name__}"))


def _held(
    provider: Provider, response: httpx.Response, now: datetime
) -> Throttled | Blocked | None:
    """A limit reached, or a key no longer good, holds back sends and look-ups alike."""
    if response.status_code not in {401, 402, 403, 429}:
        return None
    outcome = _read(provider, response, now)
    return outcome if isinstance(outcome, Throttled | Blocked) else None


def _observed(provider: Provider, response: httpx.Response, now: datetime) -> tuple[Observed, ...]:
    """A header that an adapter stumbles over must not lose what the call came to."""
    try:
        return provider.observed(response, now)
    except Exception as error:
        telemetry.emit("limit_ignored", provider=provider.name, reason=type(error).__name__)
        return ()


def _since(began: float) -> timedelta:
    return timedelta(seconds=time.monotonic() - began)
