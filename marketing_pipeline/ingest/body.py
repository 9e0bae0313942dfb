"""From a request's body to an event, or to the field that is in the way."""

import asyncio
import json
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, Strict, ValidationError

from marketing_pipeline.domain import payload
from marketing_pipeline.domain.event import EventType, InvalidEvent
from marketing_pipeline.ingest import problem
from marketing_pipeline.ingest.exchange import Gone, Request
from marketing_pipeline.ingest.problem import Rejected

MAX_EVENT = 256 * 1024  # bytes of one event's body
MAX_BATCH = 4 * 1024 * 1024  # bytes of a list
_PATIENCE = timedelta(seconds=10)  # how long a body may take to arrive
_BEYOND = 2**63  # stands for any integer too long to be worth reading: it is refused like it


class EventBody(BaseModel):
    """What a sender says of one event. Its types are checked here, its meaning in the domain."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)

    type: Annotated[EventType, Strict(False)]  # JSON has no enums: the string will do
    payload: dict[str, Any]
    source: str
    idempotency_key: str = Field(
        default="", validation_alias=AliasChoices("idempotencyKey", "idempotency_key")
    )
    scheduled_at: str | None = Field(
        default=None, validation_alias=AliasChoices("scheduledAt", "scheduled_at")
    )


_REMEDIES: Mapping[str, str] = {
    "type": "send one of " + ", ".join(EventType),
    "payload": "send a JSON object",
    "source": "send the name of the sender as a string",
    "idempotencyKey": "send a string, best a UUID",
    "scheduledAt": 'send a string such as "2026-03-01T09:00:00+01:00", or leave it out',
}
# Without an offset too: "has no offset" says more than "is no date".
_RFC_3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?"
    r"([Zz]|[+-][0-9]{2}:[0-9]{2})?"
)
_CHARSETS = ("", "charset=utf-8", 'charset="utf-8"')
_CAMEL = {"idempotency_key": "idempotencyKey", "scheduled_at": "scheduledAt"}
_PROBLEMS = {
    "missing": "is missing",
    "extra_forbidden": "is no field of an event, or is there in two spellings",
}


async def read(request: Request, limit: int) -> object:
    """The JSON value that the request carries.

    Raises:
        Rejected: it is of another kind, too large, too slow, or no JSON.
    """
    _check_kind(request)
    return parse(await content(request, limit))


async def content(request: Request, limit: int) -> bytes:
    """The bytes that the request carries, of whatever kind they are.

    Raises:
        Rejected: they are too many, or too slow.
    """
    declared = request.header(b"content-length") or ""
    if declared.isdigit() and int(declared) > limit:
        raise Rejected(problem.too_large(limit))
    received = bytearray()
    try:
        async with asyncio.timeout(_PATIENCE.total_seconds()):
            more = True
            while more:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise Gone
                received += message.get("body", b"")
                if len(received) > limit:  # a chunked body does not say so before
                    raise Rejected(problem.too_large(limit))
                more = message.get("more_body", False)
    except TimeoutError:
        raise Rejected(problem.too_slow()) from None
    return bytes(received)


def parse(content: bytes) -> object:
    """The JSON value, in which no object has a name twice.

    Numbers that JSON does not have or that are too large are let through, for the domain to refuse
    with their place.

    Raises:
        Rejected: it is no JSON.
    """
    try:
        return _DECODER.decode(content.decode("utf-8"))
    except UnicodeDecodeError:
        raise Rejected(problem.malformed("body is not UTF-8", "encode it as UTF-8")) from None
    except _Twice as twice:
        raise Rejected(problem.invalid(twice.error)) from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise Rejected(problem.malformed(f"body is no JSON at {where}", "send JSON")) from None
    except RecursionError:
        raise Rejected(problem.malformed("body is nested too deeply", "send it flatter")) from None


def event_body(value: object) -> EventBody:
    """The value as an event's fields.

    Raises:
        InvalidEvent: a field is missing, is not known, or has the wrong type.
    """
    try:
        return EventBody.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    name = str(first["loc"][0]) if first["loc"] else "body"
    field = _CAMEL.get(name, payload.shown(name))
    raise InvalidEvent(
        field,
        _PROBLEMS.get(first["type"], "has the wrong type or value"),
        _REMEDIES.get(field, "send a JSON object with the fields " + ", ".join(_REMEDIES)),
    )


def instant(text: str) -> datetime:
    """An RFC 3339 instant; without its offset, which is for the domain to refuse, it is naive.

    Raises:
        InvalidEvent: it is none. A leap second is refused too: no clock here can express it.
    """
    try:
        if _RFC_3339.fullmatch(text) is None:
            raise ValueError
        return datetime.fromisoformat(text.upper())  # a fraction beyond microseconds is cut off
    except ValueError:
        raise InvalidEvent(
            "scheduledAt", "is not an RFC 3339 date and time", _REMEDIES["scheduledAt"]
        ) from None


class _Twice(Exception):
    """An object that has a name twice: one of the values would be lost without a word."""

    def __init__(self, name: str) -> None:
        self.error = InvalidEvent(
            payload.shown(name), "is there twice in one object", "send it once"
        )


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen = set[str]()
        for name, _ in pairs:  # a body may hold half a million names: one walk
            if name in seen:
                raise _Twice(name)
            seen.add(name)
    return found


def _integer(digits: str) -> int:
    return int(digits) if len(digits) < 20 else _BEYOND


_DECODER = json.JSONDecoder(object_pairs_hook=_once, parse_int=_integer)


def _check_kind(request: Request) -> None:
    kind, _, parameters = (request.header(b"content-type") or "").partition(";")
    charset = parameters.replace(" ", "").lower()
    if kind.strip().lower() != "application/json" or charset not in _CHARSETS:
        raise Rejected(
            problem.unsupported(
                "Content-Type", "Content-Type is not application/json", "send JSON in UTF-8"
            )
        )
    if (request.header(b"content-encoding") or "identity").lower() != "identity":
        raise Rejected(
            problem.unsupported(
                "Content-Encoding", "Content-Encoding is not understood", "send it uncompressed"
            )
        )
