"""Posts events to ingest as fast as it takes them, by a client that costs less than ingest."""

import asyncio
import json
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any, cast

from benchmarks.installation import SOURCE


def lead(number: int) -> dict[str, Any]:
    """A body of about 350 bytes; every fifth comes from a person who came before."""
    payload = {
        "email": f"person{number - number // 5}@example.com",
        "name": "Ada Example",
        "form": "newsletter",
        "page": "https://www.example.com/landing/spring-campaign?utm_source=search",
        "consent": {"mail": True, "version": 3},
    }
    return _body("LEAD_CAPTURE", payload)


def publication(number: int) -> dict[str, Any]:
    return _body("CONTENT_PUBLISH", {"text": f"What happened on occasion number {number}"})


def mixed(number: int) -> dict[str, Any]:
    """Leads and publications in turn: three effects for two events."""
    return publication(number) if number % 2 else lead(number)


async def post(
    port: int, key: str, bodies: Sequence[dict[str, Any]], connections: int
) -> tuple[list[float], float]:
    """Waits in seconds, and how long all of it took. The requests are made before the clock.

    Raises:
        RuntimeError: an answer was not 201.
    """
    requests = iter([_request(key, body) for body in bodies])
    waits: list[float] = []
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    opened = [
        await loop.create_connection(lambda: _Connection(requests, waits), "127.0.0.1", port)
        for _ in range(connections)
    ]
    await asyncio.gather(*(connection.done for _, connection in opened))
    return waits, time.perf_counter() - began


class _Connection(asyncio.Protocol):
    """One HTTP connection that sends its next request when it has the answer to the last."""

    def __init__(self, requests: Iterator[bytes], waits: list[float]) -> None:
        self._requests = requests
        self._waits = waits
        self._answer = b""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name
        self._send()

    def data_received(self, data: bytes) -> None:
        self._answer += data
        head, end, content = self._answer.partition(b"\r\n\r\n")
        if not end:
            return
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(content) < length:
            return
        if not head.startswith(b"HTTP/1.1 201 "):
            self._end(RuntimeError(self._answer.decode()))
            return
        self._waits.append(time.perf_counter() - self._sent)
        self._answer = b""
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc or RuntimeError("the service closed the connection"))

    def _send(self) -> None:
        request = next(self._requests, None)
        if request is None:
            self._end(None)
            return
        self._sent = time.perf_counter()
        self._transport.write(request)

    def _end(self, error: Exception | None) -> None:
        if not self.done.done():
            if error is None:
                self.done.set_result(None)
            else:
                self.done.set_exception(error)
            self._transport.close()


def _body(type: str, payload: dict[str, Any]) -> dict[str, Any]:
    key = str(uuid.uuid4())
    return {"type": type, "payload": payload, "source": SOURCE, "idempotencyKey": key}


def _request(key: str, body: dict[str, Any]) -> bytes:
    content = json.dumps(body)
    return (
        "POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {key}\r\nContent-Length: {len(content)}\r\n\r\n{content}"
    ).encode()
