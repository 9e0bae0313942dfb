"""Resend's adapter: its bytes against the published contract, and what each answer means."""

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
from marketing_pipeline_tests import published

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
EFFECT = UUID("5b0ef1c5-5f3b-5d43-9a58-0c6f3d8f5b11")
MAIL = Email(
    sender="Käthe <kaethe@shop.example>",
    to="anna@example.com",
    subject="Grüße",
    html="<p>Hallo</p>",
    text="Hallo",
    headers=(
        ("List-Unsubscribe", "<https://shop.example/u/1>"),
        ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"),
    ),
)
RESEND = registry.build("mail", "resend", {"api_key": "re_secret"})
SPEC = "resend/resend.yaml"


def answer(
    status: int, name: str = "", headers: dict[str, str] | None = None, body: object = None
) -> Outcome:
    document = {"statusCode": status, "name": name, "message": "Sorry"} if body is None else body
    content = document if isinstance(document, bytes) else json.dumps(document).encode()
    request = RESEND.request(EFFECT, MAIL)
    response = httpx.Response(status, headers=headers, content=content, request=request)
    return RESEND.outcome(response, NOW)


def test_the_bytes_keep_the_published_contract() -> None:
    request = RESEND.request(EFFECT, MAIL)
    assert str(request.url) == "https://api.resend.com/emails"
    assert published.violations(request, SPEC) == []
    properties = published.contract(SPEC)["components"]["schemas"]["SendEmailRequest"]["properties"]
    assert json.loads(request.content).keys() <= properties.keys()  # the schema lets others pass


@pytest.mark.parametrize(
    "change",
    [{"to": []}, {"to": [1]}, {"subject": 5}, {"from": None}, {"headers": "x"}],
)
def test_a_body_that_breaks_the_contract_is_noticed(change: dict[str, Any]) -> None:
    body = json.loads(RESEND.request(EFFECT, MAIL).content) | change
    assert published.violations(RESEND.repeat(EFFECT, json.dumps(body).encode()), SPEC) != []


def test_a_key_that_is_too_long_and_a_missing_token_are_noticed() -> None:
    request = RESEND.request(EFFECT, MAIL)
    request.headers["idempotency-key"] = "x" * 257
    assert any("is too long" in text for text in published.violations(request, SPEC))
    request = RESEND.request(EFFECT, MAIL)
    del request.headers["authorization"]
    assert any("Security" in text for text in published.violations(request, SPEC))


def test_the_same_mail_gives_the_same_bytes_and_key() -> None:
    first = RESEND.request(EFFECT, MAIL)
    again = registry.build("mail", "resend", {"api_key": "re_secret"}).request(EFFECT, MAIL)
    repeated = RESEND.repeat(EFFECT, first.content)
    assert first.content == again.content == repeated.content
    assert first.headers.raw == again.headers.raw == repeated.headers.raw
    assert first.headers["idempotency-key"] == str(EFFECT)
    assert (
        first.content
        == (
            '{"from":"Käthe <kaethe@shop.example>","headers":{"List-Unsubscribe":'
            '"<https://shop.example/u/1>","List-Unsubscribe-Post":"List-Unsubscribe=One-Click"},'
            '"html":"<p>Hallo</p>","subject":"Grüße","text":"Hallo","to":["anna@example.com"]}'
        ).encode()
    )


def test_what_it_promises() -> None:
    assert RESEND.contract.delivery_class is DeliveryClass.KEYED
    assert RESEND.contract.key_life == timedelta(hours=24)
    assert RESEND.compares_payload


def test_a_contact_is_not_a_mail() -> None:
    with pytest.raises(TypeError, match="mail takes an email, not contact"):
        RESEND.request(EFFECT, Contact(email="a@b.example"))


def test_a_mail_is_accepted_by_its_id() -> None:
    assert answer(200, body={"id": "49a3999c"}) == Accepted("49a3999c")


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff", [], {}, {"id": ""}, {"id": 7}])
def test_a_success_without_an_id_is_ambiguous(body: object) -> None:
    assert isinstance(answer(200, body=body), Ambiguous)


@pytest.mark.parametrize(
    ("status", "name", "kind"),
    [
        (400, "validation_error", Refused),
        (400, "invalid_idempotency_key", Refused),
        (422, "missing_required_field", Refused),
        (422, "invalid_attachment", Refused),
        (401, "missing_api_key", Blocked),
        (401, "restricted_api_key", Blocked),
        (403, "invalid_api_key", Blocked),
        (403, "validation_error", Blocked),  # the sender's domain is not verified
        (409, "concurrent_idempotent_requests", Throttled),
        (409, "invalid_idempotent_request", Ambiguous),  # it took other bytes under our key
        (409, "", Ambiguous),
        (429, "rate_limit_exceeded", Throttled),
        (429, "", Throttled),
        (429, "daily_quota_exceeded", Blocked),
        (429, "monthly_quota_exceeded", Blocked),
        (201, "", Ambiguous),
        (302, "", Ambiguous),
        (404, "not_found", Ambiguous),
        (405, "method_not_allowed", Ambiguous),
        (451, "security_error", Ambiguous),
        (500, "internal_server_error", Ambiguous),
        (502, "", Ambiguous),
        (503, "", Ambiguous),
    ],
)
def test_each_answer_has_its_meaning_and_the_rest_is_ambiguous(
    status: int, name: str, kind: type[Outcome]
) -> None:
    outcome = answer(status, name)
    assert type(outcome) is kind
    reason = getattr(outcome, "reason", "")
    assert reason == " ".join(f"{status} {name} Sorry".split())


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"retry-after": "3", "ratelimit-reset": "9"}, 3),
        ({"ratelimit-reset": "9"}, 9),
        ({"retry-after": "Sun, 01 Mar 2026 12:00:20 GMT"}, 20),
        ({"ratelimit-reset": str(NOW.timestamp())}, 1),  # an instant here is nonsense
        ({}, 1),
    ],
)
def test_a_limit_is_waited_for_in_seconds_from_now(headers: dict[str, str], expected: int) -> None:
    outcome = answer(429, "rate_limit_exceeded", headers)
    assert isinstance(outcome, Throttled)
    assert outcome.retry_after == timedelta(seconds=expected)


@pytest.mark.parametrize(
    ("headers", "until"),
    [
        ({}, None),
        ({"retry-after": "3600"}, NOW + timedelta(hours=1)),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "1e12"}, None),
    ],
)
def test_a_used_up_quota_blocks_until_it_is_told(
    headers: dict[str, str], until: datetime | None
) -> None:
    outcome = answer(429, "daily_quota_exceeded", headers)
    assert outcome == Blocked(until, "429 daily_quota_exceeded Sorry")


def test_a_key_that_is_echoed_does_not_reach_the_reason() -> None:
    outcome = answer(403, body={"name": "invalid_api_key", "message": "re_secret is invalid"})
    assert outcome == Blocked(None, "403 invalid_api_key [secret] is invalid")
    assert "re_secret" not in repr(RESEND)


def test_a_long_refusal_is_cut_after_its_addresses_are_gone() -> None:
    long = "anna.smith@example.com " * 1000
    outcome = answer(422, body={"name": "validation_error", "message": long})
    assert isinstance(outcome, Refused)
    assert len(outcome.reason) == 300
    assert "anna" not in outcome.reason
    raw = answer(422, body=("x" * 4090 + " anna.smith@example.com").encode())
    assert isinstance(raw, Refused)
    assert "anna" not in raw.reason


def test_it_has_no_look_up() -> None:
    assert RESEND.look_up(EFFECT, MAIL.to, NOW) is None
    response = httpx.Response(200, json={}, request=RESEND.request(EFFECT, MAIL))
    assert isinstance(RESEND.finding(response, EFFECT), Inconclusive)
