"""What a payload may hold: that which is stored and read back exactly as it was sent."""

import re
from dataclasses import dataclass
from typing import Any

from marketing_pipeline.domain import digest

MAX_SIZE = 256 * 1024  # bytes of the canonical form
MAX_DEPTH = 64  # objects and lists within each other; far below what any parser gives up at
UNSTORABLE = re.compile("[\x00\ud800-\udfff]")  # PostgreSQL's text has no place for these
_EXACT = 2**53  # from here on a JSON number is not the same number everywhere
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_LONGEST_PLACE = 200  # characters


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Why a payload is not taken; `place` names keys and positions, never what stands there."""

    place: str = ""
    problem: str
    remedy: str


def fingerprint(payload: dict[str, Any]) -> str | Fault:
    """SHA-256 of the canonical form, or the first fault in the way of it."""
    if fault := _fault(payload, depth=1):
        return fault
    canonical = digest.canonical(payload)
    if len(canonical) > MAX_SIZE:
        return Fault(problem=f"takes more than {MAX_SIZE} bytes", remedy="send a link instead")
    return digest.sha256(canonical)


def _fault(value: object, depth: int) -> Fault | None:
    match value:
        case None | bool():
            return None
        case str():
            return _text_fault(value)
        case int() | float():
            return _number_fault(value)
        case dict() | list() if depth > MAX_DEPTH:
            return Fault(problem=f"is nested more than {MAX_DEPTH} deep", remedy="send it flatter")
        case dict():
            return _object_fault(value, depth)
        case list():
            for position, item in enumerate(value):
                if fault := _fault(item, depth + 1):
                    return _within(f"[{position}]", fault)
            return None
        case _:
            return Fault(problem="is no JSON value", remedy="send what JSON can express")


def _object_fault(value: dict[Any, Any], depth: int) -> Fault | None:
    for key, item in value.items():
        if not isinstance(key, str):
            return Fault(problem="has a name that is no string", remedy="send a JSON object")
        if fault := _text_fault(key) or _fault(item, depth + 1):
            return _within(f".{shown(key)}", fault)
    return None


def _text_fault(text: str) -> Fault | None:
    if UNSTORABLE.search(text) is None:
        return None
    return Fault(
        problem="holds U+0000 or a lone surrogate, which cannot be stored", remedy="leave it out"
    )


def _number_fault(number: float) -> Fault | None:
    """Refused from 2**53 on, as a float too: PostgreSQL gives 1e16 back as an integer."""
    if -_EXACT < number < _EXACT:  # NaN is not
        return None
    return Fault(problem="is not a number between -2^53 and 2^53", remedy="send it as a string")


def _within(place: str, fault: Fault) -> Fault:
    return Fault(
        place=f"{place}{fault.place}"[:_LONGEST_PLACE], problem=fault.problem, remedy=fault.remedy
    )


def shown(key: str) -> str:
    """A key fit for a message: one that is no plain name could be somebody's address."""
    return key if _NAME.fullmatch(key) else "*"
