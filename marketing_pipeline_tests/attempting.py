"""Attempts as a claim puts them on record, for tests that claim by hand."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from marketing_pipeline.event_log.ledger import Candidate, NewAttempt, Purpose


def attempts(found: Iterable[Candidate], lease: timedelta, **said: Any) -> list[NewAttempt]:
    """One to send each, unless something else is said."""
    usual: dict[str, Any] = {
        "purpose": Purpose.SEND,
        "request_sha256": "c" * 64,
        "request_body": None,
        "setup": "s",
        "lease": lease,
    }
    return [NewAttempt(effect_id=one.id, **(usual | said)) for one in found]
