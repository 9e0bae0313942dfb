"""`POST /events` and `POST /events/batch`.

A batch is answered 200, not 207, whatever became of its items: 207 promises WebDAV's XML. Each item
has its own status, and nothing but the whole list being unreadable or the database being away
spoils it for the others.
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from marketing_pipeline import telemetry
from marketing_pipeline.domain import event
from marketing_pipeline.domain.event import InvalidEvent, NewEvent
from marketing_pipeline.event_log.intake import Recorded, Verdict
from marketing_pipeline.ingest import body, problem, traceparent
from marketing_pipeline.ingest.batcher import Batcher, Outcome
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


class Events:
    """Takes events in."""

    def __init__(self, senders: Senders, batcher: Batcher) -> None:
        self._senders = senders
        self._batcher = batcher

    async def post(self, request: Request) -> Response:
        envelope = await self._envelope(request)
        taken = take(await body.read(request, body.MAX_EVENT), envelope)
        if isinstance(taken, NewEvent):
            [outcome] = await self._batcher.record([taken])
        return _response(taken if isinstance(taken, Problem) else outcome, envelope.source)

    async def post_batch(self, request: Request) -> Response:
        envelope = await self._envelope(request)
        items = _items(await body.read(request, body.MAX_BATCH), envelope)
        taken: list[NewEvent | Problem] = []
        for position, item in enumerate(items):
            if position % _BREATHE == _BREATHE - 1:
                await asyncio.sleep(0)
            taken.append(take(item, envelope))
        events = [one for one in taken if isinstance(one, NewEvent)]
        outcomes = iter(await self._batcher.record(events) if events else [])
        answers = [one if isinstance(one, Problem) else next(outcomes) for one in taken]
        return JSONResponse({"results": [_result(one, envelope.source) for one in answers]})

    async def _envelope(self, request: Request) -> Envelope:
        """Before the body is read: nobody unknown can make this process hold 4 MiB."""
        return Envelope(
            source=await self._senders.source_of(request.headers.get("authorization")),
            key=request.headers.get("idempotency-key"),
            traceparent=traceparent.valid(request.headers.getlist("traceparent")),
            now=datetime.now(UTC),
        )
