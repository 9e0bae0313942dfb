"""A transaction that is sent whole, its commit included, before the first answer is read."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from psycopg import AsyncConnection, ProgrammingError
from psycopg.pq import TransactionStatus

_OPEN = frozenset({TransactionStatus.INTRANS, TransactionStatus.INERROR})


@asynccontextmanager
async def one_round_trip(conn: AsyncConnection[Any]) -> AsyncIterator[None]:
    """What is executed in this block is committed at its end; read its cursors after that.

    The server waits for no word of ours between two statements, and holds no lock meanwhile. None
    of them can depend on what another found. (`conn.transaction()` in a pipeline waits for its own
    BEGIN, and before its COMMIT.)

    Raises:
        psycopg.Error: what the server refused; nothing is committed.
        ProgrammingError: a transaction is open, or the connection would open one by itself.
    """
    if not conn.autocommit or conn.info.transaction_status in _OPEN:
        raise ProgrammingError("one round trip is a whole transaction: use an idle autocommit one")
    try:
        async with conn.pipeline():
            await conn.execute("BEGIN", prepare=False)
            yield
            await conn.execute("COMMIT", prepare=False)
    except Exception:  # a COMMIT that was on its way already has been skipped
        if conn.info.transaction_status in _OPEN:
            await conn.rollback()
        raise
