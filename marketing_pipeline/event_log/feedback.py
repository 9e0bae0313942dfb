"""What providers tell of effects afterwards: facts, numbered like all others."""

from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import class_row

from marketing_pipeline.domain import digest
from marketing_pipeline.event_log import ledger, queries

_SQL = queries.load("feedback.sql")


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A verified notice of a provider."""

    provider: str  # as the operator's file calls it
    notice: str  # the provider's own name for the notice
    kind: str  # one of those that the table's CHECK lists
    occurred_at: datetime
    effect_id: UUID | None  # our name of what it is about, else
    reference: str | None  # the provider's
    address: str | None  # whose it was: it is looked up and not kept
    excludes: bool  # a bounce for good, a complaint, an unsubscribe
    detail: str | None  # without addresses


class Verdict(StrEnum):
    """What became of a notice."""

    RECORDED = "recorded"  # it is new, and kept
    REPEATED = "repeated"  # it was told before, and changed nothing
    EARLY = "early"  # it may be about a call whose answer is not settled: to be told again later


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What a notice came to."""

    id: UUID
    verdict: Verdict
    effect_id: UUID | None  # None: nobody can say which
    recipient_id: UUID | None


@dataclass(frozen=True, slots=True)
class _Subject:
    effect_id: UUID | None
    recipient_id: UUID | None
    day: date | None  # the effect's
    unsettled: bool  # a call to this person is not settled, and its answer may be this reference


async def record(conn: AsyncConnection, told: Told, now: datetime) -> Recorded:
    """Keep what was told, once, and keep from the person what must not reach them any more.

    Call it in a transaction of its own, under READ COMMITTED: the notice, the suppression and the
    mark on its day stand or fall together. An effect that is not found leaves the notice without
    one. Only where a call to that person is not settled yet is nothing kept, for a fact cannot be
    mended: its reference may be the one that the answer is about to tell. The suppression is
    written even then.
    """
    id = digest.identity("feedback", told.provider, told.notice)
    subject = await _subject(conn, told)
    verdict = Verdict.EARLY if subject.unsettled else await _keep(conn, id, told, subject, now)
    if told.excludes and subject.recipient_id is not None and verdict is not Verdict.REPEATED:
        reason = f"{told.provider}: {told.kind}"
        await ledger.suppress(conn, subject.recipient_id, "email", reason, now)
    if verdict is Verdict.RECORDED and subject.day is not None:
        await conn.execute(_SQL["mark moved"], {"day": subject.day})
    return Recorded(
        id=id,
        verdict=verdict,
        effect_id=subject.effect_id,
        recipient_id=subject.recipient_id,
    )


async def _subject(conn: AsyncConnection, told: Told) -> _Subject:
    values = {
        "provider": told.provider,
        "effect_id": told.effect_id,
        "reference": told.reference,
        "address": told.address,
    }
    async with conn.cursor(row_factory=class_row(_Subject)) as cursor:
        await cursor.execute(_SQL["subject"], values)
        found = await cursor.fetchone()
    assert found is not None, "it is one row, whatever is found"
    return found


async def _keep(
    conn: AsyncConnection, id: UUID, told: Told, subject: _Subject, now: datetime
) -> Verdict:
    values = {
        "id": id,
        "provider": told.provider,
        "kind": told.kind,
        "effect_id": subject.effect_id,
        "recipient_id": subject.recipient_id,
        "occurred_at": told.occurred_at,
        "detail": told.detail,
        "now": now,
    }
    kept = await conn.execute(_SQL["keep"], values)
    return Verdict.RECORDED if kept.rowcount else Verdict.REPEATED
