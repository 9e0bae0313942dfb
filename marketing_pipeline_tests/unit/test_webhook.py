"""The webhook adapter: its bytes, and what each answer means."""

import json
from datetime import UTC, datetime, timedelta
from uuid import UUID

import httpx
import pytest

from marketing_pipeline.domain.effect import Contact, DeliveryClass, Post
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

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
EFFECT = UUID("5b0ef1c5-5f3b-5d43-9a58-0c6f3d8f5b11")
POST = Post(body={"title": "Grüße", "at": "2026-03-01", "n": 1})
URL = "https://hooks.example/services/T/B/secret-path"
HOOK = registry.build("blog", "webhook", {"url": URL, "secret": "token"})
PLAIN = registry.build("slack", "webhook", {"url": URL, "deduplicates": False})


def answer(status: int, headers: dict[str, str] | None = None, body: bytes = b"Sorry") -> Outcome:
    request = HOOK.request(EFFECT, POST)
    response = httpx.Response(status, headers=headers, content=body, request=request)
    return HOOK.outcome(response, NOW)


def test_the_document_goes_out_in_canonical_form_under_our_key() -> None:
    request = HOOK.request(EFFECT, POST)
    assert (request.method, str(request.url)) == ("POST", URL)
    assert request.content == '{"at":"2026-03-01","n":1,"title":"Grüße"}'.encode()
    assert request.headers["content-type"] == "application/json"
    assert request.headers["idempotency-key"] == str(EFFECT)
    assert request.headers["authorization"] == "Bearer token"
    assert json.loads(request.content) == POST.body


def test_without_a_secret_nothing_is_authorized() -> None:
    open_hook = registry.build("blog", "webhook", {"url": URL})
    assert "authorization" not in open_hook.request(EFFECT, POST).headers


def test_the_same_document_gives_the_same_bytes_whatever_its_order() -> None:
    other = Post(body=dict(reversed(POST.body.items())))
    first, second = HOOK.request(EFFECT, POST), HOOK.request(EFFECT, other)
    repeated = HOOK.repeat(EFFECT, first.content)
    assert first.content == second.content == repeated.content
    assert first.headers.raw == second.headers.raw == repeated.headers.raw


def test_a_contact_is_not_a_post() -> None:
    with pytest.raises(TypeError, match="blog takes a post, not contact"):
        HOOK.request(EFFECT, Contact(email="a@b.example"))


def test_what_it_promises() -> None:
    assert HOOK.contract.delivery_class is DeliveryClass.KEYED
    assert HOOK.contract.key_life == timedelta(hours=24)


def test_a_receiver_that_keeps_no_keys_promises_nothing_and_hears_the_name_of_the_call() -> None:
    assert PLAIN.contract.delivery_class is DeliveryClass.BLIND
    assert PLAIN.contract.key_life is None
    assert not PLAIN.contract.at_least_once
    request = PLAIN.request(EFFECT, POST)
    assert request.content == HOOK.request(EFFECT, POST).content
    assert request.headers["idempotency-key"] == str(EFFECT)
    assert PLAIN.look_up(EFFECT, "", NOW) is None


def test_neither_its_secret_nor_its_address_is_shown() -> None:
    assert "token" not in repr(HOOK)
    assert "secret-path" not in repr(HOOK)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_any_success_is_accepted_by_the_effects_id(status: int) -> None:
    assert answer(status) == Accepted(str(EFFECT))


def test_the_receivers_own_name_for_the_call_is_its_reference() -> None:
    assert answer(200, {"x-request-id": "req-1"}) == Accepted("req-1")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, Refused),
        (404, Refused),
        (410, Refused),
        (422, Refused),
        (401, Blocked),
        (403, Blocked),
        (429, Throttled),
        (301, Ambiguous),
        (304, Ambiguous),
        (402, Ambiguous),
        (409, Ambiguous),
        (418, Ambiguous),
        (500, Ambiguous),
        (503, Ambiguous),
    ],
)
def test_each_status_has_its_meaning_and_the_rest_is_ambiguous(
    status: int, kind: type[Outcome]
) -> None:
    outcome = answer(status, {"retry-after": "5"}, b"Not for x@y.example")
    assert type(outcome) is kind
    assert getattr(outcome, "reason", "") == f"{status} Not for [address]"


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("5", 5),
        ("Sun, 01 Mar 2026 12:01:00 GMT", 60),
        ("1e9", 10),
        ("-1", 10),
        ("", 10),
    ],
)
def test_a_limit_is_waited_for(told: str, expected: int) -> None:
    outcome = answer(429, {"retry-after": told})
    assert isinstance(outcome, Throttled)
    assert outcome.retry_after == timedelta(seconds=expected)


def test_it_has_no_look_up() -> None:
    assert HOOK.look_up(EFFECT, "", NOW) is None
    response = httpx.Response(200, request=HOOK.request(EFFECT, POST))
    assert isinstance(HOOK.finding(response, EFFECT), Inconclusive)
