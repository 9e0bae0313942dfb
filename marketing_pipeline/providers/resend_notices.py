"""Resend's webhooks: signed by Svix, that is as Standard Webhooks has it."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

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

_SIGNED_AS = ("svix", "webhook")  # Svix's names of the headers, and the standard's
_MAILS = {
    "email.delivered": NoticeKind.DELIVERED,
    "email.delivery_delayed": NoticeKind.DELAYED,
    "email.bounced": NoticeKind.BOUNCED,
    "email.complained": NoticeKind.COMPLAINED,
    "email.opened": NoticeKind.OPENED,
    "email.clicked": NoticeKind.CLICKED,
    "email.failed": NoticeKind.FAILED,
    "email.suppressed": NoticeKind.FAILED,  # it bounced or complained before: not sent again
}
_EXCLUDING = frozenset({"email.bounced", "email.complained", "email.suppressed"})
_LATER = 400  # Svix repeats whatever is no 2xx; this says best what is wrong


@dataclass(frozen=True, slots=True)
class ResendNotices:
    """secret: the endpoint's signing secret, `whsec_` and base64."""

    secret: str = field(repr=False)

    def __post_init__(self) -> None:
        try:
            key = _key(self.secret)
        except binascii.Error:
            key = b""
        if not self.secret.startswith("whsec_") or not key:
            raise BadSecret("is no signing secret; copy the one of this endpoint, whsec_...")

    def read(self, header: Header, body: bytes, now: datetime) -> Reading:
        for prefix in _SIGNED_AS:
            id, stamp, signatures = (
                header(f"{prefix}-{name}") for name in ("id", "timestamp", "signature")
            )
            if id and stamp and signatures:
                if not notices.is_fresh(stamp, now):
                    return Unverified("the timestamp is not of now: compare the clocks")
                if not self._is_signed(id, stamp, signatures, body):
                    return Unverified("the signature is not of this secret")
                return _reading(id, notices.document(body))
        return Unverified("there is no signature")

    def _is_signed(self, id: str, stamp: str, signatures: str, body: bytes) -> bool:
        """Several signatures stand side by side while a secret is being replaced."""
        content = b".".join((id.encode("latin-1", "replace"), stamp.encode(), body))
        mac = hmac.digest(_key(self.secret), content, hashlib.sha256)
        expected = b"v1," + base64.b64encode(mac)
        sent = [one.encode("latin-1", "replace") for one in signatures.split(" ")]
        return any([hmac.compare_digest(expected, one) for one in sent])


def _key(secret: str) -> bytes:
    return base64.b64decode(secret.removeprefix("whsec_"), validate=True)


def _reading(id: str, document: Mapping[str, Any]) -> Reading:
    type = notices.text(document.get("type"))
    data = notices.part(document.get("data"))
    if type is None:
        return Unreadable("there is no type", _LATER)
    is_farewell = type == "contact.updated" and data.get("unsubscribed") is True
    kind = NoticeKind.UNSUBSCRIBED if is_farewell else _MAILS.get(type)
    if kind is None:
        return Ignored(type)
    at = _instant(document.get("created_at"))
    reference = notices.text(data.get("email_id"))
    if at is None or (reference is None and not is_farewell):
        return Unreadable("created_at or data.email_id is missing or is none", _LATER)
    lasting = _is_lasting(data)
    if type == "email.bounced" and not lasting:
        kind = NoticeKind.FAILED
    return Notice(
        kind=kind,
        id=notices.text(id) or id,
        occurred_at=at,
        effect_id=None,
        reference=reference,
        address=notices.text(data.get("email")) if is_farewell else _only(data.get("to")),
        excludes=is_farewell or (type in _EXCLUDING and lasting),
        detail=_detail(type, data),
    )


def _is_lasting(data: Mapping[str, Any]) -> bool:
    """A bounce that says no more is one: Resend's page calls them permanent rejections."""
    return bool(notices.part(data.get("bounce")).get("type", "Permanent") == "Permanent")


def _detail(type: str, data: Mapping[str, Any]) -> str | None:
    bounce, failed, suppressed, click = (
        notices.part(data.get(name)) for name in ("bounce", "failed", "suppressed", "click")
    )
    match type:
        case "email.bounced":
            return notices.words(bounce.get("type"), bounce.get("subType"), bounce.get("message"))
        case "email.failed":
            return notices.words(failed.get("reason"))
        case "email.suppressed":
            told = (suppressed.get("type"), suppressed.get("reason"), suppressed.get("message"))
            return notices.words(*told)
        case "email.clicked":
            return notices.place(click.get("link"))
        case _:
            return None


def _only(recipients: object) -> str | None:
    """The one recipient; of several nobody says which one it was."""
    match recipients:
        case [one]:
            return notices.text(one)
        case _:
            return notices.text(recipients)


def _instant(value: object) -> datetime | None:
    try:
        at = datetime.fromisoformat(notices.text(value) or "")
    except ValueError:
        return None
    return at if at.tzinfo is not None else None
