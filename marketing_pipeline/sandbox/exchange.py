"""What a request, an order and an answer are to every provider in this room."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol
from uuid import NAMESPACE_URL, UUID, uuid5

from marketing_pipeline.sandbox.limits import Allowance
from marketing_pipeline.sandbox.record import Record

_ADDRESS = re.compile(r"[^@\s<>,;:]+@[^@\s<>,;:.]+(\.[^@\s<>,;:.]+)+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A path of a provider, relative to its prefix."""

    method: str
    path: str
    operation: str | None  # None: the path's {name} says it


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request, fully read."""

    number: int  # its place in the record, from 1
    at: datetime  # when it had been read
    operation: str
    parameters: Mapping[str, str]  # of the path
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    path: str  # with the provider's prefix

    def digest(self) -> str:
        return hashlib.sha256(self.body).hexdigest()

    def derived_id(self) -> UUID:
        """An id that is this call's alone, and not drawn from chance."""
        return uuid5(NAMESPACE_URL, f"sandbox:{self.number}:{self.at.timestamp()}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    status: int
    body: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a call asks for: reading it does nothing yet, so that a fault can come in between."""

    key: str | None  # the effect's identity as this provider sees it
    perform: Callable[[Record], Answer]
    busy: Answer | None = None  # said while the same key is in flight; None: it does not look


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the control API may change while the sandbox runs."""

    mailgun_index_delay: timedelta = timedelta(seconds=0.5)
    latency: Mapping[str, timedelta] = field(default_factory=dict)  # by provider
    keys: Mapping[str, str] = field(default_factory=dict)  # the one good API key; absent: any


class Provider(Protocol):
    """What each provider's module answers, in that provider's own words."""

    @property
    def ROUTES(self) -> tuple[Route, ...]: ...

    def read(self, call: Call, settings: Settings, /) -> Order:
        """The order in a request to one of ROUTES, refusals included."""
        ...

    def throttled(self, call: Call, after: timedelta, /) -> Answer: ...

    @property
    def exhausted(self) -> Callable[[Call], Answer] | None:
        """The answer when a quota is used up, where the provider documents one."""
        ...

    def failed(self, call: Call, /) -> Answer: ...

    def unknown(self, call: Call, /) -> Answer:
        """The answer on a path that the provider, or this stand-in, does not have."""
        ...

    def limit_headers(self, allowance: Allowance, /) -> Mapping[str, str]: ...


def in_json(status: int, document: object, headers: Mapping[str, str] | None = None) -> Answer:
    body = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    return Answer(status=status, body=body, headers=headers or {})


def refusal(answer: Answer, key: str | None = None) -> Order:
    return Order(key=key, perform=lambda _: answer)


def parsed(body: bytes) -> object:
    """The JSON document in a body, or None where it holds none."""
    try:
        return json.loads(body)
    except ValueError:  # UnicodeDecodeError is one, too
        return None


def bearer(call: Call) -> str:
    """The token of an Authorization header, or an empty string."""
    scheme, _, token = call.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def mailbox(text: str) -> str:
    """The address in `a@b.org` or `Name <a@b.org>`, the two forms that the providers document.

    email.utils reads all of RFC 5322, and took a quarter of the time of a call.
    """
    _, opened, rest = text.strip().rpartition("<")
    return rest.removesuffix(">") if opened and rest.endswith(">") else text.strip()


def is_address(text: str) -> bool:
    """Whether it is a bare e-mail address; looser than RFC 5321, as the providers are."""
    return _ADDRESS.fullmatch(text) is not None


def whole_seconds(duration: timedelta) -> int:
    """Rounded up and at least 1: a client told "0" would come back at once."""
    return max(1, -(-duration // timedelta(seconds=1)))
