"""Claims due effects: decides what each calls for and writes the attempt before any call."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import assert_never
from uuid import UUID, uuid4

import httpx
from psycopg import AsyncConnection, Rollback

from marketing_pipeline.campaigns.rendering import TemplateError
from marketing_pipeline.delivery.assembly import Destination
from marketing_pipeline.delivery.contents import Contents
from marketing_pipeline.delivery.frontier import OVERLAP, Frontier, Look
from marketing_pipeline.domain import decide, digest
from marketing_pipeline.domain.decide import GiveUp, LookUp, Repeat
from marketing_pipeline.domain.effect import Effect, EffectState
from marketing_pipeline.event_log import ledger
from marketing_pipeline.event_log.ledger import (
    ALWAYS,
    Begun,
    Candidate,
    Closed,
    NewAttempt,
    Purpose,
    Reach,
    Since,
)


def clock() -> float:
    """Seconds that go on while the machine sleeps, as leases do, where the system counts them."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call to make: the attempt is on record already."""

    effect: Effect  # as it is after the claim
    event_id: UUID
    purpose: Purpose
    number: int
    request: httpx.Request
    keeps_body: bool


@dataclass(slots=True, kw_only=True)
class Claim:
    """What one claim took, and what it ended without a call."""

    id: UUID = field(default_factory=uuid4)
    began: float = field(default_factory=clock)  # just before any of it was on record
    calls: list[Call] = field(default_factory=list)
    closed: list[Closed] = field(default_factory=list)
    begun: Begun | None = None  # where there are calls


def front() -> Frontier[Since]:
    """Of a provider of which nothing is claimed yet."""
    return Frontier(first=ALWAYS)


async def claim(
    conn: AsyncConnection,
    destination: Destination,
    contents: Contents,
    limit: int,
    upto: Frontier[Since],
) -> Claim:
    """Claim up to `limit` effects in one transaction of its own.

    upto: of whoever makes one claim after the other.
    """
    taken = Claim()
    async with conn.transaction() as transaction:
        with upto.look() as look:
            found = await _whose_turn_it_is(conn, destination.provider.name, limit, look.since)
        if not found:
            return taken
        candidates = [candidate for candidate, _ in found]
        await contents.prepare(conn, candidates)
        bodies = await _bodies(conn, destination, candidates)
        for candidate, reach in found:
            made = call(destination, contents, candidate, reach, bodies)
            if isinstance(made, Closed):
                taken.closed.append(made)
            else:
                taken.calls.append(made)
        now = candidates[0].now
        if taken.calls:
            attempts = [attempt(one, destination) for one in taken.calls]
            name = destination.provider.name
            taken.begun = await ledger.claim(conn, name, taken.id, attempts, now)
        if taken.closed:
            await ledger.close_unsent(conn, taken.closed, now)
        if taken.calls and is_late(taken.began, destination):
            taken = Claim()
            raise Rollback(transaction)
    if taken.calls or taken.closed:
        upto.reach(_reached(upto.reached, look, candidates, full=len(found) == limit), look)
    return taken


def is_late(began: float, destination: Destination) -> bool:
    """Has this process stood still since? Its calls would have no time left, and others would doubt
    what was never sent: such a claim is not committed."""
    return clock() > began + destination.entry.call_timeout.total_seconds()


def _reached(before: Since, look: Look[Since], taken: Sequence[Candidate], *, full: bool) -> Since:
    """How far these lie, and as before for a priority of which none was taken.

    full: more may be due, but what could be taken lies behind the last one.
    """
    reached = {one.priority: one.due_at for one in taken}  # of each the latest: they are in order
    behind = taken[-1].priority if full else None
    return [
        max(since, reached[n] - (timedelta() if n == behind else OVERLAP))
        if n in reached
        else stays
        for n, (since, stays) in enumerate(zip(look.since, before, strict=True))
    ]


async def _whose_turn_it_is(
    conn: AsyncConnection, provider: str, limit: int, since: Since
) -> list[tuple[Candidate, Reach]]:
    """Due effects, locked, with what is in their way; looked for once more where some were left.

    What was called for since a candidate was found is seen once its key is had.
    """
    found: list[tuple[Candidate, Reach]] = []
    passed: list[UUID] = []
    while len(found) < limit:
        due = await ledger.lock_due(conn, provider, limit - len(found), passed, since)
        people = {c.recipient_id for c in due if c.recipient_id}
        keys = {c.ordering_key for c in due if c.ordering_key}
        reach = await ledger.reach(conn, people, keys, wait=True)
        having = [(one, reach) for one in due if reach.lets(one.ordering_key)]
        found += having
        passed += [one.id for one in due]
        if len(having) == len(due):
            break
    return found


async def _bodies(
    conn: AsyncConnection, destination: Destination, candidates: list[Candidate]
) -> Mapping[UUID, bytes]:
    doubtful = [c.id for c in candidates if c.doubt_since is not None]
    if not doubtful or not destination.provider.compares_payload:
        return {}
    return await ledger.bodies(conn, doubtful)


def attempt(call: Call, destination: Destination) -> NewAttempt:
    """What goes on record before the call."""
    body = call.request.read()
    sends = call.purpose is Purpose.SEND
    return NewAttempt(
        effect_id=call.effect.id,
        purpose=call.purpose,
        request_sha256=digest.sha256(body) if sends else None,
        request_body=body if sends and call.keeps_body else None,
        setup=destination.setup,
        lease=destination.lease,
    )


def call(
    destination: Destination,
    contents: Contents,
    candidate: Candidate,
    reach: Reach,
    bodies: Mapping[UUID, bytes],
) -> Call | Closed:
    """What a candidate calls for: a send, a repeat, a look-up, or its end."""
    contract = destination.provider.contract
    step: Repeat | LookUp | GiveUp | None = None
    if candidate.doubt_since is not None:
        step = decide.in_doubt(_effect(candidate, 0), contract, candidate.now)
    reason = _why_not(candidate, reach)
    if reason is not None and not isinstance(step, LookUp):
        # After an ambiguous attempt nobody may claim that nothing was sent.
        state = EffectState.SUPPRESSED if step is None else EffectState.UNKNOWN
        return _closed(candidate, state, reason)
    if step is not None and candidate.setup not in {None, destination.setup}:
        why = "the provider was set up differently when it was called: what is asked now is another"
        return _closed(candidate, EffectState.UNKNOWN, why)
    match step:
        case GiveUp(why):
            return _closed(candidate, EffectState.UNKNOWN, why)
        case LookUp():
            return _look_up(destination, candidate)
        case Repeat() | None:
            return _send(destination, contents, candidate, bodies.get(candidate.id))
        case _:
            assert_never(step)


def _why_not(candidate: Candidate, reach: Reach) -> str | None:
    person, suppressed = candidate.recipient_id, reach.suppressed
    if person is not None and candidate.address is None:
        return "erased: the person's address is gone"
    if person is not None and (
        reason := suppressed.get((person, "all")) or suppressed.get((person, candidate.kind))
    ):
        return reason
    if candidate.cancelled is not None:
        return f"cancelled: {candidate.cancelled}"
    if candidate.expires_at is not None and candidate.now > candidate.expires_at:
        return f"stale: its time was up at {candidate.expires_at:%Y-%m-%d %H:%M:%SZ}"
    return None


def _send(
    destination: Destination, contents: Contents, candidate: Candidate, body: bytes | None
) -> Call | Closed:
    provider = destination.provider
    if body is not None:
        request = provider.repeat(candidate.id, body)
    else:
        try:
            request = provider.request(candidate.id, contents.of(candidate))
        except (TemplateError, TypeError, ValueError) as error:  # a poisonous one fails alone
            doubtful = candidate.doubt_since is not None
            state = EffectState.UNKNOWN if doubtful else EffectState.FAILED
            return _closed(candidate, state, f"cannot be rendered: {error}")
    return Call(
        effect=_effect(candidate, 1),
        event_id=candidate.event_id,
        purpose=Purpose.SEND,
        number=candidate.calls + 1,
        request=request,
        keeps_body=provider.compares_payload,
    )


def _look_up(destination: Destination, candidate: Candidate) -> Call | Closed:
    since = candidate.first_attempt_at
    assert since is not None, "what is in doubt was attempted"
    address = candidate.address or ""
    request = destination.provider.look_up(candidate.id, address, since)
    if request is None:
        return _closed(candidate, EffectState.UNKNOWN, "the provider cannot be asked")
    return Call(
        effect=_effect(candidate, 0),
        event_id=candidate.event_id,
        purpose=Purpose.LOOK_UP,
        number=candidate.calls + 1,
        request=request,
        keeps_body=False,
    )


def _closed(candidate: Candidate, state: EffectState, reason: str) -> Closed:
    return Closed(
        effect_id=candidate.id, event_id=candidate.event_id, state=state, reason=reason[:500]
    )


def _effect(candidate: Candidate, sends: int) -> Effect:
    """The effect as it is once this attempt is on record."""
    return Effect(
        id=candidate.id,
        attempts=candidate.attempts + sends,
        first_attempt_at=candidate.first_attempt_at or (candidate.now if sends else None),
        last_attempt_at=candidate.now if sends else candidate.last_attempt_at,
        doubt_since=candidate.doubt_since,
    )
