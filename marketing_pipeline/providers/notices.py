"""What a provider tells of its own accord, over a webhook, of mails that it took."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Protocol
from urllib.parse import urlsplit
from uuid import UUID

from marketing_pipeline import telemetry
from marketing_pipeline.providers.answer import LONGEST

CLOCKS = timedelta(minutes=5)  # that two clocks may differ; what Standard Webhooks advises

Header = Callable[[str], str | None]  # a header's value by its name in lower case


class NoticeKind(StrEnum):
    """What became of a mail after the provider had taken it."""

    DELIVERED = "delivered"  # the recipient's server took it
    DELAYED = "delayed"  # it did not yet; the provider goes on trying
    BOUNCED = "bounced"  # refused for good: there is no such mailbox
    FAILED = "failed"  # not delivered for another reason; the address may be a good one
    COMPLAINED = "complained"  # the recipient called it spam
    OPENED = "opened"  # or a machine fetched its picture
    CLICKED = "clicked"  # or a machine followed a link
    UNSUBSCRIBED = "unsubscribed"  # at the provider's own link or list


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """One thing that a provider tells; everybody's address but `address` is left out of it."""

    kind: NoticeKind
    id: str  # the provider's own name for it: the same when it is told again
    occurred_at: datetime  # by the provider's clock
    effect_id: UUID | None  # the name that we gave the mail, where it comes back
    reference: str | None  # the name that the provider gave it
    address: str | None  # whose mail it was; None: of several people's, or not said
    excludes: bool  # this address must not be mailed any more
    detail: str | None  # the provider's words
    token: str | None = None  # what vouches for this notice alone, where a signature covers no body


@dataclass(frozen=True, slots=True)
class Ignored:
    """A notice of something that is not kept."""

    type: str


@dataclass(frozen=True, slots=True)
class Unverified:
    """Nobody knows who sent it."""

    reason: str  # without anything of what was sent


@dataclass(frozen=True, slots=True)
class Unreadable:
    """The provider signed it, and it is not of the documented form."""

    reason: str
    status: int  # the answer after which this provider does not repeat it in vain


Reading = Notice | Ignored | Unverified | Unreadable


class Reader(Protocol):
    """Verifies and reads one provider's webhooks; it keeps nothing and reads no clock."""

    def read(self, header: Header, body: bytes, now: datetime) -> Reading:
        """What the bytes say, once it is certain that the provider said it."""
        ...


class BadSecret(ValueError):
    """A signing secret that cannot be one; says what to copy instead, and never the value."""


def document(body: bytes) -> Mapping[str, Any]:
    """The body's JSON object; empty where it holds none."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return part(value)


def part(value: object) -> Mapping[str, Any]:
    """The value where it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def text(value: object) -> str | None:
    """A string without the characters that JSON knows and PostgreSQL does not."""
    if not isinstance(value, str):
        return None
    return value.encode("utf-8", "ignore").decode().replace("\0", "") or None


def words(*parts: object) -> str | None:
    """The provider's words in one line, without addresses; numbers are taken as they are read."""
    said = [text(str(one) if isinstance(one, int) else one) for one in parts]
    line = " ".join(telemetry.redact(" ".join(one for one in said if one)).split())
    return line[:LONGEST] or None


def place(url: object) -> str | None:
    """Where a link led, without its query: that is where a person's name stands."""
    try:
        parts = urlsplit(text(url) or "")
    except ValueError:  # a bracket that opens no address
        return None
    return words(f"{parts.scheme}://{parts.hostname or ''}{parts.path}") if parts.scheme else None


def is_fresh(stamp: str, now: datetime, *, oldest: timedelta = CLOCKS) -> bool:
    """Whether a Unix time is no older than that, and no further ahead than clocks differ."""
    if not stamp.isdecimal() or len(stamp) > 12:
        return False
    return -CLOCKS.total_seconds() <= now.timestamp() - int(stamp) <= oldest.total_seconds()
