"""Mailgun's webhooks: a signature in the body that does not cover it."""

import hashlib
import hmac
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from marketing_pipeline.providers import notices
from marketing_pipeline.providers.notices import (
    BadSecret,
    Header,
    Ignored,
    Notice,
    NoticeKind,
    Reading,
    Unreadable,
    Unverified,
)

# Mailgun repeats for eight hours, and no page says that a repeat is signed anew. A short tolerance
# could lose a complaint for good; a long one is bounded by the token, which vouches for one notice.
REPEATED_FOR = timedelta(hours=8)
_NEVER_AGAIN = 406
_KINDS = {
    "delivered": NoticeKind.DELIVERED,
    "opened": NoticeKind.OPENED,
    "clicked": NoticeKind.CLICKED,
    "complained": NoticeKind.COMPLAINED,
    "unsubscribed": NoticeKind.UNSUBSCRIBED,
    "rejected": NoticeKind.FAILED,  # by Mailgun itself, before any server saw it
    "failed": NoticeKind.FAILED,
}
_EXCLUDING = frozenset({NoticeKind.BOUNCED, NoticeKind.COMPLAINED, NoticeKind.UNSUBSCRIBED})
_LISTED = "suppress-"  # reasons of mails that were dropped for what their recipient did before


@dataclass(frozen=True, slots=True)
class MailgunNotices:
    """key: the account's HTTP webhook signing key."""

    key: str = field(repr=False)

    def __post_init__(self) -> None:
        if not self.key:
            raise BadSecret("is empty; copy the HTTP webhook signing key")

    def read(self, header: Header, body: bytes, now: datetime) -> Reading:  # noqa: ARG002 - all is in the body
        document = notices.document(body)
        signature = notices.part(document.get("signature"))
        stamp, token = str(signature.get("timestamp", "")), notices.text(signature.get("token"))
        signed = notices.text(signature.get("signature"))
        if not (stamp and token and signed):
            return Unverified("there is no signature")
        if not notices.is_fresh(stamp, now, oldest=REPEATED_FOR):
            return Unverified("the timestamp is not of the last hours: compare the clocks")
        content = (stamp + token).encode()
        expected = hmac.digest(self.key.encode(), content, hashlib.sha256).hex()
        if not hmac.compare_digest(expected.encode(), signed.encode()):
            return Unverified("the signature is not of this key")
        return _reading(notices.part(document.get("event-data")), token)


def _reading(data: Mapping[str, Any], token: str) -> Reading:
    event, id = notices.text(data.get("event")), notices.text(data.get("id"))
    if event is None:
        return Unreadable("there is no event", _NEVER_AGAIN)
    if event not in _KINDS:
        return Ignored(event)
    at = _instant(data.get("timestamp"))
    if id is None or at is None:
        return Unreadable("id or timestamp is missing or is none", _NEVER_AGAIN)
    kind = _kind(event, data)
    headers = notices.part(notices.part(data.get("message")).get("headers"))
    message_id = (notices.text(headers.get("message-id")) or "").strip("<>") or None
    return Notice(
        kind=kind,
        id=f"{id} {at.isoformat()}",  # an id is unique within a day
        occurred_at=at,
        effect_id=_ours(data, message_id),
        reference=message_id,
        address=notices.text(data.get("recipient")),
        excludes=kind in _EXCLUDING or _is_listed(data),
        detail=_detail(event, data),
        token=token,
    )


def _kind(event: str, data: Mapping[str, Any]) -> NoticeKind:
    """`failed` is three things: severity and reason tell them apart.

    A permanent failure with another reason (`old`: tried for too long; `generic`) says nothing of
    the address.
    """
    if event != "failed":
        return _KINDS[event]
    if data.get("severity") == "temporary":
        return NoticeKind.DELAYED
    return NoticeKind.BOUNCED if data.get("reason") == "bounce" else NoticeKind.FAILED


def _is_listed(data: Mapping[str, Any]) -> bool:
    return data.get("event") == "failed" and (notices.text(data.get("reason")) or "").startswith(
        _LISTED
    )


def _ours(data: Mapping[str, Any], message_id: str | None) -> UUID | None:
    """From the variable that we sent along, else from our Message-Id."""
    variables = notices.part(data.get("user-variables"))
    for name in (notices.text(variables.get("delivery_id")), (message_id or "").partition("@")[0]):
        try:
            return UUID(name or "")
        except ValueError:
            continue
    return None


def _detail(event: str, data: Mapping[str, Any]) -> str | None:
    match event:
        case "clicked":
            return notices.place(data.get("url"))
        case "failed":
            status = notices.part(data.get("delivery-status"))
            said = status.get("message") or status.get("description")
            return notices.words(data.get("severity"), data.get("reason"), status.get("code"), said)
        case "rejected":
            return notices.words(notices.part(data.get("reject")).get("reason"))
        case _:
            return None


def _instant(value: object) -> datetime | None:
    """Seconds since 1970, with a fraction."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    try:
        return datetime.fromtimestamp(value, UTC)
    except (OverflowError, ValueError, OSError):
        return None
