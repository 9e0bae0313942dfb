"""Attempts, for tests that claim and settle by hand."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from psycopg import AsyncConnection

from marketing_pipeline.event_log import queries, rows
from marketing_pipeline.event_log.ledger import Candidate, NewAttempt, Purpose, Settlement


def attempts(found: Iterable[Candidate], lease: timedelta, **said: Any) -> list[NewAttempt]:
    """As a claim puts them on record: one to send each, unless something else is said."""
    usual: dict[str, Any] = {
        "purpose": Purpose.SEND,
        "request_sha256": "c" * 64,
        "request_body": None,
        "setup": "s",
        "lease": lease,
    }
    return [NewAttempt(effect_id=one.id, **(usual | said)) for one in found]


async def settle_openly(conn: AsyncConnection, settlement: Settlement) -> None:
    """Settle in a transaction that stays open, as a settler does that has not committed yet."""
    values = {"settlements": rows.document([settlement]), "now": datetime.now(UTC)}
    found = await conn.execute(queries.load("ledger.sql")["settle"], values)
    assert found.rowcount == 1, "its claim holds"
