"""How far the log's claims came, kept outside the database: a log that is behind must not send.

A database restored from a backup has forgotten what it sent since; a copy of one does not know
what the original sends. Both would send again, and neither can tell from its own tables. The mark
is kept in a file of this machine and in Valkey, which all machines share: either suffices, and the
higher one counts.
"""

import fcntl
import os
from datetime import timedelta
from pathlib import Path
from uuid import UUID

from psycopg import AsyncConnection
from redis.asyncio import Redis
from redis.exceptions import RedisError

from marketing_pipeline import telemetry
from marketing_pipeline.event_log import installation
from marketing_pipeline.event_log.installation import Adoption, Installation

_RAISE = """
if tonumber(redis.call('GET', KEYS[1]) or '-1') < tonumber(ARGV[1]) then
    redis.call('SET', KEYS[1], ARGV[1])
end
return 0
"""


class ReadOnly(RuntimeError):
    """This log may not send; says why and what to do."""


class HighWater:
    """The mark of one log."""

    def __init__(self, folder: Path, redis: Redis, identity: UUID) -> None:
        self._file = folder / str(identity)
        self._key = f"high_water:{identity}"
        self._redis = redis
        self._raise = redis.register_script(_RAISE)
        self._seen = 0

    @property
    def seen(self) -> int:
        """The highest claim of this process: one that begins later has a higher number."""
        return self._seen

    async def mark(self) -> int | None:
        """The higher of the two marks; None where neither place knows this log."""
        here = self._file.read_text() if self._file.exists() else ""
        there = await self._redis.get(self._key)
        known = [int(one) for one in (here, there) if one]
        return max(known, default=None)

    async def reach(self, claims: int, *, remembered: int, after: int) -> None:
        """Raise the mark before the calls of claim number `claims` are made.

        `after` is what `seen` said before that claim began, and `remembered` the highest earlier
        number that the log had then: it can only be lower where the log went back in time.

        Raises:
            ReadOnly: the log went back in time under our eyes.
        """
        if remembered < after:
            raise ReadOnly(_behind(after, remembered))
        self._seen = max(self._seen, claims)
        self._raise_file(claims)
        try:
            await self._raise(keys=[self._key], args=[claims])
        except RedisError as error:  # the file has it; the gate stops us at the next round anyway
            telemetry.emit("gate_lost", reason=str(error))

    def _raise_file(self, claims: int) -> None:
        """No fsync: it has to survive this process, and a machine that dies loses no more than the
        database's own answer to the commit before."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            known = os.pread(descriptor, 32, 0)
            if not known or int(known) < claims:
                os.pwrite(descriptor, b"%-20d" % claims, 0)
        finally:
            os.close(descriptor)


async def open_mark(conn: AsyncConnection, folder: Path, redis: Redis) -> HighWater:
    """The mark of this log, once it is sure that the log remembers all it sent.

    Raises:
        ReadOnly: it is restored, or a copy.
        RedisError: Valkey is away, and the file here does not settle it.
    """
    water, log = await _current(conn, folder, redis)
    await water.reach(log.claims, remembered=log.claims, after=0)
    return water


async def refusal(conn: AsyncConnection, folder: Path, redis: Redis) -> str | None:
    """Why this log may not send, without touching a mark; None where it may, or Valkey is away."""
    try:
        await _current(conn, folder, redis)
    except ReadOnly as error:
        return str(error)
    except RedisError:  # a run would wait for it, and call nothing meanwhile
        return None
    return None


async def adopt(
    conn: AsyncConnection, folder: Path, redis: Redis, why: str, settle_delay: timedelta
) -> Adoption:
    """Let a restored or copied log send: it becomes a log of its own, and doubts what was due."""
    adopted = await installation.adopt(conn, why, settle_delay)
    log = await installation.read(conn)
    water = HighWater(folder, redis, log.identity)
    await water.reach(log.claims, remembered=log.claims, after=0)
    return adopted


async def _current(
    conn: AsyncConnection, folder: Path, redis: Redis
) -> tuple[HighWater, Installation]:
    """The mark between two looks at the log: other runs claim, and then raise the mark, meanwhile.

    What they claimed after the mark was read makes no copy of this log, and what they claimed
    before has not been forgotten.
    """
    before = await installation.read(conn)
    water = HighWater(folder, redis, before.identity)
    mark, log = await water.mark(), await installation.read(conn)
    if mark is None and before.claims > 0:
        raise ReadOnly(
            f"this log has made {before.claims:,} claims of which this installation knows nothing: "
            "it is a copy, or has moved here. Where nothing else sends for it any more, run "
            '`marketing-pipeline adopt --why "..."`'
        )
    if mark is not None and log.claims < mark:
        raise ReadOnly(_behind(mark, log.claims))
    return water, log


def _behind(mark: int, claims: int) -> str:
    return (
        f"this log remembers {claims:,} claims, and {mark:,} were made: it was restored from a "
        'backup. Run `marketing-pipeline adopt --why "..."`: what was due since is then looked up '
        "or asked for again under its key, and not sent blindly"
    )
