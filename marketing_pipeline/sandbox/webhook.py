"""A minimal keyed destination: any JSON, deduplicated by its Idempotency-Key for ever."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial

from marketing_pipeline.sandbox.exchange import (
    Answer,
    Call,
    Order,
    Route,
    Settings,
    bearer,
    in_json,
    parsed,
    refusal,
    whole_seconds,
)
from marketing_pipeline.sandbox.limits import Allowance
from marketing_pipeline.sandbox.record import Kept, Record

# Each name is a destination of its own, so the name is the operation.
ROUTES = (Route(method="POST", path="/{name}", operation=None),)

exhausted: Callable[[Call], Answer] | None = None


def read(call: Call, settings: Settings) -> Order:
    """A key is asked for only where the settings name one."""
    key = call.headers.get("Idempotency-Key")
    wanted = settings.keys.get("webhook")
    if wanted is not None and bearer(call) != wanted:
        return refusal(_error(401, "the bearer token is not the one this hook knows"), key)
    if not key:
        return refusal(_error(400, "the Idempotency-Key header is missing"), key)
    if not call.headers.get("Content-Type", "").startswith("application/json"):
        return refusal(_error(415, "the body must be application/json"), key)
    if parsed(call.body) is None:
        return refusal(_error(400, "the body is not JSON"), key)
    return Order(key=key, perform=partial(_accept, call, key), busy=_BUSY)


def throttled(_call: Call, after: timedelta) -> Answer:
    return _error(429, "too many requests", {"Retry-After": str(whole_seconds(after))})


def failed(_call: Call) -> Answer:
    return _error(500, "internal error")


def unknown(_call: Call) -> Answer:
    return _error(404, "no such hook: POST to /webhook/{name}")


def limit_headers(_allowance: Allowance) -> Mapping[str, str]:
    return {}


def _accept(call: Call, key: str, record: Record) -> Answer:
    """Another body under a known key gets 422, as the IETF's draft on that header says."""
    kept = record.kept("webhook", call.operation, key)
    if kept is not None:
        if kept.body_sha256 == call.digest():
            return in_json(200, {"ok": True})
        return _error(422, "this Idempotency-Key came with another body before")
    record.add_act(
        call.at,
        provider="webhook",
        operation=call.operation,
        key=key,
        recipient=None,
        ref=None,
        body_sha256=call.digest(),
    )
    kept = Kept(body_sha256=call.digest(), ref="", at=call.at)
    record.keep("webhook", call.operation, key, kept)
    return in_json(200, {"ok": True})


def _error(status: int, text: str, headers: Mapping[str, str] | None = None) -> Answer:
    return in_json(status, {"ok": False, "error": text}, headers)


_BUSY = _error(409, "a request with this Idempotency-Key is in progress")
