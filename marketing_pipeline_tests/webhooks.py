"""Webhooks as the providers document them, signed here and not by the code under test."""

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

SVIX_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
MAILGUN_KEY = "key-for-webhooks"


def svix(body: bytes, id: str, at: datetime, secret: str = SVIX_SECRET) -> dict[str, str]:
    """The headers of https://docs.svix.com/receiving/verifying-payloads/how-manual."""
    stamp = str(int(at.timestamp()))
    key = base64.b64decode(secret.removeprefix("whsec_"))
    mac = hmac.new(key, f"{id}.{stamp}.".encode() + body, hashlib.sha256).digest()
    signature = f"v1,{base64.b64encode(mac).decode()}"
    return {"svix-id": id, "svix-timestamp": stamp, "svix-signature": signature}


def resend(type: str, email_id: str, recipient: str, at: datetime, **more: Any) -> bytes:
    """An event of the schemas in specs/resend."""
    data = {
        "email_id": email_id,
        "created_at": at.isoformat(),
        "from": "Example <hello@example.com>",
        "to": [recipient],
        "subject": "Welcome",
    }
    return json.dumps({"type": type, "created_at": at.isoformat(), "data": data | more}).encode()


def mailgun(
    event: str,
    effect_id: UUID | str,
    to: str,
    at: datetime,
    *,
    id: str = "CCXMjJ7nQi2N3BPigGOdgQ",
    token: str = "a" * 50,
    signed_at: datetime | None = None,
    key: str = MAILGUN_KEY,
    **more: Any,
) -> bytes:
    """As https://documentation.mailgun.com/docs/mailgun/user-manual/webhooks/webhook-payloads."""
    data = {
        "event": event,
        "id": id,
        "timestamp": at.timestamp(),
        "recipient": to,
        "message": {"headers": {"message-id": f"{effect_id}@mg.example.com", "to": to}},
        "user-variables": {"delivery_id": str(effect_id)},
    } | more
    return json.dumps(
        {"signature": signature(token, signed_at or at, key), "event-data": data}
    ).encode()


def signature(token: str, at: datetime, key: str = MAILGUN_KEY) -> Mapping[str, str]:
    stamp = str(int(at.timestamp()))
    mac = hmac.new(key.encode(), (stamp + token).encode(), hashlib.sha256)
    return {"timestamp": stamp, "token": token, "signature": mac.hexdigest()}


def now() -> datetime:
    return datetime.now(UTC)
