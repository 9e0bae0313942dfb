"""Values of the operator's file as people write them: 10s, 30d, 10%."""

import re
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from marketing_pipeline.domain.rules import Once

_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*%")
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


def span(value: object) -> timedelta:
    """A duration as people write it: 500ms, 10s, 15m, 24h, 30d."""
    if isinstance(value, timedelta):
        return value
    match = _SPAN.fullmatch(value.strip()) if isinstance(value, str) else None
    if not match:
        raise ValueError(f"{value!r} is no duration; write a number and ms, s, m, h or d: 10s")
    return timedelta(seconds=float(match[1]) * _UNITS[match[2]])


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


Span = Annotated[timedelta, BeforeValidator(span)]
Lately = Annotated[timedelta | None, BeforeValidator(lately)]
Share = Annotated[float, BeforeValidator(share)]
Texts = Annotated[tuple[str, ...], BeforeValidator(texts)]
Value = str | int | float | bool
Urgency = Literal["urgent", "normal", "bulk"]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]


class Strict(BaseModel):
    """Refuses what it does not know: a misspelt key must not be ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Window(Strict):
    """A limit that the provider sets: so many calls in any span of this length."""

    calls: int = Field(gt=0)
    per: Span = Field(gt=timedelta(0))
