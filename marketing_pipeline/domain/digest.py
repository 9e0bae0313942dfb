"""One canonical form, and the digests and identities taken over it."""

import hashlib
from collections.abc import Iterable
from contextlib import suppress
from types import NoneType
from uuid import UUID

import orjson
import rfc8785

NAMESPACE = UUID("5f0ff3a5-6d5c-5c1e-9a53-6f2f4f0c8a51")  # ours; every identity below hangs on it
_NAMESPACE = NAMESPACE.bytes
_SCALARS = frozenset({str, int, bool, NoneType})
_AS_RFC_8785 = orjson.OPT_SORT_KEYS | orjson.OPT_STRICT_INTEGER


def canonical(value: object) -> bytes:
    """The RFC 8785 form of a JSON value.

    rfc8785 alone takes three to five times as long, which was a twentieth of a delivery.

    Raises:
        ValueError: the value holds what RFC 8785 cannot express, such as an integer
            beyond 2**53 or a lone surrogate.
    """
    if _is_common(value):
        with suppress(orjson.JSONEncodeError):  # rfc8785 says why
            return orjson.dumps(value, option=_AS_RFC_8785)
    try:
        return rfc8785.dumps(value)  # type: ignore[arg-type]  # its type is narrower than what it takes
    except rfc8785.CanonicalizationError as error:
        raise ValueError(str(error)) from error


def _is_common(value: object) -> bool:
    """Does orjson write it as RFC 8785 does? Not a float, which it spells otherwise, nor keys that
    it may sort otherwise: by code point, where RFC 8785 has UTF-16."""
    if type(value) in _SCALARS:
        return True
    if isinstance(value, dict):
        return all(map(_is_plain_key, value)) and all(map(_is_common, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_common, value))
    return isinstance(value, str)  # a member of an enumeration


def _is_plain_key(key: object) -> bool:
    return isinstance(key, str) and key.isascii()


def sha256(value: bytes) -> str:
    return hashlib.sha256(value).hexdigest()


def fingerprint(value: object) -> str:
    """SHA-256 of the canonical form, 64 hexadecimal digits."""
    return sha256(canonical(value))


def identity(*parts: object) -> UUID:
    """The UUIDv5 that names these parts, the same on every machine.

    As `uuid.uuid5` makes it, which takes twice as long: a tenth of what ingest did for a batch.
    """
    name = canonical([_plain(part) for part in parts])
    named = hashlib.sha1(_NAMESPACE + name, usedforsecurity=False).digest()
    return UUID(bytes=named[:16], version=5)


def running(lines: Iterable[object]) -> str:
    """SHA-256 over the canonical form of each line, in the order given; each ends with LF."""
    total = hashlib.sha256()
    for line in lines:
        total.update(canonical(line))
        total.update(b"\n")
    return total.hexdigest()


def fraction(*parts: object) -> float:
    """A number in [0, 1) derived from the parts: chance that a replay repeats."""
    return (
        int.from_bytes(hashlib.sha256(canonical([_plain(p) for p in parts])).digest()[:7]) / 2**56
    )


def _plain(part: object) -> object:
    return str(part) if isinstance(part, UUID) else part
