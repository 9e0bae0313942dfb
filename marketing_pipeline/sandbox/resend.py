"""Resend: one mail, deduplicated by its Idempotency-Key for a day."""

from collections.abc import Mapping
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
    is_address,
    mailbox,
    parsed,
    refusal,
    whole_seconds,
)
from marketing_pipeline.sandbox.limits import Allowance
from marketing_pipeline.sandbox.record import Kept, Record

ROUTES = (Route(method="POST", path="/emails", operation="send"),)
KEY_LIFE = timedelta(hours=24)
LONGEST_KEY = 256
MOST_RECIPIENTS = 50


def read(call: Call, settings: Settings) -> Order:
    key = call.headers.get("Idempotency-Key")
    token = bearer(call)
    if not token:
        text = "Missing API key in the authorization header."
        return refusal(_error(401, "missing_api_key", text), key)
    if token != settings.keys.get("resend", token):
        return refusal(_error(403, "invalid_api_key", "API key is invalid."), key)
    if key is not None and not 1 <= len(key) <= LONGEST_KEY:
        text = "The key must be between 1-256 chars."
        return refusal(_error(400, "invalid_idempotency_key", text), key)
    document = parsed(call.body)
    if not isinstance(document, dict):
        return refusal(_error(400, "validation_error", "The body is not a JSON object."), key)
    problem = _problem(document)
    if problem is not None:
        return refusal(problem, key)
    return Order(key=key, perform=partial(_send, call, key, document), busy=_BUSY)


def throttled(_call: Call, after: timedelta) -> Answer:
    text = "Too many requests. See rate limit response headers for more information."
    wait = str(whole_seconds(after))
    return _error(429, "rate_limit_exceeded", text, {"retry-after": wait})


def exhausted(_call: Call) -> Answer:
    text = "You have reached your daily email sending quota."
    return _error(429, "daily_quota_exceeded", text)


def failed(_call: Call) -> Answer:
    return _error(500, "internal_server_error", "An unexpected error occurred.")


def unknown(_call: Call) -> Answer:
    return _error(404, "not_found", "The requested endpoint does not exist.")


def limit_headers(allowance: Allowance) -> Mapping[str, str]:
    """The reset is in seconds from now, though others use the same name for an instant."""
    return {
        "ratelimit-limit": str(allowance.limit.calls),
        "ratelimit-remaining": str(allowance.remaining),
        "ratelimit-reset": str(whole_seconds(allowance.reset)),
    }


def _send(call: Call, key: str | None, document: Mapping[str, object], record: Record) -> Answer:
    kept = None if key is None else record.kept("resend", "send", key)
    if kept is not None and kept.at + KEY_LIFE > call.at:
        if kept.body_sha256 == call.digest():
            return in_json(200, {"id": kept.ref})
        text = "Same idempotency key used with a different request payload."
        return _error(409, "invalid_idempotent_request", text)
    ref = str(call.derived_id())
    record.add_act(
        call.at,
        provider="resend",
        operation="send",
        key=key,
        recipient=", ".join(mailbox(text) for text in _addresses(document["to"])),
        ref=ref,
        body_sha256=call.digest(),
    )
    if key is not None:
        kept = Kept(body_sha256=call.digest(), ref=ref, at=call.at)
        record.keep("resend", "send", key, kept)
    return in_json(200, {"id": ref})


def _problem(document: Mapping[str, object]) -> Answer | None:
    for name in ("from", "to", "subject"):
        if document.get(name) in (None, "", []):
            return _error(422, "missing_required_field", f"Missing `{name}` field.")
    if not any(document.get(name) for name in ("html", "text", "template")):
        return _error(422, "missing_required_field", "Missing `html` or `text` field.")
    for name in ("from", "to", "cc", "bcc", "reply_to"):
        if name in document and not _sound(document[name], single=name == "from"):
            text = (
                f"Invalid `{name}` field. The email address needs to follow the"
                " `email@example.com` or `Name <email@example.com>` format."
            )
            return _error(422, "validation_error", text)
    if len(_addresses(document["to"])) > MOST_RECIPIENTS:
        text = f"Invalid `to` field. The most is {MOST_RECIPIENTS} recipients."
        return _error(422, "validation_error", text)
    for name in ("subject", "html", "text", "scheduled_at"):
        if not isinstance(document.get(name, ""), str):
            return _error(422, "validation_error", f"Invalid `{name}` field. It must be a string.")
    headers = document.get("headers", {})
    if not isinstance(headers, dict) or not all(isinstance(v, str) for v in headers.values()):
        text = "Invalid `headers` field. It must be an object of strings."
        return _error(422, "validation_error", text)
    return None


def _addresses(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    return (
        [text if isinstance(text, str) else "" for text in value] if isinstance(value, list) else []
    )


def _sound(value: object, *, single: bool) -> bool:
    addresses = [] if single and not isinstance(value, str) else _addresses(value)
    return bool(addresses) and all(is_address(mailbox(text)) for text in addresses)


def _error(
    status: int, name: str, message: str, headers: Mapping[str, str] | None = None
) -> Answer:
    return in_json(status, {"statusCode": status, "name": name, "message": message}, headers)


_BUSY = _error(
    409,
    "concurrent_idempotent_requests",
    "Same idempotency key used while original request is still in progress.",
)
