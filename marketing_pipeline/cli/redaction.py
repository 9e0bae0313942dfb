"""Keeps addresses out of what is shown, but for the one that somebody asked for."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from marketing_pipeline import telemetry


@dataclass(frozen=True, slots=True, kw_only=True)
class Redaction:
    """`asked` is an address that the operator knows already: it is shown."""

    asked: str | None = None

    def text(self, value: str) -> str:
        if self.asked is None:
            return telemetry.redact(value)
        # The whole address alone: what merely ends or goes on like it is somebody else's.
        whole = rf"(?<![^\s<>\"'(,;:]){re.escape(self.asked)}(?![^\s<>\"'),;:])"
        parts = re.split(whole, value, flags=re.IGNORECASE)
        return self.asked.join(telemetry.redact(part) for part in parts)

    def value(self, value: object) -> object:
        """What JSON can hold of it, redacted."""
        match value:
            case None | bool() | int() | float():
                return value
            case datetime() | date():
                return value.isoformat()
            case Mapping():
                return {str(key): self.value(item) for key, item in value.items()}
            case Sequence() if not isinstance(value, str | bytes):
                return [self.value(item) for item in value]
            case _:
                return self.text(str(value))
