"""One canonical form, and the digests and identities taken over it."""

import hashlib
from collections.abc import Iterable
from uuid import UUID, uuid5

import rfc8785

NAMESPACE = UUID("5f0ff3a5-6d5c-5c1e-9a53-6f2f4f0c8a51")  # ours; every identity below hangs on it


def canonical(value: object) -> bytes:
    """The RFC 8785 form of a JSON value.

    Raises:
        ValueError: the value holds what RFC 8785 cannot express, such as an integer
            beyond 2**53 or a lone surrogate.
    """
    try:
        return rfc8785.dumps(value)  # type: ignore[arg-type]  # its type is narrower than what it takes
    except rfc8785.CanonicalizationError as error:
        raise ValueError(str(error)) from error


def sha256(value: bytes) -> str:
    return hashlib.sha256(value).hexdigest()


def fingerprint(value: object) -> str:
    """SHA-256 of the canonical form, 64 hexadecimal digits."""
    return sha256(canonical(value))


def identity(*parts: object) -> UUID:
    """The UUIDv5 that names these parts, the same on every machine."""
    return uuid5(NAMESPACE, canonical([_plain(part) for part in parts]).decode())


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
