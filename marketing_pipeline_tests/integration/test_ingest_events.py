"""POST /events and POST /events/batch, as senders meet them."""

import asyncio
import subprocess
import sys
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import httpx
import psycopg
import pytest
from psycopg import AsyncConnection

from marketing_pipeline.event_log import intake
from marketing_pipeline_tests import ingest_service
from marketing_pipeline_tests.ingest_service import Service, count, lead
from marketing_pipeline_tests.patience import until

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
def service(database: str) -> Iterator[Service]:
    with ingest_service.in_thread(database, ingest_service.new_key(database)) as service:
        yield service


def one_row(database: str, columns: str) -> tuple[Any, ...]:
    query = f"select {columns} from marketing_events"  # noqa: S608 (the columns of a test)
    with psycopg.connect(database) as conn:
        [row] = conn.execute(query.encode()).fetchall()
    return row


def test_a_new_event_is_answered_when_it_is_in_the_log(service: Service, database: str) -> None:
    answer = service.post(lead())
    assert answer.status_code == 201
    assert answer.headers["X-Event-Status"] == "ACCEPTED"
    assert answer.json() == {"success": True, "eventId": str(one_row(database, "id")[0])}


def test_a_repeat_is_no_error_and_names_the_first(service: Service, database: str) -> None:
    body = lead()
    first, repeat = service.post(body), service.post(body)
    assert repeat.status_code == 200
    assert repeat.headers["X-Event-Status"] == "DUPLICATE"
    event_id = first.json()["eventId"]
    assert repeat.json() == {"success": False, "error": "DUPLICATE_EVENT", "eventId": event_id}
    assert count(database) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"payload": {"email": "ada@example.com", "name": "Bob"}},
        {"payload": {"email": "bob@example.com", "name": "Ada"}},
        {"type": "CONTENT_PUBLISH"},
        {"scheduledAt": "2026-12-24T18:00:00+01:00"},
    ],
)
def test_a_key_that_stands_for_another_event_is_a_conflict(
    service: Service, database: str, other: dict[str, Any]
) -> None:
    body = lead()
    first = service.post(body)
    answer = service.post(body | other)
    assert answer.status_code == 409
    assert answer.headers["X-Event-Status"] == "CONFLICT"
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["eventId"] == first.json()["eventId"]
    assert count(database) == 1


def test_names_may_be_in_snake_case(service: Service, database: str) -> None:
    at = datetime.now(UTC).replace(microsecond=0) + timedelta(days=3)
    key = str(uuid.uuid4())
    body = lead(idempotencyKey=..., idempotency_key=key, scheduled_at=at.isoformat())
    assert service.post(body).status_code == 201
    assert one_row(database, "idempotency_key, scheduled_at") == (key, at)


@pytest.mark.parametrize("quoted", [False, True])
def test_the_key_may_stand_in_a_header(service: Service, database: str, quoted: bool) -> None:
    key = str(uuid.uuid4())
    header = {"Idempotency-Key": f'"{key}"' if quoted else key}
    assert service.post(lead(idempotencyKey=...), **header).status_code == 201
    assert service.post(lead(idempotencyKey=key.upper()), **header).status_code == 200
    assert one_row(database, "idempotency_key") == (key,)


def test_a_header_that_disagrees_with_the_body_is_refused(service: Service, database: str) -> None:
    answer = service.post(lead(), **{"Idempotency-Key": str(uuid.uuid4())})
    assert (answer.status_code, answer.json()["field"]) == (422, "idempotencyKey")
    assert count(database) == 0


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ("2026-12-24T18:00:00+01:00", datetime(2026, 12, 24, 17, tzinfo=UTC)),
        ("2026-12-24T17:00:00Z", datetime(2026, 12, 24, 17, tzinfo=UTC)),
        ("2026-12-24t17:00:00.25z", datetime(2026, 12, 24, 17, 0, 0, 250_000, tzinfo=UTC)),
        (
            "2026-12-24T17:00:00.123456789Z",
            datetime(2026, 12, 24, 17, 0, 0, 123_456, tzinfo=UTC),
        ),
    ],
)
def test_a_time_is_stored_as_the_instant_it_names(
    service: Service, database: str, sent: str, stored: datetime
) -> None:
    assert service.post(lead(scheduledAt=sent)).status_code == 201
    assert one_row(database, "scheduled_at") == (stored,)


def test_a_null_time_is_now(service: Service, database: str) -> None:
    assert service.post(lead(scheduledAt=None)).status_code == 201
    assert one_row(database, "now() - scheduled_at < interval '1 minute'") == (True,)


def test_the_address_is_kept_apart_from_the_payload(service: Service, database: str) -> None:
    service.post(lead(payload={"email": " Ada@Example.COM ", "name": "Ada"}))
    assert one_row(database, "payload, (select address from recipients)") == (
        {"name": "Ada"},
        "ada@example.com",
    )


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        (TRACE, TRACE),
        ("01" + TRACE[2:] + "-later", "01" + TRACE[2:]),
        (TRACE + "-more", None),
        ("ff" + TRACE[2:], None),
        ("00-" + "0" * 32 + TRACE[35:], None),
        (TRACE.upper(), None),
        ("nonsense", None),
    ],
)
def test_a_valid_trace_is_kept_and_an_invalid_one_ignored(
    service: Service, database: str, sent: str, stored: str | None
) -> None:
    assert service.post(lead(), traceparent=sent).status_code == 201
    assert one_row(database, "traceparent") == (stored,)


def test_two_traces_are_none(service: Service, database: str) -> None:
    headers = [("traceparent", TRACE), ("traceparent", TRACE)]
    assert service.client.post("/events", json=lead(), headers=headers).status_code == 201
    assert one_row(database, "traceparent") == (None,)


def test_one_key_posted_many_times_at_once_is_recorded_once(
    service: Service, database: str
) -> None:
    body, together = lead(), threading.Barrier(20)

    def send(_: int) -> int:
        with httpx.Client(headers=service.client.headers) as client:
            together.wait()
            return client.post(f"http://127.0.0.1:{service.port}/events", json=body).status_code

    with ThreadPoolExecutor(20) as pool:
        statuses = Counter(pool.map(send, range(20)))
    assert statuses == {201: 1, 200: 19}
    assert count(database) == 1


def test_many_senders_at_once_lose_nothing(service: Service, database: str) -> None:
    def send(_: int) -> int:
        with httpx.Client(headers=service.client.headers) as client:
            url = f"http://127.0.0.1:{service.port}/events"
            bodies = [lead(payload={"email": f"p{n % 7}@example.com"}) for n in range(25)]
            return sum(client.post(url, json=body).status_code == 201 for body in bodies)

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(send, range(16))) == 400
    assert count(database) == 400
    assert count(database, "recipients") == 7


def test_a_sender_that_goes_away_spoils_nothing_for_others(service: Service) -> None:
    with pytest.raises(httpx.ReadTimeout):
        service.client.post("/events", json=lead(), timeout=httpx.Timeout(5, read=0.0001))
    assert service.post(lead()).status_code == 201
    assert service.client.get("/healthz").status_code == 200


def test_each_item_of_a_batch_is_judged_alone(service: Service, database: str) -> None:
    before = lead()
    service.post(before)
    new = lead()
    answer = service.post(
        [
            new,
            before,
            before | {"type": "CONTENT_PUBLISH"},
            lead(payload={"email": "nobody"}),
            lead(source="crm"),
            "no event",
            new,
            lead(),
        ],
        "/events/batch",
    )
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert [one["status"] for one in results] == [201, 200, 409, 422, 403, 422, 200, 201]
    assert results[0]["success"] is True
    assert results[6] == {
        "status": 200,
        "success": False,
        "error": "DUPLICATE_EVENT",
        "eventId": results[0]["eventId"],
    }
    assert results[3]["field"] == "payload.email"
    assert results[4]["field"] == "source"
    assert results[5]["field"] == "body"
    assert count(database) == 3


def test_a_batch_of_the_most_is_recorded_in_its_order(service: Service, database: str) -> None:
    posts = [lead(type="CONTENT_PUBLISH", payload={"n": n}) for n in range(500)]
    answer = service.post(posts, "/events/batch")
    assert {one["status"] for one in answer.json()["results"]} == {201}
    assert one_row(
        database,
        "array_agg((payload ->> 'n')::int order by seq) = array(select generate_series(0, 499))",
    ) == (True,)


@pytest.mark.parametrize("body", [[], {}, "text", None, [lead()] * 501])
def test_what_is_no_list_of_events_is_refused_as_a_whole(service: Service, body: object) -> None:
    answer = service.post(body, "/events/batch")
    assert (answer.status_code, answer.json()["field"]) == (422, "body")


def test_a_key_for_a_whole_list_is_refused(service: Service, database: str) -> None:
    answer = service.post([lead()], "/events/batch", **{"Idempotency-Key": "k"})
    assert (answer.status_code, answer.json()["field"]) == (422, "Idempotency-Key")
    assert count(database) == 0


@pytest.mark.parametrize("path", ["/events", "/events/batch"])
@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer mk_",
        "Bearer mk_000000000000_guess",
        "Basic dTpw",
        "mk_a_b",
        "Bearer \xff",
    ],
)
def test_a_sender_without_a_valid_key_is_not_heard(
    service: Service, path: str, authorization: str
) -> None:
    headers = {b"Authorization": authorization.encode("latin-1")}
    answer = service.client.post(path, content=b"not even JSON", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer ")
    assert answer.json()["field"] == "Authorization"


def test_a_key_with_another_secret_is_not_valid(service: Service) -> None:
    wrong = service.key[:-1] + ("A" if service.key[-1] != "A" else "B")
    assert service.post(lead(), Authorization=f"Bearer {wrong}").status_code == 401


def test_a_key_does_not_send_for_another_source(service: Service, database: str) -> None:
    answer = service.post(lead(source="crm"))
    assert (answer.status_code, answer.json()["field"]) == (403, "source")
    assert count(database) == 0


def test_a_key_made_later_works_within_a_second(service: Service, database: str) -> None:
    assert service.post(lead()).status_code == 201  # the keys are in memory now
    key = ingest_service.new_key(database, "crm")
    of_crm = partial(service.post, lead(source="crm"), Authorization=f"Bearer {key}")
    until(lambda: of_crm().status_code == 201, seconds=1.5, every=0.1)


def test_a_revoked_key_stops_working_within_ten_seconds(service: Service, database: str) -> None:
    async def revoke() -> None:
        async with await AsyncConnection.connect(database) as conn:
            key_id = service.key.split("_")[1]
            assert await intake.revoke_key(conn, key_id, datetime.now(UTC))

    assert service.post(lead()).status_code == 201
    asyncio.run(revoke())
    until(lambda: service.post(lead()).status_code == 401, seconds=10.5, every=0.25)


def test_the_document_describes_every_path(service: Service) -> None:
    document = service.client.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    assert set(document["paths"]) == {
        "/events",
        "/events/batch",
        "/healthz",
        "/readyz",
        "/openapi.json",
        "/webhooks/{provider}",
    }


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/", 404, None),
        ("POST", "/events/", 404, None),
        ("GET", "/events/batch/7", 404, None),
        ("GET", "/events", 405, "POST"),
        ("PUT", "/events/batch", 405, "POST"),
        ("POST", "/healthz", 405, "GET, HEAD"),
        ("DELETE", "/readyz", 405, "GET, HEAD"),
    ],
)
def test_what_is_not_there_is_said_so(
    service: Service, method: str, path: str, status: int, allow: str | None
) -> None:
    answer = service.client.request(method, path)
    assert (answer.status_code, answer.headers.get("Allow")) == (status, allow)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["status"] == status


def test_a_supervisor_may_ask_by_head(service: Service) -> None:
    answer = service.client.head("/healthz")
    assert (answer.status_code, answer.content) == (200, b"")


def test_numbers_are_stored_as_they_were_sent(service: Service, database: str) -> None:
    """The log gets all events of a flush as one JSON document."""
    payload = {"n": [0.1, 1e-7, 1.5e15, -0.0, 9007199254740991], "t": '\u2028 "\\" \U0001f600'}
    assert service.post(lead(type="CONTENT_PUBLISH", payload=payload)).status_code == 201
    assert one_row(database, "payload") == (payload,)


def test_the_service_does_not_know_dagster() -> None:
    """It would cost 2 s and 67 MB."""
    code = "import sys, marketing_pipeline.ingest.serve; print('dagster' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"
