"""What waits for a person, and what a person decided about it, kept for good."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import class_row, dict_row

from marketing_pipeline.domain.effect import EffectState
from marketing_pipeline.domain.outcome import LONGEST_REFERENCE
from marketing_pipeline.domain.payload import UNSTORABLE
from marketing_pipeline.event_log import ledger, queries
from marketing_pipeline.event_log.round_trip import one_round_trip

_SQL = queries.load("resolving.sql")
NO_REFERENCE = "resolved"  # stands for the provider's name for it, where the person gave none


class Action(StrEnum):
    """What a person says of an UNKNOWN effect; spelled the same in SQL."""

    SENT = "sent"  # the provider has it
    RESEND = "resend"  # it has not, or a second one does no harm


class CannotResolve(ValueError):
    """A decision that cannot be carried out; says why, and what can be done instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Undecided:
    """An effect that may have been done, and only a person can say."""

    effect_id: UUID
    event_id: UUID
    provider: str
    setup: Mapping[str, Any]  # `adapter` and `options` of the provider as it was planned for
    kind: str
    recipient_id: UUID | None
    address: str | None
    since: datetime
    why: str
    attempts: int
    first_attempt_at: datetime
    last_attempt_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """What a person decided."""

    action: Action
    why: str
    who: str
    reference: str | None = None  # the provider's name for it, of what was sent

    def __post_init__(self) -> None:
        for field in ("why", "who", "reference"):
            value = getattr(self, field)
            if value is not None and (not value.strip() or UNSTORABLE.search(value)):
                raise CannotResolve(f"{field}: is empty or cannot be stored; write it in words")
        if self.reference is not None and len(self.reference) > LONGEST_REFERENCE:
            raise CannotResolve(
                f"reference: has {len(self.reference)} characters; write the provider's own name "
                f"for it, of {LONGEST_REFERENCE} at most"
            )
        if self.reference is not None and self.action is not Action.SENT:
            raise CannotResolve("reference: belongs to what was sent; leave it out with --resend")


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """What became of the effect and of its event."""

    effect_id: UUID
    state: EffectState
    event_id: UUID
    event_status: str


async def undecided(
    conn: AsyncConnection, limit: int, effect_id: UUID | None = None
) -> list[Undecided]:
    """What waits for a person, longest first; one alone where `effect_id` is given."""
    async with conn.cursor(row_factory=class_row(Undecided)) as cursor:
        await cursor.execute(_SQL["undecided"], {"limit": limit, "id": effect_id})
        return await cursor.fetchall()


async def waiting(conn: AsyncConnection) -> int:
    """How many effects wait for a person."""
    row = await (await conn.execute(_SQL["waiting"])).fetchone()
    assert row is not None
    return int(row[0])


async def resolve(conn: AsyncConnection, effect_id: UUID, decided: Resolution) -> Resolved:
    """Carry out and keep a decision; `conn` is in autocommit mode.

    Completing the event is a transaction of its own, as after any settlement; where this process
    dies between the two, delivery's sweep completes it.

    Raises:
        CannotResolve: there is no such effect, it is not UNKNOWN (any more), or it must not be
            sent: its campaign was cancelled, or it would put older data over newer.
    """
    async with conn.transaction():
        standing = await _locked(conn, effect_id, decided.action)
        values = {
            "id": effect_id,
            "event_id": standing["event_id"],
            "calls": standing["calls"],
            "action": str(decided.action),
            "why": decided.why.strip(),
            "who": decided.who,
            "reference": (decided.reference or NO_REFERENCE).strip(),
        }
        await conn.execute(_SQL["keep"], values)
        await conn.execute(_SQL[str(decided.action)], values)
        if decided.action is Action.RESEND:
            await conn.execute(_SQL["reopen"], values)
            await conn.execute(_SQL["notify"])
    event_id: UUID = standing["event_id"]
    if decided.action is Action.SENT:
        async with one_round_trip(conn):
            await ledger.complete(conn, [event_id], datetime.now(UTC))
    row = await (await conn.execute(_SQL["status"], {"event_id": event_id})).fetchone()
    assert row is not None
    state = EffectState.SENT if decided.action is Action.SENT else EffectState.PLANNED
    return Resolved(effect_id=effect_id, state=state, event_id=event_id, event_status=row[0])


async def _locked(conn: AsyncConnection, effect_id: UUID, action: Action) -> Mapping[str, Any]:
    """Where the effect stands: whoever settles it now has come before or waits."""
    await conn.execute(_SQL["lock"], {"id": effect_id})
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_SQL["standing"], {"id": effect_id})
        standing = await cursor.fetchone()
    if standing is None:
        raise CannotResolve(f"there is no effect {effect_id}; `marketing-pipeline unknown` lists")
    if standing["state"] != EffectState.UNKNOWN:
        raise CannotResolve(
            f"effect {effect_id} is {standing['state']}, and only what is UNKNOWN waits for a "
            f"person; see `marketing-pipeline explain {effect_id}`"
        )
    if action is Action.RESEND and standing["cancelled"] is not None:
        raise CannotResolve(
            f"effect {effect_id} is of a campaign that was cancelled ({standing['cancelled']}): "
            "nothing of it is sent again; settle it with --sent, or trigger the campaign anew"
        )
    if action is Action.RESEND and standing["newer"] is not None:
        raise CannotResolve(
            f"effect {effect_id} is older than effect {standing['newer']}, which has been or may "
            "have been written for the same contact: sending it again could put old data over new; "
            "settle it with --sent, and the newer one holds"
        )
    return standing
