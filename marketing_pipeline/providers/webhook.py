"""A JSON document posted to an address of the operator's, which may or may not keep our key."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import ClassVar
from uuid import UUID

import httpx
from pydantic import Field, SecretStr

from marketing_pipeline.domain import digest
from marketing_pipeline.domain.effect import Content, Contract, DeliveryClass, EffectKind, Post
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
from marketing_pipeline.providers.options import Address, Options, Secret
from marketing_pipeline.providers.protocol import Unsearchable

KEY = "Idempotency-Key"
FORGETFUL = Contract(  # a receiver that keeps no keys
    delivery_class=DeliveryClass.BLIND, settle_delay=timedelta(seconds=30)
)


class WebhookOptions(Options):
    """url: where to post; secret: sent as a bearer token; deduplicates: does the receiver?

    It does if it does a document once per Idempotency-Key; how long it remembers keys is its own
    promise, a day unless `key_life` says otherwise. Slack's incoming webhooks, like most hooks,
    ignore that header and answer no questions: `deduplicates: false`.
    """

    kind: ClassVar = EffectKind.POST
    contract: ClassVar = Contract(
        delivery_class=DeliveryClass.KEYED,
        settle_delay=timedelta(seconds=30),
        key_life=timedelta(hours=24),
    )
    key_life_is_theirs: ClassVar = False

    url: Address = Field(repr=False)  # many a hook's address is its secret
    secret: Secret | None = None
    deduplicates: bool = Field(default=True, strict=True)

    @property
    def promised(self) -> Contract:
        return self.contract if self.deduplicates else FORGETFUL

    def provider(self, name: str, contract: Contract, base_url: str | None) -> "Webhook":
        url = self.url if base_url is None else f"{base_url}/{name}"
        return Webhook(name=name, contract=contract, url=httpx.URL(url), secret=self.secret)


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook(Unsearchable):
    """Keyed as the IETF's draft on the Idempotency-Key header describes it.

    A receiver that ignores the header gets it too: it is the call's name in anybody's log.
    """

    kind: ClassVar = EffectKind.POST
    compares_payload: ClassVar = False

    name: str
    contract: Contract
    url: httpx.URL = field(repr=False)
    secret: SecretStr | None = None

    def request(self, effect_id: UUID, content: Content) -> httpx.Request:
        if not isinstance(content, Post):
            raise TypeError(f"{self.name} takes a post, not {content.kind}")
        return self.repeat(effect_id, digest.canonical(content.body))

    def repeat(self, effect_id: UUID, body: bytes) -> httpx.Request:
        headers = {"Content-Type": "application/json", KEY: str(effect_id)}
        if self.secret is not None:
            headers["Authorization"] = f"Bearer {self.secret.get_secret_value()}"
        return httpx.Request("POST", self.url, headers=headers, content=body)

    def outcome(self, response: httpx.Response, now: datetime) -> Outcome:
        match response.status_code:
            case status if 200 <= status < 300:
                return Accepted(_reference(response))
            case 400 | 404 | 410 | 422:
                return Refused(answer.words(response))
            case 401 | 403:
                return Blocked(None, answer.words(response))
            case 429:
                told = retry_after.retry_after(response.headers.get("retry-after"), now)
                wait = retry_after.first(
                    [told], default=timedelta(seconds=10), longest=timedelta(hours=24)
                )
                return Throttled(wait, answer.words(response))
            case _:  # 409 too: some say "still at it" with it, some "had it already"
                return Ambiguous(answer.words(response))

    def observed(self, response: httpx.Response, now: datetime) -> tuple[Observed, ...]:
        """Whoever is at the other end: both usual names, the reset in seconds or as an instant."""
        headers = response.headers
        for prefix in ("ratelimit", "x-ratelimit"):
            left = headers.get(f"{prefix}-remaining")
            if left is not None:
                resets_in = retry_after.seconds_or_epoch(headers.get(f"{prefix}-reset"), now)
                if resets_in is None:
                    resets_in = retry_after.retry_after(headers.get("retry-after"), now)
                return observed("rate", left, resets_in, of=self.name)
        return ()


def _reference(response: httpx.Response) -> str:
    """The receiver's own name for the call, else ours: no form of answer is prescribed."""
    theirs: str = response.headers.get("x-request-id", "")
    ours: str = response.request.headers[KEY]
    return theirs or ours
