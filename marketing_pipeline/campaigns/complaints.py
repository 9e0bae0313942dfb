"""What pydantic finds wrong with the operator's file, said as an operator can use it.

No value is repeated, only the names of keys: a value in the wrong place may be a secret.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from marketing_pipeline.campaigns import values
from marketing_pipeline.campaigns.checking import nearest, suggestion
from marketing_pipeline.campaigns.document import Document, Location, Problem

_SAID = {
    "string_type": "is no text; write one, a number in quotes",
    "bool_type": "is neither true nor false; write one of them",
    "string_too_short": "is empty; write a text",
    "too_short": "is empty; write at least one",
    "greater_than": "is too small; write more than {gt}",
    "greater_than_equal": "is too small; write {ge} or more",
    "less_than": "is too large; write less than {lt}",
    "less_than_equal": "is too large; write {le} or less",
} | {
    type: what
    for what, types in {
        "is no whole number; write one": ("int_type", "int_parsing", "int_from_float"),
        "is no number; write one": ("float_type", "float_parsing", "finite_number"),
        "is no list; write [one, two]": ("tuple_type", "list_type"),
        "has no keys of its own; write key: value below it": ("dict_type", "model_type"),
        "is no local time; write 2030-12-01T09:00": (
            "datetime_type", "datetime_parsing", "datetime_from_date_parsing",
        ),
    }.items()
    for type in types
}  # fmt: skip
_FORMS = {
    values.NAME: "is no name; write at most 40 small letters, digits and _, a letter first",
    r"^[A-Z]{3}$": "is no currency; write its three capital letters, such as EUR",
}


def explained(
    source: Document,
    model: type[BaseModel],
    error: ValidationError,
    at: Location = (),
    beside: Iterable[str] = (),
) -> Iterator[Problem]:
    """Each complaint about what stands at a place and was to be `model`.

    `beside` are the keys that are known there besides the model's own.
    """
    for complaint in error.errors():
        inner = tuple(part for part in complaint["loc"] if part != "[key]")
        place = (*at, *inner)
        context = complaint.get("ctx", {})
        match complaint["type"]:
            case "extra_forbidden":
                known = _known(model, inner, beside)
                text = f"is not known here; {suggestion(str(inner[-1]), known)}"
            case "missing":
                text = "is missing; write it"
                strange = source.names(place[:-1]) - _known(model, inner, beside)
                if (near := nearest(str(inner[-1]), strange)) is not None:
                    text = f"is missing; did you mean it by {near!r}? then rename that"
            case "literal_error" | "enum":
                text = _none_of(context["expected"], complaint["input"])
            case "string_pattern_mismatch":
                text = _FORMS.get(context["pattern"], f"is no {inner[-1]}; correct its spelling")
            case "too_short" if complaint["input"]:
                continue  # what is in it is wrong, and told already
            case "value_error":
                place, text = _pointed(source, place, complaint["msg"])
            case type:
                text = _SAID.get(type, complaint["msg"]).format_map(context)
        yield source.problem(place, text)


def _known(model: type[BaseModel], inner: Location, beside: Iterable[str]) -> set[str]:
    """The keys that may stand where this one does."""
    owner = _model_at(model, inner[:-1])
    return {*(owner.model_fields if owner else ()), *(beside if len(inner) == 1 else ())}


def _none_of(expected: str, value: object) -> str:
    allowed = re.findall(r"'([^']*)'", expected)
    if not allowed:
        return f"is unknown; write {expected}"
    near = nearest(str(value), allowed)
    return f"is none of {', '.join(allowed)}; write {near or 'one of them'}"


def _pointed(source: Document, at: Location, message: str) -> tuple[Location, str]:
    """Where a message begins with one of the keys there, it is of that key."""
    text = message.removeprefix("Value error, ")
    first, _, rest = text.partition(" ")
    return ((*at, first), rest) if (*at, first) in source.lines else (at, text)


def _model_at(model: type[BaseModel], at: Location) -> type[BaseModel] | None:
    """The model of what stands at a place within another; None for a mapping of free names."""
    found: type[BaseModel] | None = model
    left = list(at)
    while left and found is not None:
        field = found.model_fields.get(str(left.pop(0)))
        found, levels = _inside(field.annotation) if field else (None, 0)
        if len(left) < levels:
            return None
        del left[:levels]
    return found


def _inside(annotation: Any) -> tuple[type[BaseModel] | None, int]:
    """The model in an annotation, and how many mappings and lists it is in."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, 0
    for argument in get_args(annotation):
        model, levels = _inside(argument)
        if model is not None:
            return model, levels + (get_origin(annotation) in (dict, tuple))
    return None, 0
