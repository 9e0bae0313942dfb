"""The whole story of an event, an effect, a person or a provider's reference, in time order.

A kind of entry is a named query that gives `at`, `event_id`, `effect_id` and whatever else is worth
telling: a new one is a block in story.sql and a name in `_ENTRIES`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import class_row

from marketing_pipeline.event_log import queries

_SQL = queries.load("story.sql")
# In the order in which things that happened at one instant are told.
_ENTRIES = (
    "recorded",
    "erased",
    "suppressed",
    "planned",
    "effect planned",
    "adopted",
    "paused",
    "held",
    "intervention",
    "attempt",
    "resolved",
    "settled",
    "feedback",
)
_CHAIN = 100  # events that are followed in either direction of `caused_by`


class NoStory(LookupError):
    """Nothing is known by that name, or several things are; says what to ask instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Something that happened."""

    at: datetime
    what: str  # one of `_ENTRIES`
    event_id: UUID | None  # None: it concerns a person, a provider or the log
    effect_id: UUID | None
    facts: Mapping[str, Any]  # the query's other columns


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where an effect stands, with what holds it back."""

    id: UUID
    event_id: UUID
    step: str
    provider: str
    setup: Mapping[str, Any]  # `adapter` and `options` of the provider as it was planned for
    kind: str
    recipient_id: UUID | None
    address: str | None
    erased: bool
    state: str
    attempts: int
    calls: int
    redrives: int
    due_at: datetime
    lease_until: datetime | None
    doubt_since: datetime | None
    expires_at: datetime | None
    settled_at: datetime | None
    reference: str | None
    last_error: str | None
    suppressed: str | None  # why this person must not be reached
    paused_until: datetime | None
    pause_reason: str | None
    hold: str | None  # of its campaign: paused or cancelled; None: nothing holds it
    hold_reason: str | None
    held_due_at: datetime | None  # when it was due before it was parked
    waits_for: UUID | None  # older work for the same contact that is still open


@dataclass(frozen=True, slots=True, kw_only=True)
class EventStory:
    """An event, or the part of it that was asked for."""

    id: UUID
    type: str
    source: str
    origin: str
    day: date
    status: str
    last_error: str | None
    scheduled_at: datetime
    recipient_id: UUID | None
    created_at: datetime
    states: Mapping[str, int]  # all its effects by state, told here or not
    hold: str | None  # unapproved, paused or cancelled
    hold_reason: str | None
    causes: Sequence[UUID]  # nearest first
    caused: Sequence[UUID]
    effects: Sequence[Standing]
    entries: Sequence[Entry]


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """What was asked for, and all that is known of it."""

    kind: str  # event, effect, recipient, reference
    events: Sequence[EventStory]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """An effect of a day that failed or waits for a person."""

    id: UUID
    provider: str
    state: str
    reason: str


async def of_event(conn: AsyncConnection, event_id: UUID, limit: int = 50) -> Story:
    """An event and up to `limit` of its effects, those first that need a person.

    Raises:
        NoStory: there is no such event.
    """
    effects = await _effects(conn, event_id, [], limit)
    return Story(kind="event", events=[await _event_story(conn, event_id, effects)])


async def of_effect(conn: AsyncConnection, effect_id: UUID) -> Story:
    """An effect, and its event without the others.

    Raises:
        NoStory: there is no such effect.
    """
    effects = await _effects(conn, None, [effect_id], 1)
    if not effects:
        raise NoStory(f"there is no effect {effect_id}")
    return Story(kind="effect", events=[await _event_story(conn, effects[0].event_id, effects)])


async def of_recipient(conn: AsyncConnection, recipient_id: UUID, limit: int = 50) -> Story:
    """What a person sent and got: up to `limit` events, newest first."""
    rows = await queries.rows(conn, _SQL["of person"], {"person": recipient_id, "limit": limit})
    told = [
        await _event_story(
            conn, row["event_id"], await _effects(conn, None, row["effects"], limit), [recipient_id]
        )
        for row in rows
    ]
    return Story(kind="recipient", events=told)


async def of_reference(conn: AsyncConnection, reference: str, limit: int = 50) -> Story:
    """The effects that a provider knows by this name, newest first.

    A CRM knows every write for one contact by the contact's name: that is one thing, told whole.

    Raises:
        NoStory: no effect has it, or effects of several providers or people have.
    """
    rows = await queries.rows(conn, _SQL["referenced"], {"reference": reference, "limit": limit})
    if not rows:
        raise NoStory(f"no provider has given us the reference {reference!r}")
    if len({(row["provider"], row["recipient_id"] or row["id"]) for row in rows}) > 1:
        named = ", ".join(f"{row['id']} of {row['provider']}" for row in rows[:5])
        raise NoStory(f"several effects have the reference {reference!r}; ask for one: {named}")
    told = []
    for event_id in dict.fromkeys(row["event_id"] for row in rows):
        ids = [row["id"] for row in rows if row["event_id"] == event_id]
        told.append(await _event_story(conn, event_id, await _effects(conn, None, ids, limit)))
    return Story(kind="reference", events=told)


async def troubles(conn: AsyncConnection, day: date, limit: int = 20) -> list[Trouble]:
    """Effects of a day that wait for a person or failed, these first that a person can settle."""
    async with conn.cursor(row_factory=class_row(Trouble)) as cursor:
        await cursor.execute(_SQL["troubles"], {"day": day, "limit": limit})
        return await cursor.fetchall()


async def _event_story(
    conn: AsyncConnection,
    event_id: UUID,
    effects: Sequence[Standing],
    people: Sequence[UUID] = (),
) -> EventStory:
    rows = await queries.rows(conn, _SQL["events"], {"events": [event_id]})
    if not rows:
        raise NoStory(f"there is no event {event_id}")
    [about] = rows
    chain = {"event": event_id, "limit": _CHAIN}
    persons = {*people, about["recipient_id"], *(one.recipient_id for one in effects)} - {None}
    subjects = {
        "events": [event_id],
        "effects": [one.id for one in effects],
        "people": list(persons),
        "providers": list({one.provider for one in effects}),
        "since": about["created_at"],
    }
    return EventStory(
        **about,
        causes=[row["id"] for row in await queries.rows(conn, _SQL["causes"], chain)],
        caused=[row["id"] for row in await queries.rows(conn, _SQL["caused"], chain)],
        effects=effects,
        entries=await _entries(conn, subjects),
    )


async def _entries(conn: AsyncConnection, subjects: Mapping[str, Any]) -> list[Entry]:
    """Sorted by time; `sorted` is stable, so that one instant's are told in their usual order."""
    found = []
    for what in _ENTRIES:
        for row in await queries.rows(conn, _SQL[what], subjects):
            at, event_id, effect_id = row.pop("at"), row.pop("event_id"), row.pop("effect_id")
            found.append(Entry(at=at, what=what, event_id=event_id, effect_id=effect_id, facts=row))
    return sorted(found, key=lambda entry: entry.at)


async def _effects(
    conn: AsyncConnection, event_id: UUID | None, ids: Sequence[UUID], limit: int
) -> list[Standing]:
    async with conn.cursor(row_factory=class_row(Standing)) as cursor:
        await cursor.execute(_SQL["effects"], {"event": event_id, "ids": list(ids), "limit": limit})
        return await cursor.fetchall()
