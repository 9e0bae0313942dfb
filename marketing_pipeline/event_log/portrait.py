"""What the log knows of one person at this moment."""

from collections.abc import Mapping
from typing import Any

from psycopg import AsyncConnection

from marketing_pipeline.domain import person
from marketing_pipeline.domain.person import LeadFact
from marketing_pipeline.event_log import queries

_SQL = queries.load("portrait.sql")


async def attributes(conn: AsyncConnection, address: str) -> Mapping[str, Any] | None:
    """As a campaign that is planned now would see them; None where nothing was said of anybody."""
    rows = await (await conn.execute(_SQL["said of"], {"address": address})).fetchall()
    for member in person.fold(LeadFact(*row) for row in rows):
        return member.attributes
    return None
