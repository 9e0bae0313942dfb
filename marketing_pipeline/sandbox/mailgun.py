"""Mailgun: mails that nothing deduplicates; its search sees them a little later."""

import base64
import binascii
from collections.abc import Callable, Mapping
from datetime import timedelta
from email.utils import getaddresses
from functools import partial

from marketing_pipeline.sandbox import form, mailgun_events
from marketing_pipeline.sandbox.exchange import (
    Answer,
    Call,
    Order,
    Route,
    Settings,
    in_json,
    is_address,
    mailbox,
    refusal,
    whole_seconds,
)
from marketing_pipeline.sandbox.limits import Allowance
from marketing_pipeline.sandbox.record import Message, Record

ROUTES = (
    Route(method="POST", path="/v3/{domain}/messages", operation="send"),
    Route(method="GET", path="/v3/{domain}/events", operation="events"),
    Route(method="GET", path="/v3/{domain}/events/{page}", operation="events"),
)
MULTIPART = "multipart/form-data"
MOST_RECIPIENTS = 1000
MOST_OPTION_BYTES = 16 * 1024

Form = Mapping[str, list[str]]

exhausted: Callable[[Call], Answer] | None = None  # Mailgun documents no answer of that kind


def read(call: Call, settings: Settings) -> Order:
    if call.operation == "events":
        key = mailgun_events.sought(call)
        order = Order(key=key, perform=partial(mailgun_events.search, call, settings))
    else:
        order = _mail(call)
    if _is_welcome(call, settings):
        return order
    # A bare word and no JSON, whatever the documented content type says.
    forbidden = Answer(status=401, body=b"Forbidden", content_type="text/plain")
    return refusal(forbidden, order.key)


def throttled(call: Call, after: timedelta) -> Answer:
    """The wait stands in the text alone: no header of Mailgun's is documented."""
    text = (
        f"Domain {call.parameters.get('domain', '')} is not allowed to send:"
        f" account-requests-per-sec limit exceeded, try again after {whole_seconds(after)} seconds"
    )
    return in_json(429, {"message": text})


def failed(_call: Call) -> Answer:
    return in_json(500, {"message": "Internal Server Error"})


def unknown(_call: Call) -> Answer:
    return in_json(404, {"message": "Not Found"})


def limit_headers(_allowance: Allowance) -> Mapping[str, str]:
    return {}


def _is_welcome(call: Call, settings: Settings) -> bool:
    scheme, _, token = call.headers.get("Authorization", "").partition(" ")
    try:
        name, _, key = base64.b64decode(token, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return False
    wanted = settings.keys.get("mailgun", key)
    return scheme.lower() == "basic" and name == "api" and bool(key) and key == wanted


def _mail(call: Call) -> Order:
    content_type = call.headers.get("Content-Type", "")
    kind = content_type.partition(";")[0].strip().lower()
    if kind != MULTIPART:
        return refusal(_error(f"Expecting '{MULTIPART}' but got '{kind}'"))
    fields = form.fields(content_type, call.body)
    if fields is None:
        return refusal(_error("The multipart body could not be parsed"))
    filled: dict[str, list[str]] = {}
    for name, value in fields:
        filled.setdefault(_spelled(name), []).append(value)
    message_id = _message_id(call, filled)
    key = message_id.partition("@")[0]
    problem = _problem(filled)
    if problem is not None:
        return refusal(_error(problem), key)
    return Order(key=key, perform=partial(_queue, call, filled, message_id))


def _spelled(name: str) -> str:
    """Header names have no case, the other fields do."""
    return name.lower() if name[:2].lower() == "h:" else name


def _message_id(call: Call, filled: Form) -> str:
    """Ours where it reads unique@domain, else Mailgun makes one up (mailgun.js issue 394)."""
    ours = filled.get("h:message-id", [""])[0].strip().removeprefix("<").removesuffix(">")
    left, at, right = ours.partition("@")
    if left and at and right:
        return ours
    return f"{call.at:%Y%m%d%H%M%S}.{call.derived_id().hex[:16]}@{call.parameters['domain']}"


def _problem(filled: Form) -> str | None:
    for name in ("from", "to", "subject"):
        if not any(filled.get(name, ())):
            return f"{name} parameter is missing"
    if not any(name in filled for name in ("text", "html", "amp-html", "template")):
        return "Need at least one of 'text', 'html', 'amp-html' or 'template' parameters specified"
    if "html" in filled and "template" in filled:
        return "Only one parameters 'html' or 'template' is allowed"
    for name in ("from", "to", "cc", "bcc"):
        if not all(is_address(address) for address in _addresses(filled, name)):
            return f"{name} parameter is not a valid address. please check documentation"
    if len(_addresses(filled, "to")) > MOST_RECIPIENTS:
        return f"to parameter has more than {MOST_RECIPIENTS} recipients"
    options = (name for name in filled if name[:2] in ("o:", "h:", "v:", "t:"))
    if sum(len(value.encode()) for name in options for value in filled[name]) > MOST_OPTION_BYTES:
        return "Send options (parameters starting with o:, h:, v:, or t:) are limited to 16KB total"
    return None


def _addresses(filled: Form, name: str) -> list[str]:
    """A field may come several times, and may hold several addresses."""
    values = filled.get(name, [])
    if any("," in value for value in values):  # which may stand in a quoted name
        return [address for _, address in getaddresses(values)]
    return [mailbox(value) for value in values]


def _queue(call: Call, filled: Form, message_id: str, record: Record) -> Answer:
    recipients = [address for name in ("to", "cc", "bcc") for address in _addresses(filled, name)]
    record.add_act(
        call.at,
        provider="mailgun",
        operation="send",
        key=message_id.partition("@")[0],
        recipient=", ".join(recipients),
        ref=f"<{message_id}>",
        body_sha256=call.digest(),
    )
    for recipient in recipients:
        message = Message(
            at=call.at,
            domain=call.parameters["domain"],
            message_id=message_id,
            recipient=recipient,
            sender=filled["from"][0],
            subject=filled["subject"][0],
            size=len(call.body),
        )
        record.add_message(message)
    return in_json(200, {"id": f"<{message_id}>", "message": "Queued. Thank you."})


def _error(message: str) -> Answer:
    return in_json(400, {"message": message})
