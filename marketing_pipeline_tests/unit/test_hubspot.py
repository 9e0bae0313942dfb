"""HubSpot's adapter: its bytes, and what each answer means.

HubSpot's own description may not be copied here, so what it asks for is written out.
"""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest

from marketing_pipeline.domain.effect import Contact, DeliveryClass, Email
from marketing_pipeline.domain.outcome import (
    Accepted,
    Ambiguous,
    Blocked,
    Inconclusive,
    Outcome,
    Refused,
    Throttled,
)
from marketing_pipeline.providers import registry

NOW = datetime(2026, 3, 1, 22, 30, tzinfo=UTC)
EFFECT = UUID("5b0ef1c5-5f3b-5d43-9a58-0c6f3d8f5b11")
CONTACT = Contact(email="Anna@Example.com", properties={"firstname": "Änna", "city": "Köln"})
HUBSPOT = registry.build("crm", "hubspot", {"token": "pat-eu1-secret"})
RESULT = {"id": "901", "properties": {}, "new": True, "objectWriteTraceId": str(EFFECT)}


def answer(status: int, body: object, headers: dict[str, str] | None = None) -> Outcome:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = HUBSPOT.request(EFFECT, CONTACT)
    response = httpx.Response(status, headers=headers, content=content, request=request)
    return HUBSPOT.outcome(response, NOW)


def errors(request: httpx.Request) -> list[str]:
    """What a batch upsert asks for, checked on the bytes."""
    found = []
    if (request.method, request.url.path) != ("POST", "/crm/v3/objects/contacts/batch/upsert"):
        found.append("address")
    if not request.headers.get("authorization", "").startswith("Bearer "):
        found.append("authorization")
    document = json.loads(request.content)
    if set(document) != {"inputs"} or not 1 <= len(document["inputs"]) <= 100:
        return [*found, "inputs"]
    for contact in document["inputs"]:
        if not set(contact) <= {"id", "idProperty", "properties", "objectWriteTraceId"}:
            found.append("unknown field")
        if contact["id"] != contact["id"].lower() or contact.get("idProperty") != "email":
            found.append("id")
        values = contact.get("properties", {}).values()
        if not all(isinstance(value, str) for value in values):
            found.append("properties")
    return found


def test_the_bytes_keep_the_contract() -> None:
    request = HUBSPOT.request(EFFECT, CONTACT)
    assert errors(request) == []
    assert request.headers["content-type"] == "application/json"
    assert json.loads(request.content) == {
        "inputs": [
            {
                "id": "anna@example.com",
                "idProperty": "email",
                "properties": {"firstname": "Änna", "city": "Köln"},
                "objectWriteTraceId": str(EFFECT),
            }
        ]
    }


@pytest.mark.parametrize(
    "contact",
    [
        {"id": "Anna@example.com", "idProperty": "email", "properties": {}},
        {"id": "anna@example.com", "properties": {}},
        {"id": "anna@example.com", "idProperty": "email", "properties": {"age": 3}},
        {"id": "anna@example.com", "idProperty": "email", "email": "x"},
    ],
)
def test_a_body_that_breaks_the_contract_is_noticed(contact: dict[str, Any]) -> None:
    body = json.dumps({"inputs": [contact]}).encode()
    assert errors(HUBSPOT.repeat(EFFECT, body)) != []


def test_the_same_contact_gives_the_same_bytes_whatever_the_order_of_its_properties() -> None:
    other = Contact(email=CONTACT.email, properties=dict(reversed(CONTACT.properties.items())))
    first, second = HUBSPOT.request(EFFECT, CONTACT), HUBSPOT.request(EFFECT, other)
    assert first.content == second.content
    assert first.headers.raw == second.headers.raw
    repeated = HUBSPOT.repeat(EFFECT, first.content)
    assert (repeated.content, repeated.headers.raw) == (first.content, first.headers.raw)


def test_a_repeat_is_always_safe() -> None:
    assert HUBSPOT.contract.delivery_class is DeliveryClass.KEYED
    assert HUBSPOT.contract.key_life is None
    assert not HUBSPOT.compares_payload


def test_a_mail_is_not_a_contact() -> None:
    mail = Email(sender="a@b.example", to="c@d.example", subject="", html="", text="")
    with pytest.raises(TypeError, match="crm takes a contact, not email"):
        HUBSPOT.request(EFFECT, mail)


def test_a_stored_contact_is_accepted_by_its_id() -> None:
    for status in (200, 207):
        body = {"status": "COMPLETE", "results": [RESULT]}
        assert answer(status, body) == Accepted("901")


INVALID = {
    "status": "error",
    "category": "VALIDATION_ERROR",
    "message": "Email address anna@example.com is invalid",
    "context": {"objectWriteTraceId": [str(EFFECT)]},
}


@pytest.mark.parametrize("status", [200, 207])
def test_an_error_about_our_contact_refuses_it_even_under_a_success_status(status: int) -> None:
    body = {"status": "COMPLETE", "results": [], "numErrors": 1, "errors": [INVALID]}
    outcome = answer(status, body)
    assert outcome == Refused(f"{status} VALIDATION_ERROR Email address [address] is invalid")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"\xff\xfe",
        b"[" * 100_000,
        [],
        {},
        {"status": "COMPLETE", "results": []},
        {"status": "COMPLETE", "results": [{}]},
        {"status": "COMPLETE", "results": [{"id": 901}]},
        {"status": "COMPLETE", "results": [RESULT, RESULT]},
        {"status": "PENDING", "results": [RESULT]},
        {"status": "COMPLETE", "results": [RESULT], "errors": [INVALID]},
        {"status": "COMPLETE", "results": [], "errors": [{"category": "CONFLICT"}]},
        {"status": "COMPLETE", "results": [], "errors": [INVALID, INVALID]},
        {"status": "COMPLETE", "results": "x", "errors": 3},
    ],
)
@pytest.mark.parametrize("status", [200, 201, 207])
def test_a_success_that_does_not_show_our_contact_is_ambiguous(status: int, body: object) -> None:
    assert isinstance(answer(status, body), Ambiguous)


LIMIT = "x-hubspot-ratelimit-interval-milliseconds"


@pytest.mark.parametrize(
    ("status", "body", "headers", "expected"),
    [
        (423, {}, {}, timedelta(seconds=2)),
        (423, {}, {"retry-after": "1"}, timedelta(seconds=2)),
        (423, {}, {"retry-after": "7"}, timedelta(seconds=7)),
        (477, {}, {"retry-after": "7200"}, timedelta(hours=2)),
        (477, {}, {}, timedelta(minutes=5)),
        (429, {"policyName": "TEN_SECONDLY_ROLLING"}, {}, timedelta(seconds=10)),
        (429, {"policyName": "TEN_SECONDLY_ROLLING"}, {LIMIT: "5000"}, timedelta(seconds=5)),
        (429, {"policyName": "SECONDLY"}, {LIMIT: "nan"}, timedelta(seconds=10)),
        (429, {}, {"retry-after": "3", LIMIT: "10000"}, timedelta(seconds=3)),
        (429, b"", {"retry-after": "-1"}, timedelta(seconds=10)),
    ],
)
def test_a_limit_is_waited_for(
    status: int, body: object, headers: dict[str, str], expected: timedelta
) -> None:
    outcome = answer(status, body, headers)
    assert isinstance(outcome, Throttled)
    assert outcome.retry_after == expected


def test_a_used_up_day_blocks_until_midnight() -> None:
    outcome = answer(429, {"policyName": "DAILY", "message": "You have reached your daily limit."})
    assert outcome == Blocked(
        datetime(2026, 3, 2, tzinfo=UTC), "429 You have reached your daily limit."
    )
    told = answer(429, {"policyName": "DAILY"}, {"retry-after": "600"})
    assert isinstance(told, Blocked)
    assert told.until == NOW + timedelta(minutes=10)


@pytest.mark.parametrize(
    ("status", "category", "kind"),
    [
        (400, "VALIDATION_ERROR", Refused),
        (400, "SOMETHING_NEW", Ambiguous),
        (401, "INVALID_AUTHENTICATION", Blocked),
        (401, "EXPIRED_AUTHENTICATION", Blocked),
        (403, "MISSING_SCOPES", Blocked),
        (302, "", Ambiguous),
        (404, "OBJECT_NOT_FOUND", Ambiguous),
        (409, "CONFLICT", Ambiguous),
        (418, "", Ambiguous),
        (500, "INTERNAL_ERROR", Ambiguous),
        (502, "", Ambiguous),
        (503, "", Ambiguous),
        (504, "", Ambiguous),
        (522, "", Ambiguous),
    ],
)
def test_each_status_has_its_meaning_and_the_rest_is_ambiguous(
    status: int, category: str, kind: type[Outcome]
) -> None:
    outcome = answer(status, {"category": category, "message": "Told to x@y.example"})
    assert type(outcome) is kind
    reason = getattr(outcome, "reason", "")
    assert reason == " ".join(f"{status} {category} Told to [address]".split())


def test_a_token_that_is_echoed_does_not_reach_the_reason() -> None:
    outcome = answer(401, {"message": "pat-eu1-secret is unknown"})
    assert outcome == Blocked(None, "401 [secret] is unknown")
    assert "pat-eu1-secret" not in repr(HUBSPOT)


def test_it_has_no_look_up() -> None:
    assert HUBSPOT.look_up(EFFECT, "anna@example.com", NOW) is None
    response = httpx.Response(200, json={}, request=HUBSPOT.request(EFFECT, CONTACT))
    assert isinstance(HUBSPOT.finding(response, EFFECT), Inconclusive)
