"""Versions of the operator's file and templates: each one that was used is kept by its hash."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from marketing_pipeline.domain.template import Template
from marketing_pipeline.event_log import queries

_SQL = queries.load("versions.sql")


async def keep_config(
    conn: AsyncConnection, digest: str, body: Mapping[str, Any], now: datetime
) -> None:
    values = {"digest": digest, "body": Jsonb(body), "now": now}
    await conn.execute(_SQL["keep config"], values)


async def use_config(conn: AsyncConnection, digest: str, now: datetime) -> None:
    """Remember that plans are made by this version from now on; time travel reads it."""
    await conn.execute(_SQL["use config"], {"digest": digest, "now": now})


async def keep_template(conn: AsyncConnection, template: Template, now: datetime) -> None:
    await conn.execute(_SQL["keep template"], {**asdict(template), "now": now})


async def config(conn: AsyncConnection, digest: str) -> Mapping[str, Any]:
    """A version of the operator's file; every plan's is kept."""
    row = await (await conn.execute(_SQL["config"], {"digest": digest})).fetchone()
    assert row is not None, "plans reference their configuration"
    body: Mapping[str, Any] = row[0]
    return body


async def templates(conn: AsyncConnection, hashes: Sequence[str]) -> list[Template]:
    async with conn.cursor(row_factory=class_row(Template)) as cursor:
        await cursor.execute(_SQL["templates"], {"hashes": list(hashes)})
        return await cursor.fetchall()
