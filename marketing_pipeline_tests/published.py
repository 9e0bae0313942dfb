"""The providers' published contracts, and outgoing bytes held against them."""

from collections.abc import Mapping
from email.parser import BytesParser
from email.policy import HTTP
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import jsonschema  # type: ignore[import-untyped]  # it ships no types
import yaml
from openapi_core import OpenAPI
from openapi_core.testing import MockRequest

SPECS = Path(__file__).with_name("specs")


@cache
def contract(file: str) -> Mapping[str, Any]:
    """A description under specs/, e.g. `resend/resend.yaml`."""
    loaded: Mapping[str, Any] = yaml.load(
        (SPECS / file).read_text(encoding="utf-8"),
        Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader),  # noqa: S506 - both are safe
    )
    return loaded


@cache
def _api(file: str) -> OpenAPI:
    return OpenAPI.from_dict(contract(file))


def violations(request: httpx.Request, file: str) -> list[str]:
    """What the description does not allow, by openapi-core; it does not look into multipart."""
    mock = MockRequest(
        host_url=f"{request.url.scheme}://{request.url.host}",
        method=request.method,
        path=request.url.path,
        args=dict(request.url.params),
        headers=dict(request.headers),
        data=request.content,
        content_type=request.headers.get("content-type", ""),
    )
    errors = _api(file).iter_request_errors(mock)
    return [f"{type(error).__name__}: {error.__cause__ or error}" for error in errors]


def fields(request: httpx.Request) -> dict[str, list[str]]:
    """A multipart form as the standard library's mail parser reads it."""
    head = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode()
    message = BytesParser(policy=HTTP).parsebytes(head + request.content)
    assert message.is_multipart(), "this is no multipart body"
    assert not message.defects, message.defects
    found: dict[str, list[str]] = {}
    for part in message.iter_parts():
        assert part.get_content_disposition() == "form-data"
        name = part.get_param("name", header="content-disposition")
        content = part.get_payload(decode=True)
        assert isinstance(content, bytes)
        found.setdefault(str(name), []).append(content.decode())
    return found


def form_violations(form: Mapping[str, list[str]], schema: Mapping[str, Any]) -> list[str]:
    """The parsed form against the schema of its body."""
    known = schema["properties"]
    document = {
        name: values if known.get(name, {}).get("type") == "array" else values[0]
        for name, values in form.items()
    }
    validator = jsonschema.Draft202012Validator(schema)
    return [error.message for error in validator.iter_errors(document)]


def notice_violations(document: Mapping[str, Any], file: str) -> list[str]:
    """A webhook's document against the schema that the description has for its type."""
    components = contract(file)["components"]
    [schema] = [
        one
        for one in components["schemas"].values()
        if one.get("properties", {}).get("type", {}).get("const") == document["type"]
    ]
    validator = jsonschema.Draft202012Validator({**schema, "components": components})
    return [error.message for error in validator.iter_errors(document)]
