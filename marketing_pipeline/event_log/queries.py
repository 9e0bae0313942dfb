"""Named blocks of an .sql file that stands beside its module, and what they give."""

import re
from collections.abc import Mapping
from importlib import resources
from typing import Any, LiteralString, cast

from psycopg import AsyncConnection
from psycopg.rows import dict_row

_NAME = re.compile(r"^-- ([a-z_ ]+) --$", re.MULTILINE)


def load(file: str) -> dict[str, LiteralString]:
    """Blocks by name: each starts at a line `-- name --`, then one sentence, then the query."""
    text = resources.files("marketing_pipeline.event_log").joinpath(file).read_text("utf-8")
    parts = _NAME.split(text)[1:]
    return {
        name: cast(LiteralString, query.strip())  # our own file, not anybody's input
        for name, query in zip(parts[::2], parts[1::2], strict=True)
    }


async def rows(
    conn: AsyncConnection, query: LiteralString, values: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """All that a query gives, by column."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(query, values)
        return await cursor.fetchall()


async def row(
    conn: AsyncConnection, query: LiteralString, values: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The first of it, where there is one."""
    found = await rows(conn, query, values)
    return found[0] if found else None
