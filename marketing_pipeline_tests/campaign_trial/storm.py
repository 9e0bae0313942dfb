"""People who unsubscribe while a campaign to them is under way, as fast as it goes on."""

import asyncio
import random
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

from psycopg import AsyncConnection

from marketing_pipeline.event_log import ledger

AT_ONCE = 4  # connections
EARLY = 0.05  # share of them who leave between the plan and its approval
LATE = 0.85  # of the campaign is done when the last one leaves
_PAUSE = 0.02  # seconds at most between two of one connection
SCOPES = ("email", "all")


@dataclass(slots=True, kw_only=True)
class Storm:
    """`blow` runs in a thread, and the others tell it how far the campaign is."""

    database: str
    people: Sequence[str]  # in the order in which they leave
    seed: str
    left: dict[str, datetime] = field(default_factory=dict)
    """By when each one's suppression had committed, by the database's clock."""
    _wanted: int = 0
    _over: threading.Event = field(default_factory=threading.Event)

    def reach(self, progress: float) -> None:
        """The campaign is so far, of 1."""
        self._wanted = round(len(self.people) * min(1.0, EARLY + progress / LATE))

    def stop(self) -> None:
        self._over.set()

    @property
    def caught_up(self) -> bool:
        return len(self.left) >= self._wanted

    def blow(self) -> None:
        """Until all have left or `stop` was called."""
        asyncio.run(self._blow())

    async def _blow(self) -> None:
        turns = enumerate(self.people)
        async with asyncio.TaskGroup() as group:
            for number in range(AT_ONCE):
                group.create_task(self._gust(turns, random.Random(f"{self.seed}:{number}")))  # noqa: S311

    async def _gust(self, turns: Iterator[tuple[int, str]], chance: random.Random) -> None:
        async with await AsyncConnection.connect(self.database, autocommit=True) as conn:
            for turn, person in turns:
                while turn >= self._wanted:
                    if self._over.is_set():
                        return
                    await asyncio.sleep(_PAUSE)
                self.left[person] = await _leave(conn, person, SCOPES[turn % len(SCOPES)])
                await asyncio.sleep(chance.uniform(0, _PAUSE))


async def _leave(conn: AsyncConnection, person: str, scope: str) -> datetime:
    async with conn.transaction():
        await ledger.suppress(conn, UUID(person), scope, "unsubscribed", datetime.now(UTC))
    row = await (await conn.execute("select clock_timestamp()")).fetchone()
    assert row is not None
    committed_by: datetime = row[0]
    return committed_by
