"""What an examination of one part says."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What was found of one part."""

    part: str
    passed: bool
    finding: str
    remedy: str = ""  # how to mend it; shown where it has not passed, or is a note
    note: bool = False  # it has passed, and somebody should know
