"""`POST /events` and `POST /events/batch`.

A batch is answered 200, not 207, whatever became of its items: 207 promises WebDAV's XML. Each item
has its own status, and nothing but the whole list being unreadable or the database being away
spoils it for the others.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, assert_never

from marketing_pipeline import telemetry
from marketing_pipeline.domain import event
from marketing_pipeline.domain.event import InvalidEvent, NewEvent
from marketing_pipeline.event_log.intake import Recorded, Verdict
from marketing_pipeline.ingest import body, problem, traceparent
from marketing_pipeline.ingest.batcher import Batcher, Outcome
from marketing_pipeline.ingest.body import EventBody
from marketing_pipeline.ingest.exchange import Answer, Request, as_json
from marketing_pipeline.ingest.problem import Problem, Rejected
from marketing_pipeline.ingest.senders import Senders

MOST = 500  # events of a batch
_BREATHE = 50  # events of a batch that are read before others get their turn
_STATUS_HEADER = "X-Event-Status"


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """What a request says of all its events."""

    source: str  # of the key it came with
    key: str | None  # Idempotency-Key
    traceparent: str | None
    now: datetime


Result = Outcome | Problem


class Events:
    """Takes events in."""

    def __init__(self, senders: Senders, batcher: Batcher) -> None:
        self._senders = senders
        self._batcher = batcher

    async def post(self, request: Request) -> Answer:
        envelope = await self._envelope(request)
        taken = take(await body.read(request, body.MAX_EVENT), envelope)
        [answer] = await self._record([taken], envelope)
        status, members, headers = _reply(answer)
        kind = "application/problem+json" if status >= 400 else "application/json"
        return as_json(members, status, headers, kind=kind)

    async def post_batch(self, request: Request) -> Answer:
        envelope = await self._envelope(request)
        items = _items(await body.read(request, body.MAX_BATCH), envelope)
        taken: list[NewEvent | Problem] = []
        for position, item in enumerate(items, start=1):
            taken.append(take(item, envelope))
            if position % _BREATHE == 0:
                await asyncio.sleep(0)
        replies = [_reply(one) for one in await self._record(taken, envelope)]
        results = [{"status": status} | members for status, members, _ in replies]
        return as_json({"results": results})

    async def _envelope(self, request: Request) -> Envelope:
        """Before the body is read: nobody unknown can make this process hold 4 MiB."""
        return Envelope(
            source=await self._senders.source_of(request.header(b"authorization")),
            key=request.header(b"idempotency-key"),
            traceparent=traceparent.valid(request.headers(b"traceparent")),
            now=datetime.now(UTC),
        )

    async def _record(
        self, taken: Sequence[NewEvent | Problem], envelope: Envelope
    ) -> list[Result]:
        """Record what can be; a problem stays in its place."""
        events = [one for one in taken if isinstance(one, NewEvent)]
        outcomes = iter(await self._batcher.record(events) if events else [])
        answers = [one if isinstance(one, Problem) else next(outcomes) for one in taken]
        for answer in answers:
            _report(answer, envelope.source)
        return answers


def take(value: object, envelope: Envelope) -> NewEvent | Problem:
    """An event of one JSON value, or why there is none."""
    try:
        said = body.event_body(value)
        if said.source != envelope.source:
            return problem.foreign_source()
        return event.new(
            type=said.type,
            payload=said.payload,
            source=said.source,
            key=_key(said, envelope.key),
            now=envelope.now,
            scheduled_at=None if said.scheduled_at is None else body.instant(said.scheduled_at),
            traceparent=envelope.traceparent,
        )
    except InvalidEvent as error:
        return problem.invalid(error)


def _key(said: EventBody, header: str | None) -> str:
    """The key from the body or from the header, where it may stand in quotes (a structured field,
    as draft-ietf-httpapi-idempotency-key-header has it)."""
    in_body = "idempotency_key" in said.model_fields_set
    if header is None:
        if not in_body:
            raise InvalidEvent("idempotencyKey", "is missing", "send a UUID, the same for repeats")
        return said.idempotency_key
    if len(header) > 1 and header[0] == header[-1] == '"':
        header = header[1:-1]
    same = event.idempotency_key(said.source, header)
    if in_body and event.idempotency_key(said.source, said.idempotency_key) != same:
        raise InvalidEvent(
            "idempotencyKey",
            "is not the one in the header Idempotency-Key",
            "send it in one place, or the same in both",
        )
    return header


def _items(value: object, envelope: Envelope) -> list[object]:
    if not isinstance(value, list) or not 1 <= len(value) <= MOST:
        error = InvalidEvent("body", f"is not a list of 1 to {MOST} events", "send such a list")
        raise Rejected(problem.invalid(error))
    if envelope.key is not None:
        error = InvalidEvent(
            "Idempotency-Key", "cannot hold for a list", "give each item its own idempotencyKey"
        )
        raise Rejected(problem.invalid(error))
    return value


def _reply(answer: Result) -> tuple[int, dict[str, Any], Mapping[str, str]]:
    """Status, members of the body, and headers."""
    match answer:
        case Recorded(event_id=event_id, verdict=Verdict.ACCEPTED):
            members: dict[str, Any] = {"success": True, "eventId": str(event_id)}
            return 201, members, {_STATUS_HEADER: Verdict.ACCEPTED}
        case Recorded(event_id=event_id, verdict=Verdict.DUPLICATE):
            members = {"success": False, "error": "DUPLICATE_EVENT", "eventId": str(event_id)}
            return 200, members, {_STATUS_HEADER: Verdict.DUPLICATE}
        case Recorded(event_id=event_id):
            conflict = problem.conflict(str(event_id))
            return conflict.status, conflict.members(), {_STATUS_HEADER: Verdict.CONFLICT}
        case InvalidEvent():
            return _reply(problem.invalid(answer))
        case Problem():
            return answer.status, answer.members(), answer.headers
        case _:
            assert_never(answer)


def _report(answer: Result, source: str) -> None:
    match answer:
        case Recorded(event_id=event_id, verdict=Verdict.ACCEPTED):
            telemetry.emit("event_recorded", level=logging.DEBUG, event_id=event_id, source=source)
        case Recorded(event_id=event_id, verdict=Verdict.DUPLICATE):
            telemetry.emit("event_repeated", level=logging.DEBUG, event_id=event_id, source=source)
        case Recorded(event_id=event_id):
            telemetry.emit("event_rejected", event_id=event_id, source=source, reason="conflict")
        case InvalidEvent() | Problem():
            telemetry.emit("event_rejected", source=source, reason=f"{answer.field} is not taken")
        case _:
            assert_never(answer)
