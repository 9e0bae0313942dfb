"""Keeps a person from being reached any more."""

from datetime import UTC, datetime

import psycopg
from rich.console import Console

from marketing_pipeline.cli import asking
from marketing_pipeline.cli.refusal import refuse
from marketing_pipeline.event_log import ledger

SCOPES = ("all", "email", "contact")


def suppress(console: Console, address: str, why: str, scope: str) -> None:
    """Record the suppression under the person's lock: a claim sees it, or has committed before.

    Raises:
        SystemExit: nobody in the log has this address, or the scope is not known.
    """
    if scope not in SCOPES:
        refuse(f"--scope {scope!r} is not known; write one of {', '.join(SCOPES)}")
    if not why.strip():
        refuse("--why is empty; say who asked for it, and where")

    async def record(conn: psycopg.AsyncConnection) -> bool:
        async with conn.transaction():
            person = await ledger.recipient(conn, address)
            if person is not None:
                await ledger.suppress(conn, person, scope, why, datetime.now(UTC))
            return person is not None

    if not asking.ask(record):
        refuse("nobody in the log has this address; it is known once a lead has come with it")
    console.print("no attempt for this person starts from now on")
