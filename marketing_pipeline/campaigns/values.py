"""Values of the operator's file as people write them: 10s, 30d, 10%."""

import re
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
)

from marketing_pipeline.domain.rules import Once

_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*%")
_LONGEST = timedelta(days=36500)
_EXACT = 2**53  # from here on a JSON number is not the same number everywhere
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


def span(value: object) -> timedelta:
    """A duration as people write it: 500ms, 10s, 15m, 24h, 30d."""
    if isinstance(value, timedelta):
        return value
    match = _SPAN.fullmatch(value.strip()) if isinstance(value, str) else None
    if not match:
        raise ValueError(f"{value!r} is no duration; write a number and ms, s, m, h or d: 10s")
    seconds = float(match[1]) * _UNITS[match[2]]
    if seconds > _LONGEST.total_seconds():  # a date so much earlier or later may be none
        raise ValueError(f"is longer than a hundred years; write {written(_LONGEST)} or less")
    return timedelta(seconds=seconds)


def how_often(value: object) -> Once | None:
    """How often a person gets a step: `event`, `recipient`, or `recipient/30d`."""
    if value == "event":
        return None  # an effect's identity sees to that
    unit, _, within = value.partition("/") if isinstance(value, str) else ("", "", "")
    if unit != "recipient":
        raise ValueError(f"{value!r} is not known; write event, recipient or recipient/30d")
    return Once(within=span(within) if within else None)


def how_late(value: object) -> object:
    """How late a step may still be done: a duration, or `never` too late."""
    return value if value == "never" else span(value)


def lately(value: object) -> timedelta | None:
    """How lately something was done: a duration before now, or `ever`."""
    return None if value == "ever" else span(value)


def share(value: object) -> float:
    """A share as people write it: 10%, or 0.1."""
    match = _PERCENT.fullmatch(value.strip()) if isinstance(value, str) else None
    number = float(match[1]) / 100 if match else value
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number <= 1:
        raise ValueError(f"{value!r} is no share; write 10% or 0.1")
    return float(number)


def texts(value: object) -> object:
    """A list of texts, or one alone."""
    return (value,) if isinstance(value, str) else value


def written(value: timedelta) -> str:
    """A duration as people write it, in the largest unit that it is a whole number of."""
    units = reversed(_UNITS.items())
    name, unit = next((n, u) for n, u in units if value % timedelta(seconds=u) == timedelta(0))
    return f"{value // timedelta(seconds=unit)}{name}"


def condition(value: object) -> object:
    """What an attribute has to be: a text, a number, true or false, or one of a list of them.

    Only what a payload can hold, which can be stored and read back exactly.
    """
    for one in value if isinstance(value, list | tuple) else (value,):
        if one is None:
            raise ValueError("is empty; write what it is, or leave it out")
        if not isinstance(one, str | int | float):
            raise ValueError("is no text, number, true or false, nor a list of them; quote it")
        if not isinstance(one, str) and not -_EXACT < one < _EXACT:  # NaN is not
            raise ValueError("is no number between -2^53 and 2^53; write it as a text, in quotes")
    return value


def option(value: object) -> object:
    """What an adapter may be told: as of an attribute, or a secret as `{env: NAME}`."""
    if isinstance(value, dict):
        if set(value) != {"env"}:
            raise ValueError("has keys of its own; write a value, or {env: NAME} for a secret")
        return value
    return condition(value)


def _schema(description: str, *patterns: str) -> WithJsonSchema:
    either = "|".join(patterns)
    return WithJsonSchema(
        {"type": "string", "pattern": f"^({either})$", "description": description}
    )


_LENGTH = r"[0-9]+(\.[0-9]+)?\s*(ms|s|m|h|d)"
_SHARE: dict[str, Any] = {
    "anyOf": [
        {"type": "number", "minimum": 0, "maximum": 1},
        {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?\s*%$"},
    ],
    "description": "A share: 10%, or 0.1.",
}
_TEXTS: dict[str, Any] = {
    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
    "description": "A list of texts, or one alone.",
}

Span = Annotated[
    timedelta,
    BeforeValidator(span),
    _schema("A duration: 500ms, 10s, 15m, 24h or 30d.", _LENGTH),
]
Lately = Annotated[
    timedelta | None,
    BeforeValidator(lately),
    _schema("A duration before now, such as 30d; or `ever`.", _LENGTH, "ever"),
]
Lateness = Annotated[
    timedelta | Literal["never"] | None,
    BeforeValidator(how_late),
    _schema("A duration, such as 24h; or `never` too late.", _LENGTH, "never"),
]
Often = Annotated[
    Once | None,
    BeforeValidator(how_often),
    _schema(
        "How often a person gets it: `event` (for each), `recipient` (once), `recipient/30d`.",
        "event", "recipient", f"recipient/{_LENGTH}",
    ),
]  # fmt: skip
LocalTime = Annotated[
    datetime,
    _schema(
        "A local time without an offset: 2030-12-01T09:00.", r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:00)?"
    ),
]
Share = Annotated[float, BeforeValidator(share), WithJsonSchema(_SHARE)]
Texts = Annotated[tuple[str, ...], BeforeValidator(texts), WithJsonSchema(_TEXTS)]
Value = str | int | float | bool
Condition = Annotated[Value | tuple[Value, ...], BeforeValidator(condition)]
Option = Annotated[Any, BeforeValidator(option)]
Urgency = Literal["urgent", "normal", "bulk"]
NAME = r"^[a-z][a-z0-9_]{0,39}$"
Name = Annotated[str, Field(pattern=NAME)]


class Strict(BaseModel):
    """Refuses what it does not know: a misspelt key must not be ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Window(Strict):
    """A limit that the provider sets: so many calls in any span of this length."""

    calls: int = Field(gt=0)
    per: Span = Field(gt=timedelta(0))
