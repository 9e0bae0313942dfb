"""A template by content."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A mail before its variables, as it was used; `hash` is of name, subject and HTML."""

    hash: str
    name: str
    subject: str
    html: str
