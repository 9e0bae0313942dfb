"""Mailgun: a mail that nothing deduplicates, found again by a Message-Id of ours."""

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar, Literal
from uuid import UUID

import httpx
from pydantic import Field, SecretStr

from marketing_pipeline.domain.effect import Content, Contract, DeliveryClass, EffectKind, Email
from marketing_pipeline.domain.outcome import (
    Absent,
    Accepted,
    Ambiguous,
    Blocked,
    Finding,
    Found,
    Inconclusive,
    Outcome,
    Refused,
    Throttled,
)
from marketing_pipeline.providers import answer, retry_after
from marketing_pipeline.providers.observed import Observed, observed
from marketing_pipeline.providers.options import Options, Secret

ADDRESSES = {"us": "https://api.mailgun.net", "eu": "https://api.eu.mailgun.net"}
CLOCKS = timedelta(hours=1)  # how much earlier than the attempt a look-up begins
# Events that only a message Mailgun had taken can have; `rejected` is left to a person.
TAKEN = frozenset(
    {
        "accepted",
        "clicked",
        "complained",
        "delivered",
        "failed",
        "opened",
        "stored",
        "unsubscribed",
    }
)
_AGAIN = re.compile(r"try again after (?:(\d+(?:\.\d+)?) seconds?|(\w{3}, [^\"]{10,30}))")
_ESCAPES = {'"': "%22", "\r": "%0D", "\n": "%0A"}  # of a field's name, as browsers do it


class MailgunOptions(Options):
    """api_key, the sending domain, and the region that the domain lives in.

    webhook_signing_key: of the account, where its webhooks are to tell what became of mails.

    A page of events is to be trusted once it is older than half an hour (API reference, event
    polling), and the free plan keeps events for a day.
    """

    kind: ClassVar = EffectKind.EMAIL
    contract: ClassVar = Contract(
        delivery_class=DeliveryClass.SEARCHABLE,
        settle_delay=timedelta(minutes=30),
        horizon=timedelta(days=1),
    )

    api_key: Secret
    domain: str = Field(pattern=r"^[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9-]+)+$")
    region: Literal["us", "eu"]
    webhook_signing_key: Secret | None = None  # not the adapter's: see registry.READERS

    def provider(self, name: str, contract: Contract, base_url: str | None) -> "Mailgun":
        return Mailgun(
            name=name,
            contract=contract,
            url=httpx.URL(f"{base_url or ADDRESSES[self.region]}/v3/{self.domain}/"),
            domain=self.domain,
            api_key=self.api_key,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Mailgun:
    """One recipient a call: a lost answer then leaves one mail in doubt, and one id to look for."""

    kind: ClassVar = EffectKind.EMAIL
    compares_payload: ClassVar = False

    name: str
    contract: Contract
    url: httpx.URL  # of the domain, with a slash at its end
    domain: str
    api_key: SecretStr

    def request(self, effect_id: UUID, content: Content) -> httpx.Request:
        if not isinstance(content, Email):
            raise TypeError(f"{self.name} takes an email, not {content.kind}")
        fields = [
            ("from", content.sender),
            ("to", content.to),
            ("subject", content.subject),
            ("text", content.text),
            ("html", content.html),
            *((f"h:{name}", value) for name, value in content.headers),
            ("h:Message-Id", f"<{self._message_id(effect_id)}>"),
            ("v:delivery_id", str(effect_id)),  # comes back in webhooks
        ]
        return self.repeat(effect_id, _multipart(effect_id, fields))

    def repeat(self, effect_id: UUID, body: bytes) -> httpx.Request:  # noqa: ARG002 - it is in there
        boundary = body.partition(b"\r\n")[0].removeprefix(b"--").decode()
        headers = self._authorization() | {
            "Content-Type": f"multipart/form-data; boundary={boundary}"
        }
        return httpx.Request("POST", self.url.join("messages"), headers=headers, content=body)

    def outcome(self, response: httpx.Response, now: datetime) -> Outcome:
        document = answer.document(response)
        reason = answer.words(response, document.get("message"))
        match response.status_code:
            case 200:
                reference = answer.text(document.get("id")).strip("<>")
                return Accepted(reference) if reference else Ambiguous(reason)
            case 400 | 413:
                return Refused(reason)
            case 401 | 402 | 403 | 404:  # 404: the path names the domain, and nothing of this mail
                return Blocked(None, reason)
            case 429:
                return Throttled(_wait(response, now), reason)
            case _:  # a 5xx has been seen for mails that were sent
                return Ambiguous(reason)

    def observed(self, response: httpx.Response, now: datetime) -> tuple[Observed, ...]:
        """The names that mailgun-go reads; events are limited apart from messages."""
        headers = response.headers
        name = "events" if response.request.method == "GET" else "messages"
        resets_in = retry_after.epoch(headers.get("x-ratelimit-reset"), now)
        return observed(name, headers.get("x-ratelimit-remaining"), resets_in, of=self.name)

    def look_up(self, effect_id: UUID, recipient: str, since: datetime) -> httpx.Request:  # noqa: ARG002
        """All events of our Message-Id.

        The recipient is left out: the id is one mail's alone, and a second filter, whose treatment
        of capitals nobody documents, could only hide what was done.
        """
        query = {
            "message-id": self._message_id(effect_id),
            "begin": str(int((since - CLOCKS).timestamp())),
            "ascending": "yes",  # the API wants an end or a direction
        }
        return httpx.Request(
            "GET", self.url.join("events"), params=query, headers=self._authorization()
        )

    def finding(self, response: httpx.Response, effect_id: UUID) -> Finding:
        document = answer.document(response)
        items = document.get("items")
        if response.status_code != 200 or not isinstance(items, list):
            return Inconclusive(answer.words(response, document.get("message")))
        if not items:
            return Absent()
        wanted = self._message_id(effect_id)
        ours = [item for item in items if _message_id_of(item) == wanted]
        if any(item.get("event") in TAKEN for item in ours):
            return Found(wanted)
        events = ", ".join(sorted({str(item.get("event")) for item in ours})) or "other mails'"
        return Inconclusive(answer.words(response, f"only these events: {events}"))

    def _message_id(self, effect_id: UUID) -> str:
        return f"{effect_id}@{self.domain}"

    def _authorization(self) -> dict[str, str]:
        credential = base64.b64encode(f"api:{self.api_key.get_secret_value()}".encode())
        return {"Authorization": f"Basic {credential.decode()}"}


def _multipart(effect_id: UUID, fields: Iterable[tuple[str, str]]) -> bytes:
    """RFC 7578 with a boundary that follows from the content: chance would change the digest."""
    parts = [
        f'Content-Disposition: form-data; name="{_escaped(name)}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields
    ]
    boundary = hashlib.sha256(effect_id.bytes).hexdigest().encode()
    while any(boundary in part for part in parts):
        boundary = hashlib.sha256(boundary).hexdigest().encode()
    return b"".join(b"--%s\r\n%s" % (boundary, part) for part in parts) + b"--%s--\r\n" % boundary


def _escaped(name: str) -> str:
    return "".join(_ESCAPES.get(character, character) for character in name)


def _message_id_of(item: Any) -> str | None:
    match item:
        case {"message": {"headers": {"message-id": str(found)}}}:
            return found
        case _:
            return None


def _wait(response: httpx.Response, now: datetime) -> timedelta:
    """Nothing is documented: each official client reads another hint, and the text has a fourth."""
    headers: Mapping[str, str] = response.headers
    body = response.content[:4096].decode("utf-8", "replace")
    said = _AGAIN.search(body)
    waits = [
        retry_after.retry_after(headers.get("retry-after"), now),  # mailgun-python
        retry_after.epoch(headers.get("x-ratelimit-reset"), now),  # mailgun-go
        retry_after.seconds(said[1]) if said else None,
        retry_after.http_date(said[2], now) if said else None,
    ]
    return retry_after.first(waits, default=timedelta(seconds=60), longest=timedelta(hours=24))
