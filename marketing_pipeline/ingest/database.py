"""One connection to the log, made anew after every failure."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any

import psycopg
from psycopg import AsyncConnection

from marketing_pipeline import telemetry

PATIENCE = timedelta(seconds=5)  # how long a sender waits for the database
STATEMENT_PATIENCE = timedelta(seconds=4)  # less, so that the server can still say that it gave up
POISON = (psycopg.DataError, psycopg.IntegrityError, UnicodeError)  # the fault of what was sent


class Unavailable(Exception):
    """Nothing can be said to be recorded: the sender is to repeat it with the same key.

    That includes a commit whose answer was lost. The reason never quotes the database, which may
    quote what was sent.
    """


class Line:
    """A connection that is opened when it is first needed, and again after it broke."""

    def __init__(self, database_url: str, patience: timedelta = PATIENCE) -> None:
        self._database_url = database_url
        self._patience = patience
        self._conn: AsyncConnection[Any] | None = None
        self._lost = False

    @asynccontextmanager
    async def reached(self) -> AsyncIterator[AsyncConnection[Any]]:
        """The connection, in autocommit mode, for as long as patience lasts; then it is cut.

        (A query that is cancelled asks the server to stop, and waits for that twice five seconds.)

        Raises:
            Unavailable: the database cannot be reached, does not answer, or refuses for reasons
                of its own. What is the fault of the data (`POISON`) passes through as it is.
        """
        loop = asyncio.get_running_loop()
        ends = loop.time() + self._patience.total_seconds()
        try:
            async with asyncio.timeout_at(ends):
                conn = await self._open()
            end = loop.call_at(ends, _cut, conn)
            try:
                yield conn
            finally:
                end.cancel()
        except POISON:
            raise
        except (psycopg.Error, OSError, TimeoutError) as error:
            await self.close()
            self._report_lost(error)
            raise Unavailable("the database cannot be reached or does not answer") from None
        self._report_restored()

    async def close(self) -> None:
        conn, self._conn = self._conn, None
        if conn is not None:
            await conn.close()

    async def _open(self) -> AsyncConnection[Any]:
        if self._conn is None or self._conn.closed:
            self._conn = await AsyncConnection.connect(
                self._database_url, autocommit=True, application_name="marketing-ingest"
            )
        return self._conn

    def _report_lost(self, error: Exception) -> None:
        if not self._lost:
            code = error.sqlstate if isinstance(error, psycopg.Error) else None
            reason = type(error).__name__
            telemetry.emit("database_lost", level=logging.WARNING, reason=reason, sqlstate=code)
        self._lost = True

    def _report_restored(self) -> None:
        if self._lost:
            telemetry.emit("database_restored")
        self._lost = False


def _cut(conn: AsyncConnection[Any]) -> None:
    """Whoever waits for an answer on it hears at once that none comes."""
    with (
        suppress(psycopg.Error, OSError),  # it has ended by itself
        socket.fromfd(conn.fileno(), socket.AF_INET, socket.SOCK_STREAM) as same,
    ):
        same.shutdown(socket.SHUT_RDWR)
