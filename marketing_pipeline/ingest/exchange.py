"""A request and its answer on bare ASGI: a framework's objects cost a fifth of a post."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_LINGER = timedelta(seconds=1)
_DISCARDED = 1024 * 1024  # bytes that are thrown away; a sender with more loses the answer
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


class Gone(Exception):
    """The sender went away before its request was complete: nobody reads an answer."""


class Request:
    """What came over HTTP. Of a header that came more than once, `header` is the first."""

    __slots__ = ("_headers", "_lines", "receive")

    def __init__(self, scope: Mapping[str, Any], receive: Receive) -> None:
        self._lines: Sequence[tuple[bytes, bytes]] = scope["headers"]
        self._headers = dict(reversed(self._lines))
        self.receive = receive

    def header(self, name: bytes) -> str | None:
        """By its name in lower case."""
        value = self._headers.get(name)
        return None if value is None else value.decode("latin-1")

    def headers(self, name: bytes) -> list[str]:
        """Each that came by this name, which is in lower case."""
        if name not in self._headers:
            return []
        return [value.decode("latin-1") for each, value in self._lines if each == name]


@dataclass(frozen=True, slots=True)
class Answer:
    """A status, a JSON document and headers."""

    status: int
    content: bytes
    headers: Mapping[str, str]

    async def send(self, receive: Receive, send: Send) -> None:
        """Answer; where that closes the connection, a little later.

        A socket that is closed over unread bytes resets the connection, and the sender's own system
        then throws away the answer that it had received. This is the lingering close of RFC 9112,
        section 9.6.
        """
        headers = [(name.lower().encode(), value.encode()) for name, value in self.headers.items()]
        headers.append((b"content-length", b"%d" % len(self.content)))
        closes = self.headers.get("Connection") == "close"
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.content, "more_body": closes})
        if closes:
            await _discard(receive)
            await send({"type": "http.response.body", "body": b"", "more_body": False})


def as_json(
    members: object,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    *,
    kind: str = "application/json",
) -> Answer:
    """An answer that says this."""
    content = _ENCODER.encode(members).encode()
    return Answer(status, content, {"Content-Type": kind, **(headers or {})})


async def _discard(receive: Receive) -> None:
    left = _DISCARDED
    try:
        async with asyncio.timeout(_LINGER.total_seconds()):
            while left > 0:
                message = await receive()
                if not message.get("more_body", False):
                    return
                left -= len(message.get("body", b""))
    except TimeoutError:
        return
