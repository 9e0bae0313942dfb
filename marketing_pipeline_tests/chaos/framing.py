"""Finds where one message ends in the bytes of three protocols.

A message is what one side says before it waits for the other: a PostgreSQL query with its Sync, an
answer up to ReadyForQuery, one HTTP request. A cut within one is the same to its receiver as a cut
before it: none of the three acts on half a message.
"""

from collections.abc import Callable

Framer = Callable[[bytearray], int]
"""The length of the whole message that a buffer begins with; 0: it is not all here."""

Made = Callable[[], Framer]
"""A framer for one direction of one new connection."""

_FRONTEND_ENDS = frozenset(b"SQXHpFd")  # Sync, Query, Terminate, Flush, password; not Parse, Bind
_BACKEND_ENDS = frozenset(b"ZA")  # ReadyForQuery, NotificationResponse
_HEAD_END = b"\r\n\r\n"


def postgres_request() -> Framer:
    """What a client says; its first message has no type byte."""
    started = False

    def frame(buffer: bytearray) -> int:
        nonlocal started
        if started:
            return _typed(buffer, _FRONTEND_ENDS)
        if len(buffer) < 4 or len(buffer) < (length := int.from_bytes(buffer[:4])):
            return 0
        started = True
        return length

    return frame


def postgres_answer() -> Framer:
    return lambda buffer: _typed(buffer, _BACKEND_ENDS)


def redis_message() -> Framer:
    """Each write as it comes: redis-py sends a command whole, and the server answers likewise."""
    return len


def http_message() -> Framer:
    """Heads with a Content-Length, which all that is sent here has."""

    def frame(buffer: bytearray) -> int:
        head = buffer.find(_HEAD_END)
        if head < 0:
            return 0
        length = head + len(_HEAD_END) + _content_length(bytes(buffer[:head]))
        return length if len(buffer) >= length else 0

    return frame


def _typed(buffer: bytearray, ends: frozenset[int]) -> int:
    at = 0
    while len(buffer) >= at + 5:
        kind, length = buffer[at], int.from_bytes(buffer[at + 1 : at + 5])
        at += 1 + length
        if len(buffer) < at:
            return 0
        if kind in ends:
            return at
    return 0


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            return int(value)
    return 0
