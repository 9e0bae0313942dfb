"""Each fault, as a bare socket sees it, beside what the sandbox really did."""

import json
import logging
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from marketing_pipeline.sandbox.faults import Faults, Kind, Rule
from marketing_pipeline.sandbox.serve import running

# One for all, since each loads the certificates of the world; it keeps no connection open.
CONTROL = httpx.Client(limits=httpx.Limits(max_keepalive_connections=0))
RESET, CLOSED, SILENCE = "reset", "closed", "silence"


@pytest.fixture
def url(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[str]:
    """A sandbox that must not log an error, whatever it does to its clients."""
    with running(tmp_path / "record.db") as url:
        yield url
    assert [entry for entry in caplog.records if entry.levelno >= logging.WARNING] == []


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What came over the wire: bytes until an end, and which end."""

    received: bytes
    end: str

    @property
    def status(self) -> int | None:
        return int(self.received.split(b" ")[1]) if self.received else None

    @property
    def body(self) -> bytes:
        return self.received.partition(b"\r\n\r\n")[2]

    @property
    def promised(self) -> int:
        """The Content-Length."""
        return int(self.header("content-length") or "0")

    def header(self, name: str) -> str | None:
        head = self.received.partition(b"\r\n\r\n")[0].decode().lower()
        found = [line.partition(": ")[2] for line in head.split("\r\n") if line.startswith(name)]
        return found[0] if found else None


def request(provider: str, key: str = "k") -> bytes:
    """The provider's one act, for the effect of that key."""
    fields = {"from": "a@example.org", "to": "b@example.org", "subject": "s", "text": "t"}
    headers = {"Host": "sandbox", "Content-Type": "application/json"}
    path, document = f"/webhook/{key}", {"text": "t"}
    headers["Idempotency-Key"] = key
    body = json.dumps(document).encode()
    if provider == "resend":
        path, body = "/resend/emails", json.dumps(fields).encode()
        headers["Authorization"] = "Bearer key"
    if provider == "hubspot":
        path = "/hubspot/crm/v3/objects/contacts/batch/upsert"
        entry = {"id": "b@example.org", "idProperty": "email", "properties": {"city": "Graz"}}
        body = json.dumps({"inputs": [{**entry, "objectWriteTraceId": key}]}).encode()
        headers["Authorization"] = "Bearer key"
    if provider == "mailgun":
        path = "/mailgun/v3/example.org/messages"
        fields["h:Message-Id"] = f"<{key}@example.org>"
        part = '--b\r\nContent-Disposition: form-data; name="{}"\r\n\r\n{}\r\n'
        body = ("".join(part.format(*pair) for pair in fields.items()) + "--b--\r\n").encode()
        headers["Content-Type"] = "multipart/form-data; boundary=b"
        headers["Authorization"] = "Basic YXBpOmtleQ=="
    headers["Content-Length"] = str(len(body))
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body


def exchange(url: str, sent: bytes, patience: float = 5.0) -> Seen:
    """Send on a new connection and listen until it ends, is answered in full, or says nothing."""
    parts = urlsplit(url)
    received = b""
    with socket.create_connection((parts.hostname, parts.port), timeout=patience) as connection:
        connection.sendall(sent)
        while True:
            try:
                piece = connection.recv(65_536)
            except ConnectionResetError:
                return Seen(received=received, end=RESET)
            except TimeoutError:
                return Seen(received=received, end=SILENCE)
            if not piece:
                return Seen(received=received, end=CLOSED)
            received += piece
            seen = Seen(received=received, end="answered")
            if b"\r\n\r\n" in received and len(seen.body) == seen.promised:
                return seen


def inject(url: str, provider: str, kind: str, **more: object) -> None:
    rule = {"provider": provider, "kind": kind, "times": 1, **more}
    CONTROL.put(f"{url}/_sandbox/faults", json=[rule]).raise_for_status()


def read(url: str, what: str) -> Any:
    return CONTROL.get(f"{url}/_sandbox/{what}").json()


PROVIDERS = ["hubspot", "resend", "mailgun", "webhook"]
# kind, acts, status recorded, status seen, end
TABLE = [
    ("throttle", 0, 429, 429, "answered"),
    ("error_before", 0, 500, 500, "answered"),
    ("error_after", 1, 500, 500, "answered"),
    ("hang_before", 0, None, None, CLOSED),
    ("hang_after", 1, None, None, CLOSED),
    ("reset_before", 0, None, None, RESET),
    ("reset_after", 1, None, None, RESET),
    ("close_after", 1, None, None, CLOSED),
    ("half_body_after", 1, 200, 200, CLOSED),
    ("slow", 1, 200, 200, "answered"),
]


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize(("kind", "acts", "recorded", "status", "end"), TABLE)
def test_a_fault_is_what_it_says_on_the_wire_and_in_the_record(
    url: str, provider: str, kind: str, acts: int, recorded: int | None, status: int, end: str
) -> None:
    inject(url, provider, kind, seconds=0.1)
    seen = exchange(url, request(provider))
    assert (seen.status, seen.end) == (status, end)
    assert len(read(url, "record")) == acts
    (call,) = read(url, "calls")
    assert (call["key"], call["status"], call["fault"]) == ("k", recorded, kind)
    assert read(url, "summary")["faults"] == {kind: 1}
    after = exchange(url, request(provider, "l"))
    assert (after.status, after.end) == (200, "answered")  # once, and the next call is served


def test_the_table_names_every_kind() -> None:
    assert {row[0] for row in TABLE} | {"quota"} == {kind.value for kind in Kind}


@pytest.mark.parametrize("kind", ["hang_before", "hang_after"])
def test_a_hang_is_silence_until_its_seconds_have_passed(url: str, kind: str) -> None:
    inject(url, "mailgun", kind, seconds=0.5)
    start = time.monotonic()
    assert exchange(url, request("mailgun"), patience=0.2).end == SILENCE
    inject(url, "mailgun", kind, seconds=0.5)
    start = time.monotonic()
    assert exchange(url, request("mailgun")).end == CLOSED
    assert time.monotonic() - start >= 0.5


def test_half_a_body_comes_with_the_length_of_the_whole(url: str) -> None:
    inject(url, "resend", "half_body_after")
    seen = exchange(url, request("resend"))
    assert len(seen.body) == seen.promised // 2 > 0


def test_a_reused_connection_is_reset_and_finished_like_a_new_one(url: str) -> None:
    parts = urlsplit(url)
    for kind, end in (("reset_after", RESET), ("close_after", CLOSED)):
        with socket.create_connection((parts.hostname, parts.port), timeout=5) as connection:
            connection.sendall(request("webhook", f"first-{kind}"))
            assert connection.recv(65_536).startswith(b"HTTP/1.1 200")
            inject(url, "webhook", kind)
            connection.sendall(request("webhook", kind))
            try:
                ended = CLOSED if connection.recv(65_536) == b"" else "answered"
            except ConnectionResetError:
                ended = RESET
            assert ended == end
    assert len(read(url, "record")) == 4


@pytest.mark.parametrize(
    ("provider", "header", "value"),
    [
        ("hubspot", "x-hubspot-ratelimit-remaining", "0"),
        ("hubspot", "retry-after", None),
        ("resend", "ratelimit-remaining", "0"),
        ("resend", "ratelimit-reset", "7"),
        ("resend", "retry-after", "7"),
        ("mailgun", "retry-after", None),
        ("webhook", "retry-after", "7"),
    ],
)
def test_a_throttled_client_is_told_so_in_the_providers_own_headers(
    url: str, provider: str, header: str, value: str | None
) -> None:
    inject(url, provider, "throttle", seconds=6.2)
    assert exchange(url, request(provider)).header(header) == value


def test_a_throttled_client_is_told_so_in_the_providers_own_words(url: str) -> None:
    bodies = {}
    for provider in ("hubspot", "resend", "mailgun"):
        inject(url, provider, "throttle", seconds=7)
        bodies[provider] = json.loads(exchange(url, request(provider)).body)
    assert bodies["hubspot"]["policyName"] == "TEN_SECONDLY_ROLLING"
    assert bodies["hubspot"]["errorType"] == "RATE_LIMIT"
    assert bodies["resend"]["name"] == "rate_limit_exceeded"
    assert bodies["mailgun"]["message"].endswith("limit exceeded, try again after 7 seconds")


def test_a_used_up_quota_is_another_429(url: str) -> None:
    inject(url, "resend", "quota")
    resend = exchange(url, request("resend"))
    inject(url, "hubspot", "quota")
    hubspot = exchange(url, request("hubspot"))
    assert (resend.status, hubspot.status) == (429, 429)
    assert json.loads(resend.body)["name"] == "daily_quota_exceeded"
    assert json.loads(hubspot.body)["policyName"] == "DAILY"
    assert read(url, "record") == []


def test_after_a_lost_answer_a_keyed_provider_gives_the_first_one(url: str) -> None:
    inject(url, "resend", "reset_after")
    assert exchange(url, request("resend")).end == RESET
    again = json.loads(exchange(url, request("resend")).body)
    (act,) = read(url, "record")
    assert again["id"] == act["ref"]


def test_after_a_lost_answer_mailgun_does_it_twice(url: str) -> None:
    inject(url, "mailgun", "reset_after")
    exchange(url, request("mailgun"))
    exchange(url, request("mailgun"))
    assert read(url, "summary")["twice"] == ["k"]


def test_a_key_is_in_flight_while_its_answer_is_slow(url: str) -> None:
    inject(url, "resend", "slow", seconds=0.6)
    with ThreadPoolExecutor() as threads:
        slow = threads.submit(exchange, url, request("resend"))
        while not read(url, "calls"):
            time.sleep(0.01)
        meanwhile = exchange(url, request("resend"))
        other = exchange(url, request("resend", "l"))
        first = slow.result()
    assert (meanwhile.status, other.status, first.status) == (409, 200, 200)
    assert json.loads(meanwhile.body)["name"] == "concurrent_idempotent_requests"
    assert exchange(url, request("resend")).body == first.body
    assert len(read(url, "record")) == 2


def test_a_repeat_of_a_key_in_flight_can_be_hit_by_a_fault_too(url: str) -> None:
    inject(url, "resend", "slow", seconds=0.6)
    with ThreadPoolExecutor() as threads:
        slow = threads.submit(exchange, url, request("resend"))
        while not read(url, "calls"):
            time.sleep(0.01)
        inject(url, "resend", "reset_after")
        assert exchange(url, request("resend")).end == RESET
        assert slow.result().status == 200
    assert [call["status"] for call in read(url, "calls")] == [200, None]
    assert len(read(url, "record")) == 1


def test_latency_holds_every_answer_of_its_provider(url: str) -> None:
    CONTROL.put(f"{url}/_sandbox/settings", json={"latency": {"webhook": 0.3}}).raise_for_status()
    start = time.monotonic()
    assert exchange(url, request("webhook")).status == 200
    assert time.monotonic() - start >= 0.3
    start = time.monotonic()
    assert exchange(url, request("resend")).status == 200
    assert time.monotonic() - start < 0.3


def test_a_client_that_leaves_first_does_not_undo_the_act(url: str) -> None:
    inject(url, "mailgun", "slow", seconds=0.2)
    assert exchange(url, request("mailgun"), patience=0.05).end == SILENCE
    time.sleep(0.3)
    assert [act["key"] for act in read(url, "record")] == ["k"]


def test_a_fault_hits_its_operation_and_its_provider_alone(url: str) -> None:
    inject(url, "mailgun", "error_before", operation="events")
    assert exchange(url, request("mailgun")).status == 200
    assert exchange(url, request("webhook")).status == 200
    events = f"{url}/mailgun/v3/example.org/events"
    assert CONTROL.get(events, auth=("api", "key")).status_code == 500


def test_faults_end_when_they_are_deleted(url: str) -> None:
    inject(url, "webhook", "error_before", times=99)
    assert exchange(url, request("webhook")).status == 500
    CONTROL.delete(f"{url}/_sandbox/faults").raise_for_status()
    assert exchange(url, request("webhook")).status == 200


def rule(**change: Any) -> Rule:
    values: dict[str, Any] = {"provider": "resend", "operation": None, "kind": Kind.SLOW}
    values |= {"share": 0.2, "times": None, "seconds": None, "seed": 0}
    return Rule(**{**values, **change})


def hits(*rules: Rule) -> list[int]:
    faults = Faults(rules)
    return [n for n in range(1, 5001) if faults.choose(n, "resend", "send")]


def test_a_share_hits_about_so_many_calls_and_the_same_ones_again() -> None:
    assert hits(rule()) == hits(rule())
    assert 900 < len(hits(rule())) < 1100
    assert hits(rule(seed=1)) != hits(rule())
    assert hits(rule(share=0.0)) == []
    assert len(hits(rule(share=1.0))) == 5000


def test_the_rules_of_a_list_hit_calls_of_their_own() -> None:
    """Two rules of a fifth each hit 36 % together, not the same fifth twice."""
    assert 1650 < len(hits(rule(), rule())) < 1950
