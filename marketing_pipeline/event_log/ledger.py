"""The ledger of effects: claimed under a lease, attempted on record, settled by claim."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import class_row

from marketing_pipeline.domain.effect import EffectState
from marketing_pipeline.domain.rules import Priority
from marketing_pipeline.event_log import queries, rows
from marketing_pipeline.event_log.round_trip import one_round_trip

_SQL = queries.load("ledger.sql")

Since = Sequence[datetime]  # of each priority, the time from which on what is due is looked at
ALWAYS: Since = [datetime.min.replace(tzinfo=UTC)] * len(Priority)
EVER = timedelta(days=10_000)  # no lease ran out so long ago


class Purpose(StrEnum):
    """What an attempt is for."""

    SEND = "send"
    LOOK_UP = "look_up"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A locked effect that may be claimed, with what its rendering takes."""

    id: UUID
    event_id: UUID
    kind: str
    recipient_id: UUID | None
    ordering_key: str | None
    template: str | None
    variables: Mapping[str, Any]
    config_digest: str
    address: str | None
    expires_at: datetime | None
    now: datetime  # the database's clock at the lock
    priority: int
    due_at: datetime
    state: str = EffectState.PLANNED
    attempts: int = 0
    calls: int = 0
    first_attempt_at: datetime | None = None
    last_attempt_at: datetime | None = None
    doubt_since: datetime | None = None
    setup: str | None = None  # of the last call, where it is in doubt; None: nobody knows
    cancelled: str | None = None  # why its campaign was, where something of it is in doubt


@dataclass(frozen=True, slots=True, kw_only=True)
class NewAttempt:
    """What is written of an attempt before its call."""

    effect_id: UUID
    purpose: Purpose
    request_sha256: str | None
    request_body: bytes | None
    setup: str  # digest of how the provider is set up
    lease: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A claim that is on record."""

    effects: Sequence[UUID]
    now: datetime  # the database's clock, from which the lease counts
    number: int  # in the log's own order of claims
    remembered: int  # the highest earlier number that the log had


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """What stands in the way of reaching some people, while their locks are held."""

    suppressed: Mapping[tuple[UUID, str], str] = field(default_factory=dict)  # why, by scope
    addresses: Mapping[UUID, str | None] = field(default_factory=dict)
    had: frozenset[str] = frozenset()  # people and keys whose locks are held
    waiting: frozenset[str] = frozenset()  # those of which something is open
    called: frozenset[str] = frozenset()  # those of which something is SENDING

    def lets(self, key: str | None) -> bool:
        """May something of this ordering key begin that is in the ledger already?"""
        return key is None or (key in self.had and key not in self.called)


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """An effect that ends without a call."""

    effect_id: UUID
    event_id: UUID
    state: EffectState
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """What one attempt came to and what its effect becomes."""

    effect_id: UUID
    claim_id: UUID
    number: int
    outcome: str
    status_code: int | None
    latency: timedelta
    reason: str | None
    state: EffectState
    due_at: datetime | None
    given_back: bool
    in_doubt: bool
    reference: str | None


@dataclass(frozen=True, slots=True)
class Settled:
    """A row that a settlement changed."""

    id: UUID
    event_id: UUID
    day: date
    state: str


async def due(
    conn: AsyncConnection, provider: str, limit: int, since: Since = ALWAYS
) -> tuple[int, bool]:
    """How many effects could be claimed now, up to `limit`; and is the provider paused?"""
    values = {"provider": provider, "limit": limit, "since": since}
    row = await (await conn.execute(_SQL["due"], values)).fetchone()
    assert row is not None
    return int(row[0]), bool(row[1])


async def next_due(conn: AsyncConnection, provider: str, since: Since = ALWAYS) -> datetime | None:
    """When to look again; None where nothing waits."""
    values = {"provider": provider, "since": since}
    row = await (await conn.execute(_SQL["next due"], values)).fetchone()
    assert row is not None
    at: datetime | None = row[0]
    return at


async def sweep(
    conn: AsyncConnection, provider: str, settle_delay: timedelta, within: timedelta = EVER
) -> int:
    """Move effects whose lease ran out in this time to DOUBT, at most 100; how many there were."""
    values = {"provider": provider, "settle_delay": settle_delay, "within": within}
    return (await conn.execute(_SQL["sweep"], values)).rowcount


async def lock_due(
    conn: AsyncConnection,
    provider: str,
    limit: int,
    passed: Collection[UUID] = (),
    since: Since = ALWAYS,
) -> list[Candidate]:
    """Lock what may be claimed until the caller's transaction ends, except what is `passed` over.

    Most urgent first, and of those what has been due longest.

    No campaign is paused or cancelled meanwhile: that waits until this transaction has ended.
    """
    await conn.execute(_SQL["share holds"])
    async with conn.cursor(row_factory=class_row(Candidate)) as cursor:
        values = {"provider": provider, "limit": limit, "passed": list(passed), "since": since}
        await cursor.execute(_SQL["lock due"], values)
        return await cursor.fetchall()


async def reach(
    conn: AsyncConnection, people: Collection[UUID], keys: Collection[str], *, wait: bool
) -> Reach:
    """Take the locks of these people and ordering keys, then look what stands in the way.

    A person's lock is that of `suppress`: a suppression that has committed is seen, and one that
    has not is waited for, or its person's lock is not had. A key's is had by one claim at a time:
    where it is had and nothing of the key is SENDING, nothing will be before the caller's
    transaction ends.
    """
    if not people and not keys:
        return Reach()
    values = {"people": list(people), "keys": sorted(keys), "wait": wait}
    locks = await (await conn.execute(_SQL["lock people"], values)).fetchall()
    suppressed, addresses, waiting, called = {}, {}, set(), set()
    for what, of, scope, text in await (await conn.execute(_SQL["people"], values)).fetchall():
        match what:
            case "suppressed":
                suppressed[UUID(of), scope] = text
            case "address":
                addresses[UUID(of)] = text
            case _:
                waiting.add(of)
                if scope == EffectState.SENDING:
                    called.add(of)
    return Reach(
        suppressed=suppressed,
        addresses=addresses,
        had=frozenset(what for what, had in locks if had),
        waiting=frozenset(waiting),
        called=frozenset(called),
    )


async def bodies(conn: AsyncConnection, effects: Sequence[UUID]) -> dict[UUID, bytes]:
    """The stored bytes of earlier attempts."""
    found = await (await conn.execute(_SQL["bodies"], {"ids": list(effects)})).fetchall()
    return dict(found)


async def claim(
    conn: AsyncConnection,
    provider: str,
    claim_id: UUID,
    attempts: Sequence[NewAttempt],
    now: datetime,
) -> Begun:
    """Lease the effects from `now` on and put their attempts on record."""
    values = {
        "provider": provider,
        "claim_id": claim_id,
        "attempts": rows.document(attempts),
        "now": now,
    }
    async with conn.cursor(row_factory=class_row(Begun)) as cursor:
        await cursor.execute(_SQL["claim"], values)
        begun = await cursor.fetchone()
    assert begun is not None, "a claim is of at least one effect"
    return begun


async def close_unsent(conn: AsyncConnection, closed: Sequence[Closed], now: datetime) -> None:
    await conn.execute(_SQL["close unsent"], {"closed": rows.document(closed), "now": now})


async def settle(
    conn: AsyncConnection, settlements: Sequence[Settlement], now: datetime
) -> list[Settled]:
    """Write outcomes and new states, in one transaction; `conn` is idle and in autocommit mode.

    Returns the effects whose claim still held.
    """
    values = {"settlements": rows.document(settlements), "now": now}
    async with conn.cursor(row_factory=class_row(Settled)) as cursor:
        async with one_round_trip(conn):
            await cursor.execute(_SQL["settle"], values)
            ids = [one.effect_id for one in settlements]
            await conn.execute(_SQL["forget bodies"], {"ids": ids})
        return await cursor.fetchall()


async def complete(conn: AsyncConnection, events: Sequence[UUID], now: datetime) -> None:
    """Derive the status of events of which nothing is open.

    Call it in a transaction of its own after the settling commit: two workers that settle an
    event's last two effects each see the other's still open until both have committed.

    Raises:
        psycopg.DataError: there is no transaction, so none of the events stays locked.
    """
    values = {"ids": list(events), "now": now}
    await conn.execute(_SQL["lock events"], values)
    await conn.execute(_SQL["mark moved"], values)
    await conn.execute(_SQL["complete"], values)


async def stranded(conn: AsyncConnection, now: datetime) -> list[UUID]:
    """Events that `complete` was never called for."""
    found = await (await conn.execute(_SQL["stranded"], {"now": now})).fetchall()
    return [row[0] for row in found]


async def recipient(conn: AsyncConnection, address: str) -> UUID | None:
    """Who has this address; None where nobody in the log does."""
    row = await (await conn.execute(_SQL["recipient"], {"address": address})).fetchone()
    return row[0] if row else None


async def suppress(
    conn: AsyncConnection, recipient_id: UUID, scope: str, reason: str, now: datetime
) -> None:
    """Record that a person must not be reached: once committed, no attempt starts."""
    values = {"recipient_id": recipient_id, "scope": scope, "reason": reason, "now": now}
    await conn.execute(_SQL["lock one recipient"], {"id": recipient_id})
    await conn.execute(_SQL["suppress"], values)


async def recent_calls(
    conn: AsyncConnection, provider: str, span: timedelta, slot: timedelta
) -> dict[int, int]:
    """Calls of the last `span`, by slot number since the epoch."""
    values = {"provider": provider, "span": span, "slot": slot / timedelta(milliseconds=1)}
    found = await (await conn.execute(_SQL["recent calls"], values)).fetchall()
    return dict(found)
