"""Mailgun's adapter: its form against the published contract, answers and look-ups."""

import base64
import json
from datetime import UTC, datetime, timedelta
from uuid import UUID

import httpx
import pytest

from marketing_pipeline.domain.effect import Contact, DeliveryClass, Email
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
from marketing_pipeline.providers import mailgun, registry
from marketing_pipeline_tests import published

NOW = datetime(2021, 12, 20, 20, 33, 1, tzinfo=UTC)
EFFECT = UUID("5b0ef1c5-5f3b-5d43-9a58-0c6f3d8f5b11")
MESSAGE_ID = f"{EFFECT}@mg.shop.example"
MAIL = Email(
    sender="Käthe <kaethe@shop.example>",
    to="anna@example.com",
    subject="Grüße",
    html="<p>Hallo</p>",
    text="Hallo\r\n--\r\nKäthe",
    headers=(("List-Unsubscribe", "<https://shop.example/u/1>"),),
)
OPTIONS = {"api_key": "key-secret", "domain": "mg.shop.example", "region": "eu"}
MAILGUN = registry.build("bulk", "mailgun", OPTIONS)
SPEC = "mailgun/openapi.yaml"
SCHEMA = published.contract(SPEC)["components"]["schemas"][
    "POST-v3-domain_name-messages-multipart-form-data-RequestBody"
]


def answered(
    request: httpx.Request | None, status: int, body: object, headers: dict[str, str] | None = None
) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx.Response(status, headers=headers, content=content, request=request)


def outcome(status: int, body: object, headers: dict[str, str] | None = None) -> Outcome:
    response = answered(MAILGUN.request(EFFECT, MAIL), status, body, headers)
    return MAILGUN.outcome(response, NOW)


def finding(status: int, body: object) -> Finding:
    request = MAILGUN.look_up(EFFECT, MAIL.to, NOW)
    return MAILGUN.finding(answered(request, status, body), EFFECT)


# --- bytes ---------------------------------------------------------------------------------------


def test_the_form_keeps_the_published_contract() -> None:
    request = MAILGUN.request(EFFECT, MAIL)
    assert str(request.url) == "https://api.eu.mailgun.net/v3/mg.shop.example/messages"
    assert published.violations(request, SPEC) == []
    form = published.fields(request)
    assert published.form_violations(form, SCHEMA) == []
    assert form == {
        "from": ["Käthe <kaethe@shop.example>"],
        "to": ["anna@example.com"],
        "subject": ["Grüße"],
        "text": ["Hallo\r\n--\r\nKäthe"],
        "html": ["<p>Hallo</p>"],
        "h:List-Unsubscribe": ["<https://shop.example/u/1>"],
        "h:Message-Id": [f"<{MESSAGE_ID}>"],
        "v:delivery_id": [str(EFFECT)],
    }


@pytest.mark.parametrize("missing", ["to", "from", "subject"])
def test_a_form_that_breaks_the_contract_is_noticed(missing: str) -> None:
    form = published.fields(MAILGUN.request(EFFECT, MAIL))
    del form[missing]
    assert published.form_violations(form, SCHEMA) == [f"'{missing}' is a required property"]


def test_a_form_of_another_encoding_is_noticed() -> None:
    request = MAILGUN.request(EFFECT, MAIL)
    request.headers["content-type"] = "application/x-www-form-urlencoded"
    assert any("mimetype not found" in text for text in published.violations(request, SPEC))


def test_the_key_travels_as_the_password_of_api() -> None:
    scheme, _, credential = MAILGUN.request(EFFECT, MAIL).headers["authorization"].partition(" ")
    assert (scheme, base64.b64decode(credential)) == ("Basic", b"api:key-secret")
    assert "key-secret" not in repr(MAILGUN)


def test_the_same_mail_gives_the_same_bytes_and_boundary() -> None:
    first, again = MAILGUN.request(EFFECT, MAIL), MAILGUN.request(EFFECT, MAIL)
    repeated = MAILGUN.repeat(EFFECT, first.content)
    assert first.content == again.content == repeated.content
    assert first.headers.raw == again.headers.raw == repeated.headers.raw
    other = MAILGUN.request(UUID(int=7), MAIL)
    assert other.headers["content-type"] != first.headers["content-type"]


def test_a_mail_that_holds_the_boundary_moves_it() -> None:
    usual = MAILGUN.request(EFFECT, MAIL).headers["content-type"].partition("boundary=")[2]
    text = f'before\r\n--{usual}\r\nContent-Disposition: form-data; name="bcc"\r\n\r\nx\r\n'
    hostile = Email(sender="a@b.example", to=MAIL.to, subject="s", html="<p>", text=text)
    form = published.fields(MAILGUN.request(EFFECT, hostile))
    assert form["text"] == [text]
    assert "bcc" not in form


def test_the_name_of_a_header_cannot_begin_another_field() -> None:
    mail = Email(
        sender="a@b.example", to=MAIL.to, subject="s", html="", text="", headers=(('X"\r\ny', "1"),)
    )
    body = MAILGUN.request(EFFECT, mail).content
    assert b'name="h:X%22%0D%0Ay"' in body


def test_a_contact_is_not_a_mail() -> None:
    with pytest.raises(TypeError, match="bulk takes an email, not contact"):
        MAILGUN.request(EFFECT, Contact(email="a@b.example"))


def test_what_it_promises() -> None:
    contract = MAILGUN.contract
    assert contract.delivery_class is DeliveryClass.SEARCHABLE
    assert (contract.settle_delay, contract.horizon) == (timedelta(minutes=30), timedelta(days=1))


# --- answers -------------------------------------------------------------------------------------


def test_a_queued_mail_is_accepted_by_its_message_id() -> None:
    body = {"id": f"<{MESSAGE_ID}>", "message": "Queued. Thank you."}
    assert outcome(200, body) == Accepted(MESSAGE_ID)


@pytest.mark.parametrize("body", [b"", b"OK", b"\xff", [], {}, {"id": ""}, {"id": 7}])
def test_a_success_without_an_id_is_ambiguous(body: object) -> None:
    assert isinstance(outcome(200, body), Ambiguous)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, Refused),
        (413, Refused),
        (401, Blocked),
        (402, Blocked),
        (403, Blocked),
        (404, Blocked),  # the domain in the path is every mail's
        (429, Throttled),
        (202, Ambiguous),
        (302, Ambiguous),
        (405, Ambiguous),
        (500, Ambiguous),
        (502, Ambiguous),
        (503, Ambiguous),
        (504, Ambiguous),
    ],
)
def test_each_status_has_its_meaning_and_the_rest_is_ambiguous(
    status: int, kind: type[Outcome]
) -> None:
    said = outcome(status, {"message": "to parameter x@y.example is not a valid address"})
    assert type(said) is kind
    reason = getattr(said, "reason", "")
    assert reason == f"{status} to parameter [address] is not a valid address"


def test_a_bare_forbidden_blocks() -> None:
    assert outcome(401, b"Forbidden") == Blocked(None, "401 Forbidden")
    assert outcome(401, b"key-secret is wrong") == Blocked(None, "401 [secret] is wrong")


LIMITED = "Domain mg.shop.example is not allowed to send: account-requests-per-sec limit exceeded"


@pytest.mark.parametrize(
    ("text", "headers", "expected"),
    [
        (f"{LIMITED}, try again after 120 seconds", {}, 120),
        (f"{LIMITED}, try again after 1 second", {}, 1),
        (f"{LIMITED}, try again after Mon, 20 Dec 2021 20:33:21 UTC", {}, 20),
        (LIMITED, {"retry-after": "15"}, 15),
        (LIMITED, {"retry-after": "Mon, 20 Dec 2021 20:33:31 GMT"}, 30),
        (LIMITED, {"x-ratelimit-reset": f"{NOW.timestamp() + 12.5}"}, 12.5),
        (LIMITED, {"x-ratelimit-reset": "12"}, 60),  # 1970 is over
        (f"{LIMITED}, try again after 999999999 seconds", {}, 60),
        (f"{LIMITED}, try again after nan seconds", {"retry-after": "nan"}, 60),
        (LIMITED, {}, 60),
    ],
)
def test_every_hint_that_mailgun_has_ever_given_is_read(
    text: str, headers: dict[str, str], expected: float
) -> None:
    said = outcome(429, {"message": text}, headers)
    assert isinstance(said, Throttled)
    assert said.retry_after == timedelta(seconds=expected)
    assert said.reason == f"429 {text}"


# --- look-ups ------------------------------------------------------------------------------------


def test_the_look_up_keeps_the_published_contract() -> None:
    request = MAILGUN.look_up(EFFECT, MAIL.to, NOW)
    assert request is not None
    assert request.method == "GET"
    assert dict(request.url.params) == {
        "message-id": MESSAGE_ID,
        "begin": str(int(NOW.timestamp()) - 3600),
        "ascending": "yes",
    }
    assert published.violations(request, SPEC) == []
    described = published.contract(SPEC)["paths"]["/v3/{domain_name}/events"]["get"]["parameters"]
    assert set(request.url.params) <= {parameter["name"] for parameter in described}


def test_a_look_up_that_breaks_the_contract_is_noticed() -> None:
    request = MAILGUN.look_up(EFFECT, MAIL.to, NOW)
    assert request is not None
    request.url = request.url.copy_set_param("ascending", "sideways")
    assert published.violations(request, SPEC) != []


def event(kind: str, message_id: str = MESSAGE_ID) -> dict[str, object]:
    return {"event": kind, "message": {"headers": {"message-id": message_id}}}


@pytest.mark.parametrize("kind", sorted(mailgun.TAKEN))
def test_an_event_of_our_message_shows_that_it_was_taken(kind: str) -> None:
    assert finding(200, {"items": [event(kind)]}) == Found(MESSAGE_ID)


def test_the_events_are_the_contracts_own() -> None:
    described = published.contract(SPEC)["components"]["schemas"]["EventType"]["enum"]
    assert set(described) >= mailgun.TAKEN


def test_an_empty_page_shows_that_it_was_not_taken() -> None:
    assert finding(200, {"items": [], "paging": {}}) == Absent()


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b""),
        (200, b"<html>"),
        (200, []),
        (200, {}),
        (200, {"items": None}),
        (200, {"items": {}}),
        (200, {"items": [event("accepted", "other@mg.shop.example")]}),
        (200, {"items": [event("accepted", f"<{MESSAGE_ID}>")]}),
        (200, {"items": [event("rejected")]}),
        (200, {"items": [event("invented")]}),
        (200, {"items": [{"event": "accepted"}, "x", None, 3]}),
        (200, {"items": [{"event": ["accepted"], "message": {"headers": {"message-id": 1}}}]}),
        (206, {"items": []}),
        (304, b""),
        (400, {"message": "bad filter", "items": []}),
        (401, b"Forbidden"),
        (404, {"message": "Domain not found", "items": []}),
        (429, {"message": "slow down"}),
        (500, {"items": []}),
    ],
)
def test_anything_else_says_nothing(status: int, body: object) -> None:
    said = finding(status, body)
    assert isinstance(said, Inconclusive)
    assert said.reason.startswith(str(status))
