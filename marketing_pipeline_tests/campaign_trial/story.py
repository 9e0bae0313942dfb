"""The story of a trial: plan, approve, trigger, then everything at once until nothing is open."""

import asyncio
import random
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

import psycopg
from psycopg import AsyncConnection

from marketing_pipeline.delivery import holding
from marketing_pipeline.event_log.holding import Action, Said
from marketing_pipeline_tests.campaign_trial import agreement, books, ground
from marketing_pipeline_tests.campaign_trial.ground import Ground
from marketing_pipeline_tests.campaign_trial.judge import Books
from marketing_pipeline_tests.campaign_trial.storm import Storm
from marketing_pipeline_tests.chaos import kills
from marketing_pipeline_tests.chaos.bench import wait_for
from marketing_pipeline_tests.chaos.engine import Engine

ENGINES = 2
LEAVING = 0.1  # share of the recipients who unsubscribe
FREEZE_AT, PAUSE_AT = 0.25, 0.5  # of the campaign
# Longer than a lease, so that others take over; but no call thaws after they have looked it up.
FREEZE = ground.LEASE + 1.0
PAUSE = 3.0  # seconds
BURST = (5, 60)  # calls that are throttled in a row
LOOK = 0.25  # seconds between two looks at how far it is

_STANDING = """
select (select coalesce(sum(count), 0) from plans)::int,
       (select count(*) from effects where state in ('SENT', 'FAILED', 'SUPPRESSED', 'UNKNOWN')),
       (select count(*) from effects where state = 'UNKNOWN')"""

Watch = Callable[[str, int, int], None]
"""Told what happens, how many effects are settled, and of how many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much of everything."""

    recipients: int
    adapter: str = "mailgun"  # or resend
    calls: int = 1000  # a second, by the provider's limit
    between: tuple[float, float] = (2.0, 6.0)  # seconds between two deaths
    kills: int | None = None  # at most; None: as many as come
    patience: float = 120.0  # seconds in which all must be settled
    seed: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What came of it."""

    recipients: int
    books: Books
    calls: Mapping[str, int]  # of the provider, by fault or status
    kills: int
    in_flight: int  # effects that were being called when their engine was killed
    freezes: int
    seconds: float  # from the trigger to the last settlement
    troubles: tuple[str, ...]  # engines that ended by themselves with an error, or never settled


def run(size: Size, watch: Watch) -> Trial:
    """One campaign from its leads to its end."""
    with ground.ground(size.adapter, size.calls) as own:
        watch(f"load {size.recipients:,} leads", 0, 0)
        people = own.load(size.recipients)
        own.weather()
        watch("plan", 0, 0)
        read = asyncio.run(agreement.propose(own))
        chance = random.Random(size.seed)  # noqa: S311 - who leaves and when: a second run alike
        leaving = chance.sample(sorted(people), round(len(people) * LEAVING))
        storm = Storm(
            database=own.database, people=[people[one] for one in leaving], seed=str(size.seed)
        )
        with _blowing(storm):
            watch("approve and trigger", 0, len(read.mailed))
            assert wait_for(lambda: storm.caught_up, size.patience, LOOK), "nobody could leave"
            began = time.monotonic()
            event = asyncio.run(agreement.approve(own, read))
            course = Course(
                own=own, size=size, event=event, storm=storm, chance=chance, watch=watch
            )
            course.run(began + size.patience)
            seconds = time.monotonic() - began
        found = books.read(own, read, people, storm.left, course.paused)
        return Trial(
            recipients=size.recipients,
            books=found,
            calls=books.calls(own),
            kills=course.kills,
            in_flight=course.in_flight,
            freezes=course.freezes,
            seconds=seconds,
            troubles=tuple(course.troubles),
        )


@contextmanager
def _blowing(storm: Storm) -> Iterator[None]:
    """People leave meanwhile; at the end all of them have, unless something went wrong."""
    storm.reach(0)
    with ThreadPoolExecutor(1, "storm") as thread:
        blowing = thread.submit(storm.blow)
        try:
            yield
            storm.reach(1)
        finally:
            storm.stop()
        blowing.result()


@dataclass(slots=True, kw_only=True)
class Course:
    """Engines that deliver, die and come back, until nothing is open."""

    own: Ground
    size: Size
    event: UUID
    storm: Storm
    chance: random.Random
    watch: Watch
    kills: int = 0
    in_flight: int = 0
    freezes: int = 0
    paused: tuple[datetime, datetime] | None = None
    troubles: list[str] = field(default_factory=list)
    _engines: list[Engine] = field(default_factory=list)
    _progress: float = 0.0

    def run(self, ends: float) -> None:
        """Until all is settled, or the clock's `ends` is reached; the last engines end in peace."""
        self._engines = [self.own.start() for _ in range(ENGINES)]
        with psycopg.connect(self.own.database, autocommit=True) as conn:
            while not self._over(conn) and time.monotonic() < ends:
                if not self._rests(conn, ends):
                    self._strike(conn)
            if not self._over(conn):
                self.troubles.append(f"not settled after {self.size.patience:.0f} s")
        self.own.weather()
        said = [one.stop() or one.crash() for one in self._engines]
        self.troubles += [one for one in said if one]

    def _over(self, conn: psycopg.Connection) -> bool:
        """Is nothing open, and the event told, unless a person has to decide something first?

        Looks after the engines and tells how far it is.
        """
        for at, engine in enumerate(self._engines):
            if not engine.lives:  # its time was up, or it could not bear it
                self.troubles += [said for said in [engine.crash()] if said]
                self._engines[at] = self.own.start()
        row = conn.execute(_STANDING).fetchone()
        assert row is not None
        planned, settled, unknown = row
        self._progress = settled / planned if planned else 0.0
        self.storm.reach(self._progress)
        self.watch(f"deliver, {self.kills} killed", settled, planned)
        return 0 < planned <= settled and (unknown > 0 or kills.over(conn))

    def _rests(self, conn: psycopg.Connection, ends: float) -> bool:
        """Let it go on for a while; True where it came to its end meanwhile."""
        until = min(ends, time.monotonic() + self.chance.uniform(*self.size.between))
        return wait_for(lambda: self._over(conn), until - time.monotonic(), LOOK)

    def _strike(self, conn: psycopg.Connection) -> None:
        """What comes next: a pause, a frozen engine, else a death; then the weather changes."""
        if self._progress >= PAUSE_AT and self.paused is None:
            self._pause(conn)
        elif self._progress >= FREEZE_AT and not self.freezes:
            self._freeze()
        else:
            self._kill(conn)
        burst, low = self.chance.randint(*BURST), max(1, self.size.calls // 4)
        throttled, calls = self.chance.choice(((0, None), (0, None), (burst, None), (0, low)))
        self.own.weather(throttled=throttled, calls=calls)

    def _kill(self, conn: psycopg.Connection) -> None:
        if self.size.kills is not None and self.kills >= self.size.kills:
            return
        at = self.chance.randrange(len(self._engines))
        self.troubles += [said for said in [kills.kill(self._engines[at])] if said]
        self.kills += 1
        row = conn.execute("select count(*) from effects where state = 'SENDING'").fetchone()
        assert row is not None
        self.in_flight += row[0]
        self._engines[at] = self.own.start()

    def _freeze(self) -> None:
        self.freezes += 1
        engine = self.chance.choice(self._engines)
        engine.signal(signal.SIGSTOP)
        time.sleep(FREEZE)
        engine.signal(signal.SIGCONT)

    def _pause(self, conn: psycopg.Connection) -> None:
        """Hold the campaign, let an engine die, and go on."""
        asyncio.run(self._control(Action.PAUSE))
        began = _clock(conn)
        time.sleep(PAUSE)
        self._kill(conn)
        ended = _clock(conn)
        self.paused = (began, ended)
        asyncio.run(self._control(Action.RESUME))

    async def _control(self, action: Action) -> None:
        said = Said(why="to see what happens", who="the trial")
        async with await AsyncConnection.connect(self.own.database, autocommit=True) as conn:
            await holding.control(conn, action, str(self.event), said, lambda _: None)


def _clock(conn: psycopg.Connection) -> datetime:
    row: Sequence[datetime] | None = conn.execute("select clock_timestamp()").fetchone()
    assert row is not None
    return row[0]
