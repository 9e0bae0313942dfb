"""What a test needs that has a person decide: an effect nobody knows of, and the command line."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import psycopg

from marketing_pipeline import settings
from marketing_pipeline_tests.pipeline import CHECKOUT, lead, record, run

T = TypeVar("T")
Ran = subprocess.CompletedProcess[str]


def ask(database: str, question: Callable[[psycopg.AsyncConnection], Awaitable[T]]) -> T:
    async def asked() -> T:
        async with await psycopg.AsyncConnection.connect(database, autocommit=True) as conn:
            return await question(conn)

    return asyncio.run(asked())


def rows(database: str, query: str, *values: object) -> list[Any]:
    with psycopg.connect(database) as conn:
        return conn.execute(query.encode(), values or None).fetchall()


def forgotten(used: settings.Settings, number: int = 1) -> UUID:
    """A welcome mail that was sent, and whose answer is made to be unknown."""
    assert used.database_url is not None
    record(used.database_url, [lead(number)])
    run(used)
    with psycopg.connect(used.database_url) as conn:
        conn.execute("set session_replication_role = replica")  # no trigger refuses it
        row = conn.execute(
            """update effects e set state = 'UNKNOWN', doubt_since = first_attempt_at,
                   provider_ref = null, claim_id = null,
                   last_error = 'no clear answer about p1@example.com',
                   expires_at = clock_timestamp() - interval '1 second'
               from recipients r
               where r.id = e.recipient_id and r.address = %s and e.kind = 'email'
               returning e.id""",
            [f"p{number}@example.com"],
        ).fetchone()
        conn.execute(
            """update marketing_events m set status = 'PROCESSING' from effects e
               where e.event_id = m.id and e.state = 'UNKNOWN'"""
        )
    assert row is not None
    return UUID(str(row[0]))


def command(used: settings.Settings, state: Path, *words: str, stdin: int | None = None) -> Ran:
    """Run the command line as this installation's operator does."""
    usual = {
        "PATH": os.environ["PATH"],
        "DAGSTER_HOME": str(CHECKOUT),
        "MARKETING_STATE": str(state),
        "LOGNAME": "operator",
    }
    return subprocess.run(
        [sys.executable, "-m", "marketing_pipeline", *words],
        env=usual | dict(used.environment),
        stdin=subprocess.DEVNULL if stdin is None else stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
