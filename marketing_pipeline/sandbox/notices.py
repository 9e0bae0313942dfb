"""What Resend and Mailgun post of a mail that they took, in their forms and signed their way."""

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

from marketing_pipeline.sandbox import form
from marketing_pipeline.sandbox.exchange import Call

LINK = "https://www.example.com/offer"
_CLICK = {"ipAddress": "192.0.2.1", "link": LINK, "userAgent": "sandbox"}  # and a timestamp
_BOUNCE = {
    "diagnosticCode": ["smtp; 550 5.1.1 no such mailbox"],
    "message": "The recipient's mail server rejected the mail.",
    "subType": "General",
    "type": "Permanent",
}
_RESEND: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "delivered": ("email.delivered", {}),
    "delayed": ("email.delivery_delayed", {}),
    "bounced": ("email.bounced", {"bounce": _BOUNCE}),
    "failed": ("email.failed", {"failed": {"reason": "reached_daily_quota"}}),
    "complained": ("email.complained", {}),
    "opened": ("email.opened", {}),
    "clicked": ("email.clicked", {}),
    "unsubscribed": ("contact.updated", {"unsubscribed": True}),
}
_MAILGUN: Mapping[str, Mapping[str, Any]] = {
    "delivered": {"event": "delivered"},
    "delayed": {
        "event": "failed",
        "severity": "temporary",
        "reason": "generic",
        "delivery-status": {"code": 452, "message": "4.2.2 mailbox full"},
    },
    "bounced": {
        "event": "failed",
        "severity": "permanent",
        "reason": "bounce",
        "delivery-status": {"code": 550, "message": "5.1.1 no such mailbox"},
    },
    "failed": {"event": "failed", "severity": "permanent", "reason": "old"},
    "complained": {"event": "complained"},
    "opened": {"event": "opened"},
    "clicked": {"event": "clicked", "url": LINK},
    "unsubscribed": {"event": "unsubscribed"},
}
KINDS = tuple(_MAILGUN)
PROVIDERS = ("mailgun", "resend")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """A mail that was taken."""

    number: int  # of its act
    at: datetime
    ref: str
    recipient: str
    variables: Mapping[str, str]  # Mailgun's `v:` fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Something that became of a mail."""

    mail: Mail
    kind: str  # one of KINDS
    at: datetime

    @property
    def id(self) -> UUID:
        """The same whenever this is told again."""
        return uuid5(NAMESPACE_URL, f"sandbox:{self.mail.number}:{self.mail.at}:{self.kind}")


@dataclass(frozen=True, slots=True)
class Post:
    """One attempt to tell."""

    body: bytes
    headers: Mapping[str, str]


def variables(call: Call) -> dict[str, str]:
    """The user variables of a mail to Mailgun; empty for one to another."""
    fields = form.fields(call.headers.get("Content-Type", ""), call.body) or []
    return {name[2:]: value for name, value in fields if name.startswith("v:")}


def post(provider: str, secret: str, notice: Notice, now: datetime) -> Post:
    """The notice as it is posted now: every attempt is signed anew."""
    if provider == "resend":
        return _by_resend(secret, notice, now)
    return _by_mailgun(secret, notice, now)


def _by_resend(secret: str, notice: Notice, now: datetime) -> Post:
    """https://resend.com/docs/webhooks/event-types, and Svix's headers."""
    type, more = _RESEND[notice.kind]
    mail, at = notice.mail, notice.at.isoformat()
    if notice.kind == "unsubscribed":
        data: dict[str, Any] = {"id": str(notice.id), "email": mail.recipient, "updated_at": at}
    else:
        data = {
            "email_id": mail.ref,
            "from": "hello@example.com",
            "to": [mail.recipient],
            "subject": "from the sandbox",
        }
    if notice.kind == "clicked":
        data["click"] = _CLICK | {"timestamp": at}
    document = {"type": type, "created_at": at, "data": {"created_at": at} | data | dict(more)}
    body = json.dumps(document).encode()
    id, stamp = f"msg_{notice.id.hex}", str(int(now.timestamp()))
    key = base64.b64decode(secret.removeprefix("whsec_"))
    mac = hmac.digest(key, f"{id}.{stamp}.".encode() + body, hashlib.sha256)
    signature = f"v1,{base64.b64encode(mac).decode()}"
    headers = {"svix-id": id, "svix-timestamp": stamp, "svix-signature": signature}
    return Post(body, {"Content-Type": "application/json"} | headers)


def _by_mailgun(secret: str, notice: Notice, now: datetime) -> Post:
    """https://documentation.mailgun.com/docs/mailgun/user-manual/webhooks/webhook-payloads."""
    mail, id, stamp = notice.mail, notice.id, str(int(now.timestamp()))
    token = hashlib.sha256(f"{id} {now.isoformat()}".encode()).hexdigest()[:50]
    data = {
        "id": base64.urlsafe_b64encode(id.bytes).decode().rstrip("="),
        "timestamp": notice.at.timestamp(),
        "log-level": "info",
        "recipient": mail.recipient,
        "message": {"headers": {"message-id": mail.ref.strip("<>"), "to": mail.recipient}},
        "user-variables": dict(mail.variables),
    }
    mac = hmac.digest(secret.encode(), (stamp + token).encode(), hashlib.sha256)
    document = {
        "signature": {"timestamp": stamp, "token": token, "signature": mac.hex()},
        "event-data": data | dict(_MAILGUN[notice.kind]),
    }
    return Post(json.dumps(document).encode(), {"Content-Type": "application/json"})
