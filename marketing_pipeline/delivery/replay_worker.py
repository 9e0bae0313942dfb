"""One process of those that share a replay: it only reads, and can reach nobody."""

import asyncio
import os
import signal
import threading
from dataclasses import dataclass, field
from multiprocessing import parent_process

from psycopg import AsyncConnection

from marketing_pipeline.delivery.replay import ONLY_READ, Replayer
from marketing_pipeline.delivery.seclusion import Seclusion
from marketing_pipeline.delivery.units import Unit
from marketing_pipeline.delivery.verification import Findings


@dataclass(slots=True)
class _Worker:
    """A connection, and what was read over it so far, kept from unit to unit."""

    url: str
    secluded: Seclusion
    runner: asyncio.Runner = field(default_factory=asyncio.Runner)
    replayer: Replayer | None = None

    async def replay(self, unit: Unit) -> Findings:
        if self.replayer is None:
            self.replayer = Replayer(await AsyncConnection.connect(self.url, autocommit=True))
        async with self.replayer.conn.transaction():
            await self.replayer.conn.execute(ONLY_READ)
            return await self.replayer.replay(unit)


_worker: _Worker | None = None  # of this process, where it is one


def begin(url: str) -> None:
    """Make this process a worker on a log."""
    global _worker  # noqa: PLW0603 - a pool hands its workers nothing else to keep
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's reaches all; who shares out decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker = _Worker(url, Seclusion())


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for its next unit for ever."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def replay(unit: Unit) -> tuple[Unit, Findings, int]:
    """The unit, what was found of it, and how often somebody was called meanwhile."""
    assert _worker is not None
    before = _worker.secluded.tried
    found = _worker.runner.run(_worker.replay(unit))
    return unit, found, _worker.secluded.tried - before
