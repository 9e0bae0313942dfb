"""HubSpot: contacts, upserted in batches by e-mail address."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TypedDict, TypeGuard

from marketing_pipeline.sandbox.exchange import (
    Answer,
    Call,
    Order,
    Route,
    Settings,
    bearer,
    in_json,
    is_address,
    parsed,
    refusal,
)
from marketing_pipeline.sandbox.limits import Allowance
from marketing_pipeline.sandbox.record import Contact, Kept, Record

ROUTES = (Route(method="POST", path="/crm/v3/objects/contacts/batch/upsert", operation="upsert"),)
MOST_INPUTS = 100


class Input(TypedDict, total=False):
    id: str
    idProperty: str
    properties: dict[str, str]
    objectWriteTraceId: str


def read(call: Call, settings: Settings) -> Order:
    document = parsed(call.body)
    inputs = document.get("inputs") if isinstance(document, dict) else None
    key = _key(inputs)
    token = bearer(call)
    if not token or token != settings.keys.get("hubspot", token):
        text = "Authentication credentials not found or not valid."
        return refusal(_error(call, 401, "INVALID_AUTHENTICATION", text), key)
    if not call.headers.get("Content-Type", "").startswith("application/json"):
        text = "Unsupported media type: send application/json."
        return refusal(_error(call, 415, "VALIDATION_ERROR", text), key)
    if not _is_batch(inputs):
        return refusal(_error(call, 400, "VALIDATION_ERROR", _flaw(inputs)), key)
    problem = _conflict(inputs)
    if problem is not None:
        return refusal(_error(call, 400, "VALIDATION_ERROR", problem), key)
    return Order(key=key, perform=partial(_upsert, call, inputs))


def throttled(call: Call, _after: timedelta) -> Answer:
    """No Retry-After: HubSpot documents none on a 429, only the window in the rate headers."""
    return _limited(call, "TEN_SECONDLY_ROLLING", "ten_secondly_rolling")


def exhausted(call: Call) -> Answer:
    return _limited(call, "DAILY", "daily")


def failed(call: Call) -> Answer:
    return _error(call, 500, "INTERNAL_ERROR", "internal error")


def unknown(call: Call) -> Answer:
    return _error(call, 404, "OBJECT_NOT_FOUND", f"No such resource: {call.path}")


def limit_headers(allowance: Allowance) -> Mapping[str, str]:
    """The interval is the window's length and not a time of reset."""
    return {
        "X-HubSpot-RateLimit-Max": str(allowance.limit.calls),
        "X-HubSpot-RateLimit-Remaining": str(allowance.remaining),
        "X-HubSpot-RateLimit-Interval-Milliseconds": str(
            allowance.limit.window // timedelta(milliseconds=1)
        ),
    }


def _key(inputs: object) -> str | None:
    """The trace ids of a batch, joined."""
    if not isinstance(inputs, list):
        return None
    traces = [entry.get("objectWriteTraceId") for entry in inputs if isinstance(entry, dict)]
    return ",".join(trace for trace in traces if isinstance(trace, str)) or None


def _is_batch(inputs: object) -> TypeGuard[list[Input]]:
    return (
        isinstance(inputs, list)
        and 1 <= len(inputs) <= MOST_INPUTS
        and all(_input_flaw(entry) is None for entry in inputs)
    )


def _flaw(inputs: object) -> str:
    if not isinstance(inputs, list):
        return "Invalid input JSON: some required fields were not set: [inputs]"
    if not inputs:
        return "inputs: must have at least one entry"
    if len(inputs) > MOST_INPUTS:
        return f"inputs: {len(inputs)} entries, the most in one batch is {MOST_INPUTS}"
    flaws = ((index, _input_flaw(entry)) for index, entry in enumerate(inputs))
    index, flaw = next(pair for pair in flaws if pair[1] is not None)
    return f"inputs[{index}].{flaw}"


def _input_flaw(entry: object) -> str | None:
    if not isinstance(entry, dict):
        return "*: must be an object"
    properties = entry.get("properties")
    if not isinstance(entry.get("id"), str) or not entry["id"]:
        return "id: must be a string with the contact's e-mail address"
    if entry.get("idProperty") != "email":
        return "idProperty: must be 'email', the unique property of contacts"
    if not isinstance(properties, dict):
        return "properties: must be an object of strings"
    if not all(isinstance(value, str) for value in properties.values()):
        return "properties: every value must be a string"
    if not isinstance(entry.get("objectWriteTraceId", ""), str):
        return "objectWriteTraceId: must be a string"
    return None


def _conflict(inputs: Sequence[Input]) -> str | None:
    """What makes a batch of sound inputs unacceptable as a whole.

    Multi-status answers exist only where every input can be told apart by its trace id; without
    them one bad input fails the batch (developers.hubspot.com, error handling).
    """
    ids = [entry["id"].lower() for entry in inputs]
    twice = sorted({value for value in ids if ids.count(value) > 1})
    if twice:
        return f"Duplicate IDs found in batch input: {twice}. IDs must be unique"
    traces = [entry["objectWriteTraceId"] for entry in inputs if entry.get("objectWriteTraceId")]
    if len(set(traces)) < len(traces):
        return "objectWriteTraceId: must be unique within a batch"
    if len(traces) == len(inputs):
        return None
    bad = [entry["id"] for entry in inputs if not is_address(entry["id"])]
    return _invalid_email(bad[0]) if bad else None


def _upsert(call: Call, inputs: Sequence[Input], record: Record) -> Answer:
    results = [_store(call, entry, record) for entry in inputs if is_address(entry["id"])]
    errors = [_rejected(entry) for entry in inputs if not is_address(entry["id"])]
    moment = _iso(call.at)
    document: dict[str, object] = {
        "status": "COMPLETE",
        "results": results,
        "startedAt": moment,
        "completedAt": moment,
    }
    if not errors:
        return in_json(200, document)
    return in_json(207, {**document, "numErrors": len(errors), "errors": errors})


def _store(call: Call, entry: Input, record: Record) -> dict[str, object]:
    email = entry["id"].lower()
    trace = entry.get("objectWriteTraceId") or None
    contact = record.upsert_contact(email, entry["properties"], call.at)
    canonical = json.dumps([email, entry["properties"]], sort_keys=True, separators=(",", ":"))
    write = Kept(
        body_sha256=hashlib.sha256(canonical.encode()).hexdigest(),
        ref=str(contact.id),
        at=call.at,
    )
    before = record.kept("hubspot", "upsert", trace) if trace else None
    record.add_act(
        call.at,
        provider="hubspot",
        operation="upsert",
        key=trace,
        recipient=email,
        ref=write.ref,
        body_sha256=write.body_sha256,
        repeat=before is not None and before.body_sha256 == write.body_sha256,
    )
    if trace:
        record.keep("hubspot", "upsert", trace, write)
    return _result(email, trace, contact)


def _result(email: str, trace: str | None, contact: Contact) -> dict[str, object]:
    result: dict[str, object] = {
        "id": str(contact.id),
        "properties": {
            **contact.properties,
            "email": email,
            "createdate": _iso(contact.created_at),
            "lastmodifieddate": _iso(contact.updated_at),
            "hs_object_id": str(contact.id),
        },
        "createdAt": _iso(contact.created_at),
        "updatedAt": _iso(contact.updated_at),
        "archived": False,
        "new": contact.is_new,
    }
    return result if trace is None else {**result, "objectWriteTraceId": trace}


def _rejected(entry: Input) -> dict[str, object]:
    return {
        "status": "error",
        "category": "VALIDATION_ERROR",
        "message": _invalid_email(entry["id"]),
        "context": {"objectWriteTraceId": [entry["objectWriteTraceId"]]},
    }


def _invalid_email(email: str) -> str:
    detail = [
        {
            "isValid": False,
            "message": f"Email address {email} is invalid",
            "error": "INVALID_EMAIL",
            "name": "email",
        }
    ]
    return f"Property values were not valid: {json.dumps(detail, separators=(',', ':'))}"


def _limited(call: Call, policy: str, words: str) -> Answer:
    document = {
        "status": "error",
        "message": f"You have reached your {words} limit.",
        "errorType": "RATE_LIMIT",
        "correlationId": str(call.derived_id()),
        "policyName": policy,
    }
    return in_json(429, document)


def _error(call: Call, status: int, category: str, message: str) -> Answer:
    document = {
        "status": "error",
        "message": message,
        "correlationId": str(call.derived_id()),
        "category": category,
    }
    return in_json(status, document)


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
