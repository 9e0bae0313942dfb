"""What an effect is: one call to one provider for one recipient or channel.

PLANNED --claim--> SENDING --settle--> SENT | FAILED
   ^                 |  |
   |  (not written,  |  | (nobody knows; or the lease ran out)
   |   throttled)    |  v
   +-----------------+ DOUBT --same bytes, same key--> SENDING     (keyed)
   +-------(absent)----+ |  --look-up--> SENT | PLANNED | DOUBT     (searchable)
                         +--horizon passed, or blind--> UNKNOWN --a person--> SENT | PLANNED
PLANNED --suppressed before any attempt--> SUPPRESSED
any --a late Accepted--> SENT
"""

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
