"""HubSpot: a contact's properties, upserted by e-mail address."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar
from uuid import UUID

import httpx
from pydantic import SecretStr

from marketing_pipeline.domain import digest
from marketing_pipeline.domain.effect import Contact, Content, Contract, DeliveryClass, EffectKind
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

ADDRESS = "https://api.hubapi.com"
PATH = "/crm/v3/objects/contacts/batch/upsert"
WINDOW = timedelta(seconds=10)  # the limit's own span, TEN_SECONDLY_ROLLING
LOCKED = timedelta(seconds=2)  # "wait at least two seconds" after 423
LONGEST_MIGRATION = timedelta(hours=24)  # the longest Retry-After of a 477


class HubSpotOptions(Options):
    """token: of a private app with the scope crm.objects.contacts.write."""

    kind: ClassVar = EffectKind.CONTACT
    contract: ClassVar = Contract(
        delivery_class=DeliveryClass.KEYED, settle_delay=timedelta(seconds=30)
    )

    token: Secret

    def provider(self, name: str, contract: Contract, base_url: str | None) -> "HubSpot":
        return HubSpot(
            name=name,
            contract=contract,
            url=httpx.URL((base_url or ADDRESS) + PATH),
            token=self.token,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class HubSpot(Unsearchable):
    """Keyed without a key: the call says how the contact is to be, so a repeat changes nothing.

    Of two versions of one contact the later call wins, whichever is the newer: keep one in flight.
    """

    kind: ClassVar = EffectKind.CONTACT
    compares_payload: ClassVar = False

    name: str
    contract: Contract
    url: httpx.URL
    token: SecretStr

    def request(self, effect_id: UUID, content: Content) -> httpx.Request:
        """One contact: a lost batch would put up to a hundred in doubt."""
        if not isinstance(content, Contact):
            raise TypeError(f"{self.name} takes a contact, not {content.kind}")
        contact = {
            "id": content.email.lower(),  # HubSpot stores it so, and its match is exact
            "idProperty": "email",
            "properties": content.properties,
            "objectWriteTraceId": str(effect_id),
        }
        return self.repeat(effect_id, digest.canonical({"inputs": [contact]}))

    def repeat(self, effect_id: UUID, body: bytes) -> httpx.Request:  # noqa: ARG002 - it is in there
        headers = {
            "Authorization": f"Bearer {self.token.get_secret_value()}",
            "Content-Type": "application/json",
        }
        return httpx.Request("POST", self.url, headers=headers, content=body)

    def outcome(self, response: httpx.Response, now: datetime) -> Outcome:
        document = answer.document(response)
        category = answer.text(document.get("category"))
        reason = answer.words(response, category, document.get("message"))
        match response.status_code:
            case 200 | 201 | 207:
                return _batch(response, document)
            case 400 if category == "VALIDATION_ERROR":
                return Refused(reason)
            case 401 | 403:
                return Blocked(None, reason)
            case 423:
                return Throttled(_told(response, now, default=LOCKED, shortest=LOCKED), reason)
            case 429 if "DAILY" in (document.get("policyName"), category):
                return Blocked(_tomorrow(response, now), reason)
            case 429:
                return Throttled(_rolling(response, now), reason)
            case 477:  # the account is being moved to another data centre
                return Throttled(_told(response, now, default=timedelta(minutes=5)), reason)
            case _:
                return Ambiguous(reason)

    def observed(self, response: httpx.Response, now: datetime) -> tuple[Observed, ...]:
        """Two windows. The rolling one tells its length: by then all that it counts has left it."""
        headers = response.headers
        interval = headers.get("x-hubspot-ratelimit-interval-milliseconds")
        left = headers.get("x-hubspot-ratelimit-remaining")
        of_day = headers.get("x-hubspot-ratelimit-daily-remaining")
        return (
            *observed("rolling", left, retry_after.milliseconds(interval), of=self.name),
            *observed("daily", of_day, _midnight(now) - now, of=self.name),
        )


def _batch(response: httpx.Response, document: Mapping[str, Any]) -> Outcome:
    """The verdict on our one input; 207 may also carry a success, and 200 an error."""
    results, errors = document.get("results"), document.get("errors") or []
    match results, errors:
        case [{"id": str(reference)}], [] if document.get("status") == "COMPLETE":
            return Accepted(reference)
        case _, [{"category": "VALIDATION_ERROR", **error}] if not results:
            reason = answer.words(response, "VALIDATION_ERROR", error.get("message"))
            return Refused(reason)
        case _, [{**error}, *_]:
            reason = answer.words(response, error.get("category"), error.get("message"))
            return Ambiguous(reason)
        case _:
            return Ambiguous(answer.words(response))


def _rolling(response: httpx.Response, now: datetime) -> timedelta:
    """No Retry-After is documented; the interval is the window's length and bounds the wait."""
    headers = response.headers
    interval = retry_after.milliseconds(headers.get("x-hubspot-ratelimit-interval-milliseconds"))
    waits = [retry_after.retry_after(headers.get("retry-after"), now), interval]
    return retry_after.first(waits, default=WINDOW, longest=timedelta(minutes=10))


def _told(
    response: httpx.Response,
    now: datetime,
    *,
    default: timedelta,
    shortest: timedelta = timedelta(0),
) -> timedelta:
    told = retry_after.retry_after(response.headers.get("retry-after"), now)
    return max(shortest, retry_after.first([told], default=default, longest=LONGEST_MIGRATION))


def _tomorrow(response: httpx.Response, now: datetime) -> datetime:
    """The daily limit begins anew at midnight; whose midnight is not told to us."""
    return now + _told(response, now, default=_midnight(now) - now)


def _midnight(now: datetime) -> datetime:
    today = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return today + timedelta(days=1)
