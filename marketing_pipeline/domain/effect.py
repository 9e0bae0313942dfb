"""What an effect is: one call to one provider for one recipient or channel."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, ClassVar
from uuid import UUID


class EffectState(StrEnum):
    """Where an effect stands; spelled the same in SQL."""

    PLANNED = "PLANNED"  # waits for its time, the gate and a claim
    SENDING = "SENDING"  # claimed: the attempt is on record, the call may be under way
    DOUBT = "DOUBT"  # an attempt may have been done; what follows depends on the class
    SENT = "SENT"  # the provider has it
    FAILED = "FAILED"  # it certainly was not done and will not be
    SUPPRESSED = "SUPPRESSED"  # it must not be sent, and certainly was not
    UNKNOWN = "UNKNOWN"  # it may have been done, and only a person can say


OPEN = frozenset({EffectState.PLANNED, EffectState.SENDING, EffectState.DOUBT})

# Every way from one state to another; docs/guarantees.md draws it, and tests hold both to it.
TRANSITIONS = {
    (EffectState.PLANNED, EffectState.SENDING): "claimed: the attempt is on record",
    (EffectState.PLANNED, EffectState.SUPPRESSED): "unsubscribed, erased, stale or cancelled",
    (EffectState.PLANNED, EffectState.FAILED): "cannot be rendered",
    (EffectState.PLANNED, EffectState.DOUBT): "adopted after a restore",
    (EffectState.SENDING, EffectState.SENT): "Accepted",
    (EffectState.SENDING, EffectState.PLANNED): "Throttled, Blocked, Unreached",
    (EffectState.SENDING, EffectState.FAILED): "Refused, or Unreached to the last",
    (EffectState.SENDING, EffectState.DOUBT): "Ambiguous, or the lease ran out",
    (EffectState.SENDING, EffectState.UNKNOWN): "Refused, and in doubt before",
    (EffectState.DOUBT, EffectState.SENDING): "keyed or at_least_once: the same bytes again",
    (EffectState.DOUBT, EffectState.SENT): "looked up: found",
    (EffectState.DOUBT, EffectState.PLANNED): "looked up: absent",
    (EffectState.DOUBT, EffectState.FAILED): "looked up: absent, after the last attempt",
    (
        EffectState.DOUBT,
        EffectState.UNKNOWN,
    ): "horizon, key or a day passed, blind, or unwanted since",
    (EffectState.UNKNOWN, EffectState.SENT): "a person says so, or a late Accepted",
    (EffectState.UNKNOWN, EffectState.PLANNED): "a person says: again",
    (EffectState.FAILED, EffectState.PLANNED): "redriven by the daily job",
    (EffectState.PLANNED, EffectState.SENT): "a late Accepted",
    (EffectState.FAILED, EffectState.SENT): "a late Accepted",
    (EffectState.SUPPRESSED, EffectState.SENT): "a late Accepted",
}


class EffectKind(StrEnum):
    """What is asked of the provider."""

    EMAIL = "email"
    CONTACT = "contact"
    POST = "post"


class DeliveryClass(StrEnum):
    """What a provider lets us know about an attempt whose answer was lost."""

    KEYED = "keyed"  # A: it deduplicates our key, or the call is an upsert
    SEARCHABLE = "searchable"  # B: the message can be looked up
    BLIND = "blind"  # C: neither


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """What an adapter declares of its provider; all spans are measured on the database's clock."""

    delivery_class: DeliveryClass
    settle_delay: timedelta  # how long a lost attempt may still take effect, or stay unseen
    key_life: timedelta | None = None  # KEYED: how long the key is kept; None: for ever (an upsert)
    horizon: timedelta | None = None  # SEARCHABLE: until when a look-up can be believed
    at_least_once: bool = False  # BLIND: a doubt is repeated, though it may be a duplicate


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """An effect as deciding needs it."""

    id: UUID
    attempts: int  # sends that count: a throttled one is given back
    first_attempt_at: datetime | None
    last_attempt_at: datetime | None
    doubt_since: datetime | None  # set while an earlier attempt may have been done


@dataclass(frozen=True, slots=True, kw_only=True)
class Email:
    """A rendered mail for one person."""

    kind: ClassVar[EffectKind] = EffectKind.EMAIL
    sender: str
    to: str
    subject: str
    html: str
    text: str
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Contact:
    """A person's properties as the CRM is to have them."""

    kind: ClassVar[EffectKind] = EffectKind.CONTACT
    email: str
    properties: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """A JSON document for a channel."""

    kind: ClassVar[EffectKind] = EffectKind.POST
    body: dict[str, Any] = field(default_factory=dict)


Content = Email | Contact | Post
