"""The control API: limits and their account, the index delay, and what it says to bad input."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from marketing_pipeline.sandbox.limits import Limit, Window
from marketing_pipeline_tests.sandbox_clock import Clock

BEARER = {"Authorization": "Bearer key"}
MAIL = {"from": "a@example.org", "to": "b@example.org", "subject": "s", "text": "t"}


def hook(client: httpx.Client, key: str) -> httpx.Response:
    return client.post("/webhook/alerts", headers={"Idempotency-Key": key}, json={})


def limit(client: httpx.Client, provider: str, calls: int, seconds: float) -> None:
    wish = {provider: {"limit": calls, "seconds": seconds}}
    client.put("/_sandbox/limits", json=wish).raise_for_status()


def summary(client: httpx.Client) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/_sandbox/summary").json()
    return found


def test_calls_over_the_limit_are_refused_not_acted_on_and_counted(
    client: httpx.Client, clock: Clock
) -> None:
    limit(client, "webhook", 3, 10)
    statuses = [hook(client, f"{n}").status_code for n in range(5)]
    assert statuses == [200, 200, 200, 429, 429]
    clock.now += timedelta(seconds=9)
    late = hook(client, "late")
    assert (late.status_code, late.headers["Retry-After"]) == (429, "1")
    clock.now += timedelta(seconds=1)
    assert hook(client, "5").status_code == 200
    told = summary(client)
    assert told["calls"]["webhook"] == 7
    assert told["acts"]["webhook"] == 4
    assert told["over_limit"] == {"hubspot": 0, "resend": 0, "mailgun": 0, "webhook": 3}
    assert told["peak"]["webhook"] == 6
    assert told["faults"] == {}


def test_a_caller_within_the_limit_leaves_no_trace_of_excess(
    client: httpx.Client, clock: Clock
) -> None:
    limit(client, "webhook", 3, 10)
    for n in range(9):
        assert hook(client, f"{n}").status_code == 200
        clock.now += timedelta(seconds=3.5)
    assert summary(client)["over_limit"]["webhook"] == 0
    assert summary(client)["peak"]["webhook"] == 3


def test_each_provider_says_429_in_its_own_way(client: httpx.Client, clock: Clock) -> None:
    for provider in ("hubspot", "resend", "mailgun"):
        limit(client, provider, 1, 10)
    paths = ("/hubspot/crm", "/resend/emails", "/mailgun/v3/example.org/messages")
    for path in paths:
        client.post(path)
    clock.now += timedelta(seconds=2.5)
    hubspot, resend, mailgun = (client.post(path) for path in paths)
    assert [answer.status_code for answer in (hubspot, resend, mailgun)] == [429] * 3
    assert hubspot.headers["X-HubSpot-RateLimit-Max"] == "1"
    assert hubspot.headers["X-HubSpot-RateLimit-Remaining"] == "0"
    assert hubspot.json()["policyName"] == "TEN_SECONDLY_ROLLING"
    assert resend.headers["ratelimit-reset"] == resend.headers["retry-after"] == "8"
    assert "try again after 8 seconds" in mailgun.json()["message"]


def test_a_limited_call_uses_up_no_fault(client: httpx.Client, clock: Clock) -> None:
    limit(client, "webhook", 1, 10)
    hook(client, "first")
    rule = {"provider": "webhook", "kind": "error_before", "times": 1}
    client.put("/_sandbox/faults", json=[rule]).raise_for_status()
    assert hook(client, "second").status_code == 429
    clock.now += timedelta(seconds=10)
    assert hook(client, "third").status_code == 500


def test_a_new_limit_counts_the_calls_made_before_it(client: httpx.Client) -> None:
    for n in range(3):
        hook(client, f"{n}")
    limit(client, "webhook", 3, 10)
    assert hook(client, "3").status_code == 429


@pytest.mark.parametrize("spread", [0, 1])
def test_no_span_of_the_windows_length_admits_more_than_the_limit(spread: int) -> None:
    window = Window(Limit(calls=10, window=timedelta(seconds=1)))
    start = datetime(2026, 3, 1, tzinfo=UTC)
    instants = [start + timedelta(milliseconds=17 * n + spread * (n % 5)) for n in range(500)]
    admitted = [at for at in instants if window.enter(at) is None]
    spans = zip(admitted, admitted[10:], strict=False)
    assert all(later - earlier >= timedelta(seconds=1) for earlier, later in spans)
    assert len(admitted) >= 80


def test_a_message_is_found_only_after_the_index_delay(client: httpx.Client, clock: Clock) -> None:
    parts = {name: (None, value) for name, value in MAIL.items()}
    events = "/mailgun/v3/example.org/events"

    def found() -> int:
        return len(client.get(events, auth=("api", "key")).json()["items"])

    client.post("/mailgun/v3/example.org/messages", auth=("api", "key"), files=parts)
    clock.now += timedelta(seconds=0.4)
    assert found() == 0
    clock.now += timedelta(seconds=0.2)
    assert found() == 1
    client.put("/_sandbox/settings", json={"mailgun_index_delay": 60}).raise_for_status()
    assert found() == 0


def test_readers_ask_for_what_is_new(client: httpx.Client) -> None:
    for n in range(4):
        hook(client, f"{n}")
    for what in ("record", "calls"):
        rows = client.get(f"/_sandbox/{what}", params={"since": 2}).json()
        assert [row["key"] for row in rows] == ["2", "3"]
    act = client.get("/_sandbox/record").json()[0]
    names = ["n", "at", "provider", "operation", "key", "recipient", "ref", "body_sha256", "repeat"]
    assert list(act) == names
    call = client.get("/_sandbox/calls").json()[0]
    assert list(call) == ["n", "at", "provider", "operation", "key", "status", "fault"]


def test_an_emptied_record_has_forgotten_keys_and_contacts_too(client: httpx.Client) -> None:
    headers = {**BEARER, "Idempotency-Key": "k"}
    before = client.post("/resend/emails", headers=headers, json=MAIL)
    limit(client, "webhook", 1, 10)
    hook(client, "w")
    client.delete("/_sandbox/record").raise_for_status()
    assert client.get("/_sandbox/record").json() == []
    assert summary(client)["calls"] == {"hubspot": 0, "resend": 0, "mailgun": 0, "webhook": 0}
    other = {**MAIL, "subject": "another"}
    after = client.post("/resend/emails", headers=headers, json=other)
    assert (before.status_code, after.status_code) == (200, 200)
    assert hook(client, "w").status_code == 200  # the window is empty as well
    assert [call["n"] for call in client.get("/_sandbox/calls").json()] == [1, 2]


GOOD = {"provider": "resend", "kind": "slow", "times": 1}


@pytest.mark.parametrize(
    ("path", "wish", "field", "remedy"),
    [
        ("faults", {}, "body", "a JSON list"),
        ("faults", [5], "[0]", "provider"),
        ("faults", [GOOD, {**GOOD, "provider": "sendgrid"}], "[1].provider", "hubspot, mailgun"),
        ("faults", [{"kind": "slow", "times": 1}], "[0].provider", "one of"),
        ("faults", [{**GOOD, "kind": "explode"}], "[0].kind", "throttle"),
        ("faults", [{**GOOD, "operation": "sned"}], "[0].operation", "send"),
        ("faults", [{**GOOD, "share": 0.5}], "[0]", "exactly one"),
        ("faults", [{"provider": "resend", "kind": "slow"}], "[0]", "exactly one"),
        ("faults", [{"provider": "resend", "kind": "slow", "share": 1.5}], "[0].share", "0 to 1"),
        ("faults", [{**GOOD, "times": 0}], "[0].times", "at least 1"),
        ("faults", [{**GOOD, "times": True}], "[0].times", "at least 1"),
        ("faults", [{**GOOD, "seconds": -1}], "[0].seconds", "0 to 86400"),
        ("faults", [{**GOOD, "seconds": "1"}], "[0].seconds", "number"),
        ("faults", [{**GOOD, "second": 1}], "[0].second", "seconds"),
        ("faults", [{**GOOD, "seed": -1}], "[0].seed", "at least 0"),
        ("faults", [{**GOOD, "provider": "mailgun", "kind": "quota"}], "[0].kind", "resend"),
        ("limits", [], "body", "object"),
        ("limits", {"x_api": {"limit": 1, "seconds": 1}}, "x_api", "hubspot"),
        ("limits", {"resend": 10}, "resend", "limit, seconds"),
        ("limits", {"resend": {"limit": 0, "seconds": 1}}, "resend.limit", "at least 1"),
        ("limits", {"resend": {"limit": 1}}, "resend.seconds", "number"),
        ("limits", {"resend": {"limit": 1, "seconds": 0}}, "resend.seconds", "number"),
        ("settings", {"delay": 1}, "delay", "mailgun_index_delay"),
        ("settings", {"mailgun_index_delay": None}, "mailgun_index_delay", "number"),
        ("settings", {"latency": {"resend": "x"}}, "latency.resend", "number"),
        ("settings", {"keys": {"resend": ""}}, "keys.resend", "null"),
    ],
)
def test_a_bad_wish_is_refused_with_its_field_and_a_remedy_and_changes_nothing(
    client: httpx.Client, path: str, wish: object, field: str, remedy: str
) -> None:
    answer = client.put(f"/_sandbox/{path}", json=wish)
    assert answer.status_code == 400
    told = answer.json()
    assert told["field"] == field
    assert remedy in told["remedy"]
    assert told["error"] == f"{field} {told['problem']}: {told['remedy']}"
    headers = {**BEARER, "Idempotency-Key": "k"}
    assert client.post("/resend/emails", headers=headers, json=MAIL).status_code == 200
    assert summary(client)["faults"] == {}


def test_what_is_not_json_is_refused_and_so_is_a_reader_without_a_number(
    client: httpx.Client,
) -> None:
    for path in ("faults", "limits", "settings"):
        answer = client.put(f"/_sandbox/{path}", content=b"{")
        assert (answer.status_code, answer.json()["field"]) == (400, "body")
    answer = client.get("/_sandbox/record", params={"since": "yesterday"})
    assert (answer.status_code, answer.json()["field"]) == (400, "since")


def test_control_calls_are_in_no_record(client: httpx.Client) -> None:
    client.put("/_sandbox/faults", json=[GOOD])
    assert client.get("/_sandbox/calls").json() == []
