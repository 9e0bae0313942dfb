"""Posts events to ingest as fast as it takes them, by a client that costs less than ingest."""

import asyncio
import json
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, cast

from benchmarks.installation import SOURCE
from marketing_pipeline.domain import event
from marketing_pipeline.domain.event import EventType, NewEvent

Body = dict[str, Any]  # an event as JSON
_Check = Callable[[bytes, bytes], bool]  # is this answer, its head and its content, the right one?


def lead(number: int) -> Body:
    """A body of about 350 bytes; every fifth comes from a person who came before."""
    payload = {
        "email": f"person{number - number // 5}@example.com",
        "name": "Ada Example",
        "form": "newsletter",
        "page": "https://www.example.com/landing/spring-campaign?utm_source=search",
        "consent": {"mail": True, "version": 3},
    }
    return _body("LEAD_CAPTURE", payload)


def publication(number: int) -> Body:
    return _body("CONTENT_PUBLISH", {"text": f"What happened on occasion number {number}"})


def mixed(number: int) -> Body:
    """Leads and publications in turn: three effects for two events."""
    return publication(number) if number % 2 else lead(number)


def as_event(body: Body, now: datetime) -> NewEvent:
    """What ingest makes of a body."""
    return event.new(
        type=EventType(body["type"]),
        payload=body["payload"],
        source=body["source"],
        key=body["idempotencyKey"],
        now=now,
    )


async def post(
    port: int,
    key: str,
    bodies: Sequence[Body],
    connections: int,
    ready: Callable[[], object] = lambda: None,
) -> tuple[list[float], float]:
    """Waits in seconds, and how long all of it took. The requests are made before the clock, and
    before `ready` is called.

    Raises:
        RuntimeError: an answer was not 201.
    """
    requests = [_request(key, "/events", body) for body in bodies]
    ready()
    return await _exhaust(port, requests, _accepted, connections)


async def post_batches(
    port: int, key: str, batches: Sequence[Sequence[Body]], connections: int
) -> tuple[list[float], float]:
    """The same for lists of events, all of one length.

    Raises:
        RuntimeError: an answer was not 200, or an item in it not 201.
    """
    requests = [_request(key, "/events/batch", batch) for batch in batches]
    length = len(batches[0])

    def all_accepted(head: bytes, content: bytes) -> bool:
        return head.startswith(b"HTTP/1.1 200 ") and content.count(b'"status":201') == length

    return await _exhaust(port, requests, all_accepted, connections)


async def post_steadily(
    port: int, key: str, bodies: Sequence[Body], per_second: int
) -> list[float]:
    """A post at each beat, whether or not those before have been answered. Waits in seconds, in
    the order of the beats.

    No beat waits for an answer, so that a stall of the service is in the figures of all that came
    during it. What this process itself is late by is not: uvloop's timers keep whole milliseconds.

    Raises:
        RuntimeError: an answer was not 201.
    """
    requests = [_request(key, "/events", body) for body in bodies]
    loop = asyncio.get_running_loop()
    idle: list[_Connection] = []
    waits = [0.0] * len(requests)
    began = loop.time()

    async def send(number: int) -> None:
        await asyncio.sleep(began + number / per_second - loop.time())
        sent = time.perf_counter()
        connection = idle.pop() if idle else await _connected(port, _accepted)
        await connection.exchange(requests[number])
        waits[number] = time.perf_counter() - sent
        idle.append(connection)

    await asyncio.gather(*(send(number) for number in range(len(requests))))
    for connection in idle:
        connection.close()
    return waits


async def _exhaust(
    port: int, requests: Sequence[bytes], good: _Check, connections: int
) -> tuple[list[float], float]:
    """Each connection sends its next request when it has the answer to the last."""
    left = iter(requests)
    waits: list[float] = []
    began = time.perf_counter()

    async def send() -> None:
        connection = await _connected(port, good)
        for request in left:
            sent = time.perf_counter()
            await connection.exchange(request)
            waits.append(time.perf_counter() - sent)
        connection.close()

    await asyncio.gather(*(send() for _ in range(connections)))
    return waits, time.perf_counter() - began


async def _connected(port: int, good: _Check) -> "_Connection":
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(lambda: _Connection(good), "127.0.0.1", port)
    return connection


def _accepted(head: bytes, _: bytes) -> bool:
    return head.startswith(b"HTTP/1.1 201 ")


class _Connection(asyncio.Protocol):
    """One HTTP connection, for one request at a time."""

    def __init__(self, good: _Check) -> None:
        self._good = good
        self._answer = b""
        self._done: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name

    def exchange(self, request: bytes) -> asyncio.Future[None]:
        """Done when the answer has been read, and was good."""
        self._done = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._done

    def data_received(self, data: bytes) -> None:
        self._answer += data
        head, end, content = self._answer.partition(b"\r\n\r\n")
        if not end:
            return
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(content) < length:
            return
        self._end(None if self._good(head, content) else RuntimeError(self._answer.decode()))
        self._answer = b""

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc or RuntimeError("the service closed the connection"))

    def close(self) -> None:
        self._transport.close()

    def _end(self, error: Exception | None) -> None:
        if self._done is None or self._done.done():
            return
        if error is None:
            self._done.set_result(None)
        else:
            self._done.set_exception(error)


def _body(type: str, payload: dict[str, Any]) -> Body:
    key = str(uuid.uuid4())
    return {"type": type, "payload": payload, "source": SOURCE, "idempotencyKey": key}


def _request(key: str, path: str, body: object) -> bytes:
    content = json.dumps(body)
    return (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {key}\r\nContent-Length: {len(content)}\r\n\r\n{content}"
    ).encode()
