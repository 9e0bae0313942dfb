"""Reading what a provider answered without trusting its form."""

import base64
from collections.abc import Mapping
from typing import Any

import httpx

from marketing_pipeline import telemetry

LONGEST = 300  # characters of a reason
_READ = 4096  # characters of a body that are looked at for one


def document(response: httpx.Response) -> Mapping[str, Any]:
    """The body's JSON object; empty where it holds none."""
    try:
        value = response.json()
    except (ValueError, RecursionError):  # no JSON, no text, or nested without end
        return {}
    return value if isinstance(value, dict) else {}


def text(value: object) -> str:
    """The value where it is a string, else an empty one."""
    return value if isinstance(value, str) else ""


def words(response: httpx.Response, *parts: object) -> str:
    """A reason: the status and the provider's own words, else the beginning of the body.

    Without addresses and without the credential that the request carried, in case it was echoed.
    """
    said = " ".join(part for part in map(text, parts) if part)
    if not said:
        body = response.content[:_READ].decode("utf-8", "replace")
        # What a cut leaves of an address is no longer seen as one.
        said = body.rpartition(" ")[0] if len(response.content) > _READ else body
    for secret in _secrets(response.request):
        said = said.replace(secret, "[secret]")
    said = " ".join(telemetry.redact(said).split())
    return f"{response.status_code} {said}".strip()[:LONGEST]


def _secrets(request: httpx.Request) -> list[str]:
    scheme, _, credential = request.headers.get("authorization", "").partition(" ")
    if scheme == "Basic":
        return [credential, base64.b64decode(credential).decode().partition(":")[2]]
    return [credential] if credential else []
