"""The sandbox keeps the providers' contracts, measured with what they published."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from openapi_core import OpenAPI
from openapi_core.exceptions import OpenAPIError
from openapi_core.testing import MockRequest, MockResponse

from marketing_pipeline.sandbox import form
from marketing_pipeline_tests.sandbox_clock import Clock

SPECS = Path(__file__).parents[1] / "specs"
UPSERT = "/hubspot/crm/v3/objects/contacts/batch/upsert"
MESSAGES = "/mailgun/v3/example.org/messages"
EVENTS = "/mailgun/v3/example.org/events"
BEARER = {"Authorization": "Bearer key-of-a-test"}
MAIL: dict[str, Any] = {
    "from": "Ada <ada@example.org>",
    "to": ["bob@example.com"],
    "subject": "Hello",
    "html": "<p>Grüße</p>",
}


def acts(client: httpx.Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get("/_sandbox/record").json()
    return found


def contact(email: str, trace: str | None = None, **properties: str) -> dict[str, Any]:
    entry = {"id": email, "idProperty": "email", "properties": properties}
    return entry if trace is None else {**entry, "objectWriteTraceId": trace}


def upsert(client: httpx.Client, *inputs: object) -> httpx.Response:
    return client.post(UPSERT, headers=BEARER, json={"inputs": inputs})


def test_an_upsert_makes_a_contact_once_and_says_whether_it_is_new(client: httpx.Client) -> None:
    first = upsert(client, contact("Ada@Example.org", "t-1", firstname="Ada", city="Graz"))
    second = upsert(client, contact("ada@example.org", "t-2", firstname="A."))
    assert (first.status_code, second.status_code) == (200, 200)
    one, two = first.json()["results"][0], second.json()["results"][0]
    assert (one["new"], two["new"]) == (True, False)
    assert one["id"] == two["id"]
    assert (one["objectWriteTraceId"], two["objectWriteTraceId"]) == ("t-1", "t-2")
    assert two["properties"]["firstname"] == "A."
    assert two["properties"]["city"] == "Graz"
    assert one["createdAt"] == two["createdAt"] == "2026-03-01T12:00:00.000Z"


def test_one_invalid_address_gives_a_multi_status_that_names_its_trace(
    client: httpx.Client,
) -> None:
    answer = upsert(client, contact("ada@example.org", "t-1"), contact("nobody", "t-2"))
    assert answer.status_code == 207
    assert [result["objectWriteTraceId"] for result in answer.json()["results"]] == ["t-1"]
    assert answer.json()["numErrors"] == 1
    (error,) = answer.json()["errors"]
    assert error["context"] == {"objectWriteTraceId": ["t-2"]}
    assert "INVALID_EMAIL" in error["message"]
    assert [act["key"] for act in acts(client)] == ["t-1"]


def test_without_trace_ids_one_invalid_address_fails_the_batch(client: httpx.Client) -> None:
    answer = upsert(client, contact("ada@example.org"), contact("nobody"))
    assert answer.status_code == 400
    assert acts(client) == []


@pytest.mark.parametrize(
    ("inputs", "word"),
    [
        ([], "at least one"),
        ([contact(f"p{n}@example.org", f"t-{n}") for n in range(101)], "101"),
        ([contact("ada@example.org", "t-1"), contact("ADA@example.org", "t-2")], "Duplicate IDs"),
        ([contact("ada@example.org", "t-1"), contact("bob@example.org", "t-1")], "unique"),
        ([{**contact("ada@example.org"), "idProperty": "hs_object_id"}], "inputs[0].idProperty"),
        ([{**contact("ada@example.org"), "properties": {"age": 36}}], "inputs[0].properties"),
        ([{"idProperty": "email", "properties": {}}], "inputs[0].id"),
        (["ada@example.org"], "inputs[0]"),
    ],
)
def test_a_malformed_batch_is_refused_whole(
    client: httpx.Client, inputs: list[object], word: str
) -> None:
    answer = upsert(client, *inputs)
    assert answer.status_code == 400
    assert answer.json()["category"] == "VALIDATION_ERROR"
    assert word in answer.json()["message"]
    assert acts(client) == []


def test_a_hundred_inputs_are_one_call_and_a_hundred_acts(client: httpx.Client) -> None:
    answer = upsert(client, *(contact(f"p{n}@example.org", f"t-{n}") for n in range(100)))
    assert answer.status_code == 200
    assert len(acts(client)) == 100
    assert len(client.get("/_sandbox/calls").json()) == 1


def test_hubspot_asks_for_a_token_and_for_json(client: httpx.Client) -> None:
    body = json.dumps({"inputs": [contact("ada@example.org", "t-1")]})
    as_json = {"Content-Type": "application/json"}
    bare = client.post(UPSERT, content=body, headers=as_json)
    assert (bare.status_code, bare.json()["category"]) == (401, "INVALID_AUTHENTICATION")
    assert client.post(UPSERT, content=body, headers=BEARER).status_code == 415
    assert acts(client) == []
    keys = [call["key"] for call in client.get("/_sandbox/calls").json()]
    assert keys == ["t-1", "t-1"]


def test_hubspot_tells_its_rate_on_every_answer(client: httpx.Client) -> None:
    for answer in (upsert(client, contact("ada@example.org", "t")), client.post(UPSERT)):
        assert answer.headers["X-HubSpot-RateLimit-Interval-Milliseconds"] == "10000"
        assert int(answer.headers["X-HubSpot-RateLimit-Remaining"]) < int(
            answer.headers["X-HubSpot-RateLimit-Max"]
        )


def test_the_same_upsert_again_is_a_harmless_repeat_and_another_one_is_not(
    client: httpx.Client,
) -> None:
    for name in ("Ada", "Ada", "Adele", "Ada"):
        upsert(client, contact("ada@example.org", "t-1", firstname=name))
    assert [act["repeat"] for act in acts(client)] == [0, 1, 0, 0]
    summary = client.get("/_sandbox/summary").json()
    assert (summary["repeats"], summary["twice"]) == (1, ["t-1"])


def test_a_repeat_that_undoes_a_newer_write_is_told(client: httpx.Client) -> None:
    upsert(client, contact("ada@example.org", "t-1", city="Graz"))
    upsert(client, contact("ada@example.org", "t-1", city="Graz"))
    assert client.get("/_sandbox/summary").json()["stale"] == []
    upsert(client, contact("ada@example.org", "t-2", city="Linz"))
    upsert(client, contact("ada@example.org", "t-1", city="Graz"))
    assert client.get("/_sandbox/summary").json()["stale"] == ["t-1"]


@pytest.fixture(scope="module")
def resend() -> OpenAPI:
    document = yaml.load((SPECS / "resend" / "resend.yaml").read_text(), yaml.CSafeLoader)
    document["paths"] = {"/emails": document["paths"]["/emails"]}
    return OpenAPI.from_dict(document)


def send(client: httpx.Client, mail: object = MAIL, key: str | None = "k") -> httpx.Response:
    headers = BEARER if key is None else {**BEARER, "Idempotency-Key": key}
    return client.post("/resend/emails", headers=headers, json=mail)


def as_published(sent: httpx.Request) -> MockRequest:
    return MockRequest(
        host_url="https://api.resend.com",
        method="post",
        path="/emails",
        headers=dict(sent.headers),
        data=sent.content,
        content_type="application/json",
    )


def check(resend: OpenAPI, sent: httpx.Request, status: int, body: bytes) -> None:
    response = MockResponse(data=body, status_code=status, content_type="application/json")
    resend.validate_request(as_published(sent))
    resend.validate_response(as_published(sent), response)


def test_resend_answers_as_its_specification_says(client: httpx.Client, resend: OpenAPI) -> None:
    answer = send(client)
    assert answer.headers["Content-Type"] == "application/json"
    check(resend, answer.request, answer.status_code, answer.content)


@pytest.mark.parametrize("body", [b'{"id": 5}', b"[]", b"OK"])
def test_the_check_of_resends_answers_fails_on_a_bad_one(
    client: httpx.Client, resend: OpenAPI, body: bytes
) -> None:
    with pytest.raises(OpenAPIError):
        check(resend, send(client).request, 200, body)


@pytest.mark.parametrize(
    "change",
    [
        {"from": None},
        {"to": None},
        {"to": [f"p{n}@example.org" for n in range(51)]},
        {"subject": None},
        {"subject": 5},
        {"html": 5},
        {"headers": "X-Priority: 1"},
    ],
)
def test_what_resends_specification_forbids_is_refused(
    client: httpx.Client, resend: OpenAPI, change: dict[str, Any]
) -> None:
    mail = {name: value for name, value in {**MAIL, **change}.items() if value is not None}
    answer = send(client, mail)
    with pytest.raises(OpenAPIError):
        resend.validate_request(as_published(answer.request))
    assert answer.status_code == 422
    assert answer.json()["statusCode"] == 422
    assert acts(client) == []


@pytest.mark.parametrize(
    "change", [{"to": ["bob"]}, {"from": "Ada"}, {"cc": "bob@"}, {"html": ""}, {"to": []}]
)
def test_resend_refuses_fields_that_only_their_content_makes_wrong(
    client: httpx.Client, change: dict[str, Any]
) -> None:
    assert send(client, {**MAIL, **change}).status_code == 422
    assert acts(client) == []


def test_resend_deduplicates_the_same_bytes_under_the_same_key(client: httpx.Client) -> None:
    first, second, other = send(client), send(client), send(client, key="another")
    assert first.json() == second.json() != other.json()
    assert [act["key"] for act in acts(client)] == ["k", "another"]
    assert acts(client)[0]["ref"] == first.json()["id"]


def test_resend_refuses_another_body_under_a_known_key(client: httpx.Client) -> None:
    send(client)
    answer = send(client, {**MAIL, "subject": "Another"})
    assert (answer.status_code, answer.json()["name"]) == (409, "invalid_idempotent_request")
    assert len(acts(client)) == 1


def test_resend_forgets_a_key_after_a_day_and_then_acts_twice(
    client: httpx.Client, clock: Clock
) -> None:
    send(client)
    clock.now += timedelta(hours=24) - timedelta(seconds=1)
    send(client)
    assert len(acts(client)) == 1
    clock.now += timedelta(seconds=1)
    assert send(client).status_code == 200
    assert len(acts(client)) == 2
    assert client.get("/_sandbox/summary").json()["twice"] == ["k"]


def test_resend_without_a_key_acts_each_time_and_nobody_knows_for_whom(
    client: httpx.Client,
) -> None:
    send(client, key=None)
    send(client, key=None)
    summary = client.get("/_sandbox/summary").json()
    assert (summary["acts"]["resend"], summary["unkeyed"]["resend"]) == (2, 2)


def test_resend_takes_keys_of_up_to_256_characters(client: httpx.Client) -> None:
    assert send(client, key="k" * 256).status_code == 200
    answer = send(client, key="k" * 257)
    assert (answer.status_code, answer.json()["name"]) == (400, "invalid_idempotency_key")


def test_resend_asks_for_an_api_key_and_refuses_a_revoked_one(client: httpx.Client) -> None:
    missing = client.post("/resend/emails", json=MAIL)
    assert (missing.status_code, missing.json()["name"]) == (401, "missing_api_key")
    client.put("/_sandbox/settings", json={"keys": {"resend": "re_new"}})
    revoked = send(client)
    assert (revoked.status_code, revoked.json()["name"]) == (403, "invalid_api_key")
    assert acts(client) == []
    client.put("/_sandbox/settings", json={"keys": {"resend": None}})
    assert send(client).status_code == 200


def test_resend_tells_its_rate_in_seconds_from_now(client: httpx.Client) -> None:
    headers = send(client).headers
    assert headers["ratelimit-reset"] == "1"
    assert int(headers["ratelimit-remaining"]) == int(headers["ratelimit-limit"]) - 1


@pytest.fixture(scope="module")
def published() -> dict[str, Any]:
    path = SPECS / "mailgun" / "openapi.yaml"
    published: dict[str, Any] = yaml.safe_load(path.read_text())
    return published


@pytest.fixture(scope="module")
def mailgun(published: dict[str, Any]) -> OpenAPI:
    return OpenAPI.from_dict(published)


FORM = {"from": "Ada <ada@example.org>", "to": "bob@example.com", "subject": "Hi", "text": "Hello"}
NOW = "<effect-1@example.org>"


def post(client: httpx.Client, fields: dict[str, Any] | None = None) -> httpx.Response:
    """As multipart: httpx does so only where a file is among the parts."""
    parts = [
        (name, (None, value))
        for name, values in (fields or FORM).items()
        for value in (values if isinstance(values, list) else [values])
    ]
    return client.post(MESSAGES, auth=("api", "key"), files=parts)


def search(client: httpx.Client, **filters: str) -> httpx.Response:
    renamed = {name.replace("_", "-"): value for name, value in filters.items()}
    return client.get(EVENTS, auth=("api", "key"), params=renamed)


def conforms(mailgun: OpenAPI, method: str, what: str, answer: httpx.Response) -> None:
    """Answers only: the checker passes a multipart request without its required fields."""
    request = MockRequest("https://api.mailgun.net", method, f"/v3/example.org/{what}")
    kind = answer.headers["Content-Type"]
    response = MockResponse(answer.content, status_code=answer.status_code, content_type=kind)
    mailgun.validate_response(request, response)


def test_mailgun_answers_as_its_specification_says(
    client: httpx.Client, clock: Clock, mailgun: OpenAPI
) -> None:
    sent = post(client, {**FORM, "h:Message-Id": NOW})
    clock.now += timedelta(seconds=1)
    found = search(client, message_id="effect-1@example.org")
    refused = post(client, {**FORM, "to": "bob"})
    client.put("/_sandbox/limits", json={"mailgun": {"limit": 1, "seconds": 60}})
    throttled = post(client)
    client.put("/_sandbox/limits", json={"mailgun": {"limit": 9, "seconds": 60}})
    fault = {"provider": "mailgun", "kind": "error_before", "times": 1}
    client.put("/_sandbox/faults", json=[fault])
    failed = post(client)
    answers = [sent, refused, throttled, failed]
    assert [answer.status_code for answer in answers] == [200, 400, 429, 500]
    for answer in answers:
        conforms(mailgun, "post", "messages", answer)
    assert len(found.json()["items"]) == 1
    conforms(mailgun, "get", "events", found)


@pytest.mark.parametrize(
    ("method", "what", "status", "document"),
    [
        ("post", "messages", 200, {"id": 5, "message": "Queued. Thank you."}),
        ("post", "messages", 400, {"message": ["to parameter is missing"]}),
        ("post", "messages", 202, {"id": "<a@b>", "message": "Queued. Thank you."}),
        ("get", "events", 200, {"items": [{"event": "lost"}], "paging": {}}),
        ("get", "events", 200, {"items": [{"message": {"headers": {}}}], "paging": {}}),
    ],
)
def test_the_check_of_mailguns_answers_fails_on_a_bad_one(
    mailgun: OpenAPI, method: str, what: str, status: int, document: object
) -> None:
    with pytest.raises(OpenAPIError):
        conforms(mailgun, method, what, httpx.Response(status, json=document))


@pytest.mark.parametrize("missing", ["from", "to", "subject"])
def test_what_mailguns_specification_requires_is_required(
    client: httpx.Client, published: dict[str, Any], missing: str
) -> None:
    name = "POST-v3-domain_name-messages-multipart-form-data-RequestBody"
    assert missing in published["components"]["schemas"][name]["required"]
    answer = post(client, {field: value for field, value in FORM.items() if field != missing})
    assert (answer.status_code, answer.json()["message"]) == (
        400,
        f"{missing} parameter is missing",
    )
    assert acts(client) == []


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"to": "bob"}, "not a valid address"),
        ({"text": []}, "Need at least one of"),
        ({"html": "x", "template": "y"}, "Only one"),
        ({"v:delivery": "x" * 16_385}, "16KB"),
        ({"to": ", ".join(f"p{n}@example.org" for n in range(1001))}, "1000"),
    ],
)
def test_mailgun_says_what_is_wrong_with_a_mail(
    client: httpx.Client, change: dict[str, Any], word: str
) -> None:
    answer = post(client, {**FORM, **change})
    assert answer.status_code == 400
    assert word in answer.json()["message"]
    assert acts(client) == []


def test_mailgun_takes_multipart_only(client: httpx.Client) -> None:
    answer = client.post(MESSAGES, auth=("api", "key"), data=FORM)
    assert answer.status_code == 400
    assert answer.json()["message"] == (
        "Expecting 'multipart/form-data' but got 'application/x-www-form-urlencoded'"
    )
    broken = {"Content-Type": "multipart/form-data; boundary=b"}
    answer = client.post(MESSAGES, auth=("api", "key"), headers=broken, content=b"--b\r\nhalf")
    assert answer.status_code == 400


def test_mailgun_forbids_in_a_bare_word(client: httpx.Client) -> None:
    client.put("/_sandbox/settings", json={"keys": {"mailgun": "good"}})
    parts = {name: (None, value) for name, value in FORM.items()}
    refused = [
        client.post(MESSAGES, auth=(n, k), files=parts) for n, k in (("api", "x"), ("x", "good"))
    ]
    refused.append(client.post(MESSAGES, files=parts))
    for answer in refused:
        assert (answer.status_code, answer.text) == (401, "Forbidden")
    assert client.post(MESSAGES, auth=("api", "good"), files=parts).status_code == 200


def test_mailgun_deduplicates_nothing(client: httpx.Client) -> None:
    ours = {**FORM, "h:Message-Id": NOW}
    assert post(client, ours).json()["id"] == post(client, ours).json()["id"] == NOW
    assert [act["key"] for act in acts(client)] == ["effect-1", "effect-1"]
    assert client.get("/_sandbox/summary").json()["twice"] == ["effect-1"]


@pytest.mark.parametrize("ours", [[], ["effect-1"]])
def test_mailgun_makes_up_a_message_id_where_ours_is_none(
    client: httpx.Client, ours: list[str]
) -> None:
    made = post(client, {**FORM, "h:Message-Id": ours}).json()["id"]
    assert made.startswith("<20260301120000.")
    assert made.endswith("@example.org>")


def test_mailgun_sends_to_everybody_named(client: httpx.Client, clock: Clock) -> None:
    to = ['"Last, First" <bob@example.com>, eve@example.com', "Zoë <zoe@example.com>"]
    assert post(client, {**FORM, "to": to}).status_code == 200
    everybody = ["bob@example.com", "eve@example.com", "zoe@example.com"]
    assert [act["recipient"] for act in acts(client)] == [", ".join(everybody)]
    clock.now += timedelta(seconds=1)
    items = search(client).json()["items"]
    assert [item["recipient"] for item in items] == everybody[::-1]


def test_a_search_finds_a_message_by_its_id_without_brackets_or_by_its_recipient(
    client: httpx.Client, clock: Clock
) -> None:
    post(client, {**FORM, "h:Message-Id": NOW})
    post(client, {**FORM, "to": "eve@example.com"})
    clock.now += timedelta(seconds=1)
    bare = search(client, message_id="effect-1@example.org").json()["items"]
    assert [item["message"]["headers"]["message-id"] for item in bare] == ["effect-1@example.org"]
    assert search(client, message_id=NOW).json()["items"] == []
    found = search(client, recipient="eve@example.com", event="accepted OR delivered").json()
    assert [item["recipient"] for item in found["items"]] == ["eve@example.com"]
    assert search(client, event="failed").json()["items"] == []
    other = client.get("/mailgun/v3/example.net/events", auth=("api", "key"))
    assert other.json()["items"] == []


def test_a_search_runs_over_a_range_and_by_pages(client: httpx.Client, clock: Clock) -> None:
    start = clock.now
    for n in range(5):
        post(client, {**FORM, "h:Message-Id": f"<m{n}@example.org>"})
        clock.now += timedelta(minutes=1)

    def ids(answer: httpx.Response) -> list[str]:
        items = answer.json()["items"]
        return [item["message"]["headers"]["message-id"][:2] for item in items]

    begin, end = (str((start + timedelta(minutes=m)).timestamp()) for m in (1, 3))
    assert ids(search(client, begin=begin, end=end)) == ["m1", "m2", "m3"]
    assert ids(search(client, begin=end, end=begin)) == ["m3", "m2", "m1"]
    assert ids(search(client, begin=end, ascending="yes")) == ["m3", "m4"]
    assert ids(search(client, begin=end, ascending="no")) == ["m3", "m2", "m1", "m0"]
    date = "Sun, 01 Mar 2026 12:03:00 -0000"
    assert ids(search(client, begin=date, ascending="yes")) == ["m3", "m4"]
    assert ids(search(client, ascending="yes")) == []  # it begins now
    page, seen = search(client, limit="2"), []
    while ids(page):
        seen += ids(page)
        page = client.get(page.json()["paging"]["next"], auth=("api", "key"))
    assert seen == ["m4", "m3", "m2", "m1", "m0"]


@pytest.mark.parametrize(
    ("filters", "word"),
    [
        ({"user-variables": "x"}, "Mailgun does not filter by it"),
        ({"tags": "x"}, "this stand-in does not filter by it"),
        ({"begin": "1700000000"}, "ascending"),
        ({"begin": "2", "end": "1", "ascending": "yes"}, "does not agree"),
        ({"begin": "yesterday", "ascending": "yes"}, "RFC 2822"),
        ({"limit": "301"}, "300"),
    ],
)
def test_a_search_that_mailgun_would_not_run_is_refused(
    client: httpx.Client, filters: dict[str, str], word: str
) -> None:
    answer = client.get(EVENTS, auth=("api", "key"), params=filters)
    assert answer.status_code == 400
    assert word in answer.json()["message"]


def test_a_form_is_read_to_the_byte() -> None:
    body = (
        b'--b 1\r\nContent-Disposition: form-data; name="h:X-\\"A%22"\r\n\r\none\r\n\r\ntwo\r\n'
        b'--b 1\r\nContent-Disposition: form-data; filename="f"; name="a"\r\n\r\n\r\n--b 1--\r\n'
    )
    found = form.fields('multipart/form-data; charset=utf-8; boundary="b 1"', body)
    assert found == [('h:X-"A"', "one\r\n\r\ntwo"), ("a", "")]


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", b"--b--\r\n"),
        ("multipart/form-data; boundary=b", b"--b\r\n\r\nno name\r\n--b--\r\n"),
        ("multipart/form-data; boundary=b", b'--b\r\nX: form-data; name="a"\r\n\r\ncut'),
    ],
)
def test_a_malformed_form_is_none(content_type: str, body: bytes) -> None:
    assert form.fields(content_type, body) is None


def call_hook(client: httpx.Client, name: str, key: str, document: object) -> httpx.Response:
    return client.post(f"/webhook/{name}", headers={"Idempotency-Key": key}, json=document)


def test_a_webhook_deduplicates_its_key_for_ever(client: httpx.Client, clock: Clock) -> None:
    for _ in range(3):
        answer = call_hook(client, "alerts", "k", {"text": "x"})
        assert (answer.status_code, answer.json()) == (200, {"ok": True})
        clock.now += timedelta(days=400)
    call_hook(client, "audit", "k", {"text": "x"})
    assert [act["operation"] for act in acts(client)] == ["alerts", "audit"]
    assert client.get("/_sandbox/summary").json()["twice"] == []


def test_a_webhook_refuses_what_it_cannot_tell_apart(client: httpx.Client) -> None:
    assert client.post("/webhook/alerts", json={}).status_code == 400
    call_hook(client, "alerts", "k", {"text": "x"})
    assert call_hook(client, "alerts", "k", {"text": "y"}).status_code == 422
    odd = client.post("/webhook/alerts", headers={"Idempotency-Key": "l"}, content=b"{}")
    assert odd.status_code == 415
    assert len(acts(client)) == 1


@pytest.mark.parametrize("path", ["/hubspot/crm", "/resend/email", "/mailgun/v3", "/webhook"])
def test_a_wrong_path_is_recorded_and_gets_the_providers_own_404(
    client: httpx.Client, path: str
) -> None:
    answer = client.post(path, json={})
    assert answer.status_code == 404
    assert answer.headers["Content-Type"] == "application/json"
    (call,) = client.get("/_sandbox/calls").json()
    assert (call["operation"], call["status"]) == ("?", 404)
