"""What an event is, and what makes one acceptable."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from marketing_pipeline.domain import digest
from marketing_pipeline.domain import payload as payload_rules

FIRST_DAY = date(2020, 1, 1)  # the first partition
FURTHEST = timedelta(days=400)  # how far ahead an event may be scheduled
MAX_KEY = 200  # characters of an idempotency key as sent
MAX_SOURCE = 100  # characters
# What ECMA-262 takes for white space (its `\s`), which the patterns of OpenAPI are written in;
# `str.isspace` has some control characters more, and no U+FEFF.
_BLANK = re.compile("[\t-\r \xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff]*")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ADDRESS = re.compile(r"[^@\s,;<>\"()\[\]\\]{1,64}@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+")


class EventType(StrEnum):
    """What happened."""

    LEAD_CAPTURE = "LEAD_CAPTURE"  # a person left an address
    CONTENT_PUBLISH = "CONTENT_PUBLISH"  # something is to be posted
    CAMPAIGN_TRIGGER = "CAMPAIGN_TRIGGER"  # a campaign is to be sent


class Origin(StrEnum):
    """How an event came to the log."""

    LIVE = "live"  # as it happened
    HISTORY = "history"  # imported: never plans an outward effect


class InvalidEvent(ValueError):
    """An event that the log does not take.

    Names the field, what is wrong with its value, and what to send instead.
    """

    def __init__(self, field: str, problem: str, remedy: str) -> None:
        super().__init__(f"{field}: {problem}; {remedy}")
        self.field = field
        self.problem = problem
        self.remedy = remedy


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEvent:
    """An event on its way into the log.

    `payload` no longer holds the address of a LEAD_CAPTURE: it stands in `address` alone, so that
    erasing a person touches one place. `fingerprint` is of the payload as it was sent.
    """

    id: UUID
    idempotency_key: str
    type: EventType
    payload: Mapping[str, Any]
    source: str
    fingerprint: str
    scheduled_at: datetime
    time_given: bool = False  # the sender named scheduled_at: a repeat must name the same
    address: str | None = None
    origin: Origin = Origin.LIVE
    traceparent: str | None = None
    caused_by: UUID | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """An event as the log holds it: what planning needs of it."""

    id: UUID
    seq: int
    type: EventType
    payload: Mapping[str, Any]
    source: str
    origin: Origin
    scheduled_at: datetime
    recipient_id: UUID | None

    @property
    def day(self) -> date:
        """Its partition: the UTC day on which it is due."""
        return self.scheduled_at.astimezone(UTC).date()


def new(
    *,
    type: EventType,
    payload: Mapping[str, Any],
    source: str,
    key: str,
    now: datetime,
    scheduled_at: datetime | None = None,
    traceparent: str | None = None,
    caused_by: UUID | None = None,
) -> NewEvent:
    """Make an event of what a sender said.

    Raises:
        InvalidEvent: something that the log does not take.
    """
    unique = idempotency_key(checked_source(source), key)
    return NewEvent(
        id=digest.identity("event", unique),
        idempotency_key=unique,
        type=type,
        payload={k: v for k, v in payload.items() if not _is_address(type, k)},
        source=source,
        fingerprint=_fingerprint(payload),
        scheduled_at=_due(scheduled_at, now),
        time_given=scheduled_at is not None,
        address=_address(type, payload),
        traceparent=traceparent,
        caused_by=caused_by,
    )


def checked_source(value: str) -> str:
    """The name of a sender, as it is.

    Raises:
        InvalidEvent: it is empty, too long, or no text that can be stored.
    """
    if _BLANK.fullmatch(value) or len(value) > MAX_SOURCE or payload_rules.UNSTORABLE.search(value):
        raise InvalidEvent(
            "source",
            f"is empty, longer than {MAX_SOURCE} characters, or holds U+0000 or a lone surrogate",
            "name the sender",
        )
    return value


def idempotency_key(source: str, key: str) -> str:
    """A UUID as it is; any other key as the UUIDv5 of source and key, so sources cannot collide.

    Raises:
        InvalidEvent: the key is empty, too long, or no text that can be stored.
    """
    if _BLANK.fullmatch(key) or len(key) > MAX_KEY or payload_rules.UNSTORABLE.search(key):
        raise InvalidEvent(
            "idempotencyKey",
            f"is empty, longer than {MAX_KEY} characters, or holds U+0000 or a lone surrogate",
            "send a UUID that you keep for every repeat of this event",
        )
    if _UUID.fullmatch(key):  # as most send it; a third of the time that parsing takes
        return key
    try:
        return str(UUID(key))
    except ValueError:
        return str(digest.identity("key", source, key))


def normal_address(value: str) -> str:
    """An e-mail address as the log stores it: trimmed, in lower case.

    Raises:
        InvalidEvent: it is no address. Only its form is looked at; whether it takes mail is for
            the provider to say.
    """
    address = value.strip().lower()
    if len(address) > 254 or not _ADDRESS.fullmatch(address):
        raise InvalidEvent("payload.email", "is not an e-mail address", 'send "name@example.com"')
    return address


def _is_address(type: EventType, field: str) -> bool:
    return type is EventType.LEAD_CAPTURE and field == "email"


def _address(type: EventType, payload: Mapping[str, Any]) -> str | None:
    match type:
        case EventType.LEAD_CAPTURE:
            value = payload.get("email")
            if not isinstance(value, str):
                raise InvalidEvent("payload.email", "is missing or not a string", "send one")
            return normal_address(value)
        case EventType.CAMPAIGN_TRIGGER:
            if not isinstance(payload.get("campaign"), str):
                raise InvalidEvent(
                    "payload.campaign", "is missing or not a string", "name a campaign of the file"
                )
        case EventType.CONTENT_PUBLISH:
            if not payload:
                raise InvalidEvent("payload", "is empty", "send what is to be published")
    return None


def _fingerprint(content: Mapping[str, Any]) -> str:
    found = payload_rules.fingerprint(dict(content))
    if isinstance(found, payload_rules.Fault):
        raise InvalidEvent(f"payload{found.place}", found.problem, found.remedy)
    return found


def _due(scheduled_at: datetime | None, now: datetime) -> datetime:
    if scheduled_at is None:
        return now
    if scheduled_at.tzinfo is None or scheduled_at.utcoffset() is None:
        raise InvalidEvent(
            "scheduledAt", "has no offset from UTC", 'write "2026-03-01T09:00:00+01:00" or "...Z"'
        )
    # Compared as instants: in year 1 or 9999 a conversion to UTC can leave the calendar.
    last = now.astimezone(UTC).date() + FURTHEST
    if not _midnight(FIRST_DAY) <= scheduled_at < _midnight(last + timedelta(days=1)):
        raise InvalidEvent(
            "scheduledAt",
            f"is not between {FIRST_DAY} and {FURTHEST.days} days ahead",
            "send a date in that range",
        )
    return scheduled_at


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(tzinfo=UTC))
