"""Waiting for what another thread, process or server is about to do."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, LiteralString

from psycopg import AsyncConnection

A_COLD_DAGSTER = 60.0  # seconds; on a busy small machine it takes 20


def until(
    holds: Callable[[], object],
    otherwise: str | Callable[[], object] = "it did not come to that",
    *,
    seconds: float = 20,
    every: float = 0.05,
    despite: tuple[type[Exception], ...] = (),
) -> None:
    """Wait until something holds.

    otherwise: what is wrong if it never does, or who is asked for it then.
    despite: what asking may raise before there is anybody to answer.

    Raises:
        AssertionError: it did not come about in that time.
    """
    ends = time.monotonic() + seconds
    while True:
        raised = None
        try:
            if holds():
                return
        except despite as error:
            raised = error
        if time.monotonic() >= ends:
            reason = otherwise() if callable(otherwise) else otherwise
            raise AssertionError(f"after {seconds:.0f} s: {reason}") from raised
        time.sleep(every)


async def until_true(conn: AsyncConnection[Any], query: LiteralString, seconds: float = 10) -> None:
    """Wait until a query answers with true.

    Raises:
        TimeoutError: it did not in that time.
    """
    async with asyncio.timeout(seconds):
        while True:
            row = await (await conn.execute(query)).fetchone()
            if row and row[0]:
                return
            await asyncio.sleep(0.01)
