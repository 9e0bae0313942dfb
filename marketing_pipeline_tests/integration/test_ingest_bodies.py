"""Bodies that cannot be taken: each is refused by name, and none is an error of the service."""

import io
import json
import logging
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketing_pipeline import embedded
from marketing_pipeline.ingest.serve import WithoutValues
from marketing_pipeline_tests import ingest_service
from marketing_pipeline_tests.ingest_service import Service, count, lead

KIB = 1024
SECRET = "ada.secret@example.com"


@pytest.fixture(scope="module")
def database(servers: embedded.Servers, template: str) -> Iterator[str]:
    """One for all tests here, which leave next to nothing in it."""
    with ingest_service.fresh_database(servers.database_url, template) as url:
        yield url


@pytest.fixture(scope="module")
def service(database: str) -> Iterator[Service]:
    with ingest_service.in_thread(database, ingest_service.new_key(database)) as service:
        yield service


def event_with(member: str) -> bytes:
    """A body whose last member is this text."""
    return json.dumps(lead()).encode()[:-1] + f", {member}}}".encode()


def payload_of(text: str) -> bytes:
    """A body whose payload is this text, JSON or not."""
    return (
        event_with("")
        .replace(b", }", b"}")
        .replace(json.dumps(lead()["payload"]).encode(), text.encode("utf-8", "surrogatepass"))
    )


NO_JSON = {
    "no JSON": b"{",
    "nothing": b"",
    "two values": b"{} {}",
    "not UTF-8": b'{"type": "\xff"}',
    "a byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": '{"type": "LEAD_CAPTURE"}'.encode("utf-16"),
    "nested beyond all reason": b"[" * 100_000,
}
NO_EVENT = {
    "a list": (b"[]", "body"),
    "a string": (b'"LEAD_CAPTURE"', "body"),
    "null": (b"null", "body"),
    "an empty object": (b"{}", "type"),
    "a name twice": (event_with('"source": "web"'), "source"),
    "a name twice further in": (payload_of('{"email": "a@b.example", "n": {"x": 1, "x": 2}}'), "x"),
    "an unknown name": (event_with('"priority": 1'), "priority"),
    "an address as a name": (event_with(f'"{SECRET}": 1'), "*"),
    "both spellings": (event_with('"idempotency_key": "k"'), "idempotencyKey"),
}
BAD_FIELDS: dict[str, tuple[str, object]] = {  # what is said instead: the field is at fault
    "an unknown type": ("type", "LEAD"),
    "a number as a type": ("type", 1),
    "no payload": ("payload", ...),
    "a list as a payload": ("payload", [1]),
    "no source": ("source", ...),
    "a number as a source": ("source", 7),
    "no key": ("idempotencyKey", ...),
    "null as a key": ("idempotencyKey", None),
    "a number as a key": ("idempotencyKey", 1),
    "an empty key": ("idempotencyKey", ""),
    "a long key": ("idempotencyKey", "k" * 201),
    "a NUL in a key": ("idempotencyKey", "k\x00"),
    "a lone surrogate in a key": ("idempotencyKey", "k\ud800"),
    "no offset": ("scheduledAt", "2026-12-24T18:00:00"),
    "a day": ("scheduledAt", "2026-12-24"),
    "a number of seconds": ("scheduledAt", 1798131600),
    "seconds in a string": ("scheduledAt", "1798131600"),
    "a 30th of February": ("scheduledAt", "2026-02-30T00:00:00Z"),
    "a leap second": ("scheduledAt", "2026-12-31T23:59:60Z"),
    "an offset beyond a day": ("scheduledAt", "2026-12-24T18:00:00+25:00"),
    "the first year": ("scheduledAt", "0001-01-01T00:00:00+23:59"),
    "the last year": ("scheduledAt", "9999-12-31T23:59:59-23:59"),
    "a NUL in a time": ("scheduledAt", "2026-12-24T18:00:00\x00Z"),
}
BAD_PAYLOADS = {  # members of a payload that is good without them
    "NaN": ('"n": NaN', "payload.n"),
    "infinity": ('"n": [-Infinity]', "payload.n[0]"),
    "1e999": ('"n": 1e999', "payload.n"),
    "2^53": ('"n": 9007199254740992', "payload.n"),
    "5,000 digits": (f'"n": {"9" * 5000}', "payload.n"),
    "a NUL": ('"n": "\\u0000"', "payload.n"),
    "a lone surrogate": ('"n": "\\ud800"', "payload.n"),
    "a lone surrogate as a name": ('"\\ud800": 1', "payload.*"),
    "65 levels": (f'"n": {"[" * 64}1{"]" * 64}', "payload.n" + "[0]" * 63),
    "a bad address": ('"x": 1, "email": "ada.secret@"', "payload.email"),
    "no address": ('"x": 1', "payload.email"),
}


def _bad() -> Iterator[tuple[str, bytes, int, str]]:
    """Name, body, status, and the field that is to be named."""
    for name, content in NO_JSON.items():
        yield name, content, 400, "body"
    for name, (content, field) in NO_EVENT.items():
        yield name, content, 422, field
    for name, (field, value) in BAD_FIELDS.items():
        yield name, json.dumps(lead(**{field: value})).encode(), 422, field
    for name, (member, field) in BAD_PAYLOADS.items():
        address = "" if "address" in name else '"email": "a@b.example", '
        yield name, payload_of(f"{{{address}{member}}}"), 422, field


KNOWN_BAD = list(_bad())


@pytest.mark.parametrize(
    ("content", "status", "field"),
    [bad[1:] for bad in KNOWN_BAD],
    ids=[bad[0] for bad in KNOWN_BAD],
)
def test_a_bad_body_is_refused_by_the_name_of_its_field(
    service: Service, database: str, content: bytes, status: int, field: str
) -> None:
    before = count(database)
    answer = service.post_raw(content)
    problem = answer.json()
    assert (answer.status_code, problem["field"]) == (status, field), problem
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert problem["status"] == status
    assert {"type", "title", "detail", "remedy"} <= problem.keys()
    assert "ada.secret" not in answer.text
    assert count(database) == before


def test_the_bodies_above_are_bad_for_one_reason_only(service: Service) -> None:
    """Known good: else the checks above would pass whatever they look at."""
    assert service.post_raw(payload_of('{"email": "a@b.example", "n": 1}')).status_code == 201
    assert service.post_raw(event_with('"scheduledAt": null')).status_code == 201


@pytest.mark.parametrize(
    ("headers", "field"),
    [
        ({"Content-Type": "text/plain"}, "Content-Type"),
        ({"Content-Type": "application/x-www-form-urlencoded"}, "Content-Type"),
        ({"Content-Type": ""}, "Content-Type"),
        ({"Content-Type": "application/json; charset=latin-1"}, "Content-Type"),
        ({"Content-Encoding": "gzip"}, "Content-Encoding"),
    ],
)
def test_a_body_of_another_kind_is_refused(
    service: Service, headers: dict[str, str], field: str
) -> None:
    answer = service.post(lead(), **headers)
    assert (answer.status_code, answer.json()["field"]) == (415, field)
    assert answer.headers["Accept-Post"] == "application/json"


@pytest.mark.parametrize("kind", ["application/json; charset=UTF-8", "Application/JSON"])
def test_json_may_be_named_in_any_way(service: Service, kind: str) -> None:
    assert service.post(lead(), **{"Content-Type": kind}).status_code == 201


@pytest.mark.parametrize(("path", "limit"), [("/events", 256 * KIB), ("/events/batch", 4096 * KIB)])
def test_a_body_may_be_as_large_as_the_limit_and_no_larger(
    service: Service, path: str, limit: int
) -> None:
    content = json.dumps([lead()] if path == "/events/batch" else lead()).encode()
    assert service.post_raw(content.ljust(limit), path).status_code in (200, 201)
    answer = service.post_raw(content.ljust(limit + 1), path)
    assert (answer.status_code, answer.json()["field"]) == (413, "body")
    assert answer.headers["Connection"] == "close"


@pytest.mark.parametrize("path", ["/events", "/events/batch"])
def test_a_large_body_in_chunks_is_refused_while_it_arrives(service: Service, path: str) -> None:
    """The sender never ends its body, and is answered all the same: also when it has sent more
    than was read, over which a socket that is closed at once throws the answer away."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=5) as sender:
        sender.sendall(
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {service.key}\r\n"
            "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        )
        chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
        for _ in range(8 + (5 if path == "/events" else 65)):
            sender.sendall(chunk)
        answer = b"".join(iter(lambda: sender.recv(KIB * 64), b""))
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert answer.endswith(b"}"), "the connection was closed over an answer cut short"


def test_a_declared_body_that_is_too_large_is_refused_unread(service: Service) -> None:
    with socket.create_connection(("127.0.0.1", service.port), timeout=5) as sender:
        sender.sendall(
            f"POST /events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {service.key}\r\n"
            "Content-Type: application/json\r\nContent-Length: 999999999\r\n"
            "Expect: 100-continue\r\n\r\n".encode()
        )
        answer = b"".join(iter(lambda: sender.recv(KIB * 64), b""))
    assert answer.startswith(b"HTTP/1.1 413 "), answer
    assert b"100 Continue" not in answer


def test_a_name_that_is_there_twice_is_found_among_half_a_million(service: Service) -> None:
    """Known bad: to count each of them takes an hour, in which nobody else is served."""
    names = "".join(f'"{n:x}":0,' for n in range(400_000))
    content = f'[{{{names}"twice":1,"twice":2}}]'.encode()
    assert 3 * 2**20 < len(content) < 4 * 2**20
    answer = service.post_raw(content, "/events/batch")
    assert (answer.status_code, answer.json()["field"]) == (422, "twice")


def test_a_body_that_does_not_arrive_is_given_up(service: Service) -> None:
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", service.port), timeout=15) as sender:
        sender.sendall(
            f"POST /events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {service.key}\r\n"
            "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{".encode()
        )
        answer = b"".join(iter(lambda: sender.recv(KIB * 64), b""))
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert 9 < time.monotonic() - began < 13


def test_a_large_payload_in_a_batch_is_refused_as_it_would_be_alone(service: Service) -> None:
    large = lead(payload={"email": "a@b.example", "n": "x" * 256 * KIB})
    results = service.post([large, lead()], "/events/batch").json()["results"]
    assert [(one["status"], one.get("field")) for one in results] == [(422, "payload"), (201, None)]


@settings(max_examples=300, deadline=None)
@given(
    content=st.binary(max_size=64)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(list(lead())) | st.text(st.characters(), max_size=5),
                inner,
                max_size=5,
            )
        ),
        max_leaves=10,
    ).map(lambda value: json.dumps(value).encode()),
    path=st.sampled_from(["/events", "/events/batch"]),
)
def test_no_body_is_an_error_of_the_service(service: Service, content: bytes, path: str) -> None:
    assert service.post_raw(content, path).status_code in (200, 201, 400, 422)


def test_nothing_that_was_sent_is_logged(database: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with ingest_service.in_process(database, ingest_service.new_key(database), log) as service:
        for bad in KNOWN_BAD:
            service.post_raw(bad[1])
        event = lead(payload={"email": SECRET, "name": "very private"})
        service.post(event)
        service.post(event | {"payload": {"email": SECRET, "name": "more private"}})
        service.post([event, lead(payload={"email": SECRET, "n": 2**60})], "/events/batch")
        service.post(event, Authorization="Bearer mk_000000000000_guess")
        secret = service.key.split("_", 2)[2]
    text = log.read_text()
    assert "event_rejected" in text, "known bad: a log that says nothing holds nothing either"
    for private in (SECRET, "ada.secret", "private", secret, "guess", "a@b.example"):
        assert private not in text
    assert all(line["level"] in {"info", "warning"} for line in ingest_service.log_lines(log))


def test_an_unforeseen_error_is_logged_by_its_class_and_place_alone() -> None:
    text = io.StringIO()
    logger, handler = logging.Logger("uvicorn.error"), logging.StreamHandler(text)
    handler.setFormatter(logging.Formatter("%(message)s %(fields)s", defaults={"fields": None}))
    logger.addHandler(handler)

    def fail() -> None:
        try:
            raise ValueError(SECRET)
        except ValueError:
            logger.exception("Exception in ASGI application")

    fail()
    assert SECRET in text.getvalue(), "known bad: this is what is logged otherwise"
    text.truncate(0)
    logger.addFilter(WithoutValues())
    fail()
    assert SECRET not in text.getvalue()
    assert "ValueError" in text.getvalue()
    assert "test_ingest_bodies.py:" in text.getvalue()


def test_an_answer_outside_of_http_is_still_no_error_of_the_service(service: Service) -> None:
    with socket.create_connection(("127.0.0.1", service.port), timeout=5) as sender:
        sender.sendall(b"\x16\x03\x01 no HTTP\r\n\r\n")
        assert sender.recv(KIB).startswith(b"HTTP/1.1 400 ")
    assert httpx.get(f"http://127.0.0.1:{service.port}/healthz").status_code == 200
