"""A template by content."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A mail before its variables, as it was used; `hash` is of all the rest of it."""

    hash: str
    name: str
    subject: str
    html: str
    preheader: str | None = None  # what inboxes show after the subject
