"""What a request is answered with when it cannot be served: RFC 9457 problem details."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from marketing_pipeline.domain.event import InvalidEvent
from marketing_pipeline.ingest.exchange import Answer, as_json

_TYPE = "urn:problem-type:marketing-pipeline:"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Why, and what to do about it; holds nothing of what was sent but the names of fields."""

    kind: str  # the last part of its type
    status: int
    title: str
    detail: str
    remedy: str
    field: str | None = None  # the part of the request that is at fault, where there is one
    event_id: str | None = None
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def members(self) -> dict[str, Any]:
        """The members of its JSON object."""
        members: dict[str, Any] = {
            "type": _TYPE + self.kind,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }
        if self.field is not None:
            members["field"] = self.field
        members["remedy"] = self.remedy
        if self.event_id is not None:
            members["eventId"] = self.event_id
        return members

    def answer(self) -> Answer:
        return as_json(self.members(), self.status, self.headers, kind="application/problem+json")


class Rejected(Exception):
    """A request that ends here, with this problem."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.kind)
        self.problem = problem


def invalid(error: InvalidEvent) -> Problem:
    return Problem(
        kind="invalid",
        status=422,
        title="The event cannot be taken",
        detail=f"{error.field} {error.problem}",
        field=error.field,
        remedy=error.remedy,
    )


def malformed(detail: str, remedy: str) -> Problem:
    return Problem(
        kind="malformed",
        status=400,
        title="The body is no JSON",
        detail=detail,
        field="body",
        remedy=remedy,
    )


def unauthorized(detail: str, *, token_given: bool) -> Problem:
    """Challenges as RFC 6750 section 3 asks: an error code only where a token was sent."""
    challenge = 'Bearer realm="marketing-pipeline"'
    return Problem(
        kind="unauthorized",
        status=401,
        title="The sender is not known",
        detail=detail,
        field="Authorization",
        remedy="send `Authorization: Bearer mk_...` with a key made by `marketing-pipeline keys`",
        headers={
            "WWW-Authenticate": challenge + (', error="invalid_token"' if token_given else "")
        },
    )


def unsigned() -> Problem:
    """Says no more: what exactly is wrong with a signature is the operator's to know."""
    return Problem(
        kind="unsigned",
        status=401,
        title="The sender is not known",
        detail="the signature is missing, too old, or not of the secret that is set here",
        field="signature",
        remedy="sign it with the secret of this address; the log of the service says what is wrong",
    )


def unreadable(reason: str, status: int) -> Problem:
    return Problem(
        kind="unreadable",
        status=status,
        title="The notice cannot be read",
        detail=reason,
        field="body",
        remedy="send it as the provider documents it",
    )


def foreign_source() -> Problem:
    return Problem(
        kind="forbidden",
        status=403,
        title="The key belongs to another source",
        detail="source is not the one that this key was made for",
        field="source",
        remedy="send the source of the key, or use a key of that source",
    )


def conflict(event_id: str) -> Problem:
    return Problem(
        kind="conflict",
        status=409,
        title="The key stands for another event",
        detail="idempotencyKey was used before, with another payload, type, source or time",
        field="idempotencyKey",
        remedy="use a new key for a new event, or repeat exactly what was sent",
        event_id=event_id,
    )


def too_large(limit: int) -> Problem:
    return Problem(
        kind="too-large",
        status=413,
        title="The body is too large",
        detail=f"body is larger than {limit} bytes",
        field="body",
        remedy="send less, or a link to what is large",
        headers={"Connection": "close"},  # the rest is not read
    )


def too_slow() -> Problem:
    return Problem(
        kind="too-slow",
        status=408,
        title="The body did not arrive",
        detail="body was not complete in time",
        field="body",
        remedy="send it again",
        headers={"Connection": "close"},
    )


def unsupported(field: str, detail: str, remedy: str) -> Problem:
    return Problem(
        kind="unsupported-media-type",
        status=415,
        title="The body is of another kind",
        detail=detail,
        field=field,
        remedy=remedy,
        headers={"Accept-Post": "application/json"},
    )


def unavailable(detail: str, remedy: str = "repeat it with the same idempotencyKey") -> Problem:
    return Problem(
        kind="unavailable",
        status=503,
        title="Nothing can be recorded at the moment",
        detail=detail,
        remedy=remedy,
        headers={"Retry-After": "1"},
    )


def not_found() -> Problem:
    return Problem(
        kind="not-found",
        status=404,
        title="There is nothing here",
        detail="path is not one of this service",
        field="path",
        remedy="POST to /events; GET /openapi.json describes the rest",
    )


def method_not_allowed(allow: str) -> Problem:
    return Problem(
        kind="method-not-allowed",
        status=405,
        title="Not with this method",
        detail="method is not one that this path takes",
        field="method",
        remedy=f"use {allow}",
        headers={"Allow": allow},
    )


def internal() -> Problem:
    return Problem(
        kind="internal",
        status=500,
        title="This is a fault of ours",
        detail="the request met an error that nobody foresaw; it is in the log",
        remedy="repeat it with the same idempotencyKey; if it stays, tell the operator",
    )
