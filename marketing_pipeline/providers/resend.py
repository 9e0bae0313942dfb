"""Resend: one mail, deduplicated by its Idempotency-Key for a day."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ClassVar
from uuid import UUID

import httpx
from pydantic import SecretStr

from marketing_pipeline.domain import digest
from marketing_pipeline.domain.effect import Content, Contract, DeliveryClass, EffectKind, Email
from marketing_pipeline.domain.outcome import (
    Accepted,
    Ambiguous,
    Blocked,
    Outcome,
    Refused,
    Throttled,
)
from marketing_pipeline.providers import answer, retry_after
from marketing_pipeline.providers.observed import Observed, observed
from marketing_pipeline.providers.options import Options, Secret
from marketing_pipeline.providers.protocol import Unsearchable

ADDRESS = "https://api.resend.com"
IN_FLIGHT = timedelta(seconds=2)  # until the first call with our key is likely to be answered
QUOTAS = frozenset({"daily_quota_exceeded", "monthly_quota_exceeded"})


class ResendOptions(Options):
    """api_key: with sending access. The key life is from Resend's page on idempotency keys.

    webhook_secret: of the endpoint at which Resend tells what became of mails.
    """

    kind: ClassVar = EffectKind.EMAIL
    contract: ClassVar = Contract(
        delivery_class=DeliveryClass.KEYED,
        settle_delay=timedelta(seconds=30),
        key_life=timedelta(hours=24),
    )

    api_key: Secret
    webhook_secret: Secret | None = None  # not the adapter's: see registry.READERS

    def provider(self, name: str, contract: Contract, base_url: str | None) -> "Resend":
        return Resend(
            name=name,
            contract=contract,
            url=httpx.URL(f"{base_url or ADDRESS}/emails"),
            api_key=self.api_key,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Resend(Unsearchable):
    """Error names are from Resend's page on errors; only they tell a quota from a rate."""

    kind: ClassVar = EffectKind.EMAIL
    compares_payload: ClassVar = True

    name: str
    contract: Contract
    url: httpx.URL
    api_key: SecretStr

    def request(self, effect_id: UUID, content: Content) -> httpx.Request:
        if not isinstance(content, Email):
            raise TypeError(f"{self.name} takes an email, not {content.kind}")
        mail = {
            "from": content.sender,
            "to": [content.to],
            "subject": content.subject,
            "html": content.html,
            "text": content.text,
            "headers": dict(content.headers),
        }
        return self.repeat(effect_id, digest.canonical(mail))

    def repeat(self, effect_id: UUID, body: bytes) -> httpx.Request:
        headers = {
            "Authorization": f"Bearer {self.api_key.get_secret_value()}",
            "Content-Type": "application/json",
            "Idempotency-Key": str(effect_id),
        }
        return httpx.Request("POST", self.url, headers=headers, content=body)

    def outcome(self, response: httpx.Response, now: datetime) -> Outcome:
        document = answer.document(response)
        name = answer.text(document.get("name"))
        reason = answer.words(response, name, document.get("message"))
        match response.status_code, name:
            case 200, _:
                reference = answer.text(document.get("id"))
                return Accepted(reference) if reference else Ambiguous(reason)
            case 400 | 422, _:
                return Refused(reason)
            case 401 | 403, _:  # a key's fault, or a sender's domain: all mails share them
                return Blocked(None, reason)
            case 409, "concurrent_idempotent_requests":
                return Throttled(IN_FLIGHT, reason)
            case 429, _ if name in QUOTAS:
                return Blocked(_until(response, now), reason)
            case 429, _:
                return Throttled(_wait(response, now), reason)
            case _:  # 409 invalid_idempotent_request too: our key was accepted with other bytes
                return Ambiguous(reason)

    def observed(self, response: httpx.Response, now: datetime) -> tuple[Observed, ...]:  # noqa: ARG002
        headers = response.headers
        resets_in = retry_after.seconds(headers.get("ratelimit-reset"))
        return observed("rate", headers.get("ratelimit-remaining"), resets_in, of=self.name)


def _wait(response: httpx.Response, now: datetime) -> timedelta:
    """Both headers are seconds from now, though RateLimit-Reset is an instant elsewhere."""
    waits = [
        retry_after.retry_after(response.headers.get("retry-after"), now),
        retry_after.seconds(response.headers.get("ratelimit-reset")),
    ]
    return retry_after.first(waits, default=timedelta(seconds=1), longest=timedelta(hours=1))


def _until(response: httpx.Response, now: datetime) -> datetime | None:
    """When the quota begins anew, where it is told."""
    told = retry_after.retry_after(response.headers.get("retry-after"), now)
    if told is None or not timedelta(0) < told <= timedelta(days=31):
        return None
    return now + told
