"""Claims by the transaction that plans: what can be called at once is not looked for again.

It takes what is plain: the first sending of an effect that is due, to a provider whose lane is
free and has nothing older to do. All else is left PLANNED, for the lane to find.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Container, Mapping, Sequence, Set
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID, uuid4

from psycopg import AsyncConnection

from marketing_pipeline.delivery import claiming
from marketing_pipeline.delivery.claiming import Call, Claim
from marketing_pipeline.delivery.contents import Contents
from marketing_pipeline.delivery.high_water import HighWater
from marketing_pipeline.delivery.lane import Lane
from marketing_pipeline.delivery.serving import Leave
from marketing_pipeline.domain.event import Event
from marketing_pipeline.domain.plan import PlannedEffect
from marketing_pipeline.event_log import ledger
from marketing_pipeline.event_log.ledger import Begun, Candidate, NewAttempt, Reach
from marketing_pipeline.event_log.planning import is_campaign

_One = tuple[Event, PlannedEffect]
Effects = Sequence[tuple[Event, int, PlannedEffect]]  # each with its event and epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class Eager:
    """Who may be asked for leave, and what calls are made of."""

    lanes: Mapping[str, Lane]  # by provider
    contents: Contents
    high_water: HighWater


@dataclass(slots=True)
class Turn:
    """One transaction's claims: `reserve`, `claim` before its commit, `begin` after it."""

    eager: Eager | None  # None: nobody calls here, all is left PLANNED
    config_digest: str
    id: UUID = field(default_factory=uuid4)
    _began: float = 0.0  # by `claiming.clock`
    _now: datetime | None = None
    _wanted: dict[str, list[_One]] = field(default_factory=dict)
    _asking: list[asyncio.Task[None]] = field(default_factory=list)
    _leaves: dict[str, Leave] = field(default_factory=dict)
    _calls: dict[str, list[Call]] = field(default_factory=lambda: defaultdict(list))
    _seen: int = 0

    async def reserve(self, effects: Effects, refused: Container[UUID], now: datetime) -> None:
        """Ask for leave to call for what is plain of these; `claim` waits for the answers.

        `now` is of the database's clock.
        """
        if self.eager is None:
            return
        self._now, self._seen = now, self.eager.high_water.seen
        for provider, some in _plain(effects, refused, now).items():
            lane = self.eager.lanes.get(provider)
            if lane is not None and lane.room:  # no more is locked than is called for
                self._wanted[provider] = some[: lane.room]
        asking = (self._leave(one, len(some)) for one, some in self._wanted.items())
        self._asking = [asyncio.create_task(one) for one in asking]
        await asyncio.sleep(0)  # they are on their way before the caller goes on

    async def claim(self, conn: AsyncConnection) -> Sequence[NewAttempt]:
        """Make the requests of what there is leave for; nothing of it is on record yet."""
        if not self._leaves and all(one.done() for one in self._asking):
            for one in self._asking:
                one.result()  # an error here is a bug: it must be seen
            return []
        wanted = [one for effects in self._wanted.values() for _, one in effects]
        people = {one.recipient_id for one in wanted if one.recipient_id}
        keys = {one.ordering_key for one in wanted if one.ordering_key}
        reach = await ledger.reach(conn, people, keys, wait=False)  # while the gates think
        for one in self._asking:
            await one
        chosen = [
            (event, one)
            for provider, leave in self._leaves.items()
            for event, one in self._wanted[provider][: leave.grant.calls]
        ]
        candidates = [self._candidate(event, one, reach) for event, one in chosen]
        assert self.eager is not None
        await self.eager.contents.prepare(conn, candidates)
        attempts = []
        for (_, effect), candidate in zip(chosen, candidates, strict=True):
            call = self._call(effect.provider, candidate, reach)
            if call is not None:
                self._calls[effect.provider].append(call)
                attempts.append(claiming.attempt(call, self._lane(effect.provider).destination))
        self._began = claiming.clock()
        return attempts

    @property
    def is_late(self) -> bool:
        """Is what was claimed not to be committed?"""
        lanes = [self._lane(provider) for provider, calls in self._calls.items() if calls]
        return any(claiming.is_late(self._began, one.destination) for one in lanes)

    async def begin(self, begun: Begun | None) -> Set[UUID]:
        """Make the calls that the transaction put on record; which effects these are for.

        Raises:
            ReadOnly: the log went back in time.
        """
        if begun is not None:
            assert self.eager is not None
            await self.eager.high_water.reach(
                begun.number, remembered=begun.remembered, after=self._seen
            )
        begun_for = frozenset(begun.effects) if begun else frozenset[UUID]()
        while self._leaves:
            provider, leave = self._leaves.popitem()
            calls = [one for one in self._calls[provider] if one.effect.id in begun_for]
            claim = Claim(id=self.id, began=self._began, calls=calls, begun=begun)
            self._lane(provider).begin(leave, claim)
        return begun_for

    async def end(self) -> None:
        """Give back what was reserved and did not begin."""
        await asyncio.gather(*self._asking, return_exceptions=True)  # `claim` has raised them
        while self._leaves:
            provider, leave = self._leaves.popitem()
            self._lane(provider).forgo(leave)

    def _lane(self, provider: str) -> Lane:
        assert self.eager is not None
        return self.eager.lanes[provider]

    async def _leave(self, provider: str, effects: int) -> None:
        leave = await self._lane(provider).reserve(effects)
        if leave is not None:
            self._leaves[provider] = leave

    def _candidate(self, event: Event, effect: PlannedEffect, reach: Reach) -> Candidate:
        assert self._now is not None
        person = effect.recipient_id
        return Candidate(
            id=effect.id,
            event_id=event.id,
            kind=effect.kind,
            recipient_id=person,
            ordering_key=effect.ordering_key,
            template=effect.template,
            variables=effect.variables,
            config_digest=self.config_digest,
            address=reach.addresses.get(person) if person else None,
            expires_at=effect.expires_at,
            now=self._now,
            priority=effect.priority,
            due_at=effect.due_at,
        )

    def _call(self, provider: str, candidate: Candidate, reach: Reach) -> Call | None:
        """None: it is not to be called, or not now; the lane says why, or when."""
        assert self.eager is not None
        person, key = candidate.recipient_id, candidate.ordering_key
        if person is not None and str(person) not in reach.had:
            return None
        if key is not None and (key not in reach.had or key in reach.waiting):
            return None
        destination = self._lane(provider).destination
        made = claiming.call(destination, self.eager.contents, candidate, reach, {})
        return made if isinstance(made, Call) else None


@asynccontextmanager
async def claiming_eagerly(eager: Eager | None, config_digest: str) -> AsyncIterator[Turn]:
    """The turn of a transaction that plans by this configuration."""
    own = Turn(eager, config_digest)
    try:
        yield own
    finally:
        await own.end()


def _plain(effects: Effects, refused: Container[UUID], now: datetime) -> Mapping[str, list[_One]]:
    """By provider, what may begin now, most urgent first: of one ordering key the oldest alone.

    A campaign's effects are left out: whether it is held is seen under a lock that is not had here.
    """
    found: dict[str, list[_One]] = defaultdict(list)
    taken: set[str] = set()
    for event, _, effect in sorted(effects, key=_age):
        if is_campaign(event):
            continue
        key = effect.ordering_key
        waits = key is not None and key in taken
        if key is not None:
            taken.add(key)
        if not waits and effect.due_at <= now and effect.id not in refused:
            found[effect.provider].append((event, effect))
    for some in found.values():
        some.sort(key=lambda one: (one[1].priority, one[1].due_at))
    return found


def _age(one: tuple[Event, int, PlannedEffect]) -> tuple[int, UUID]:
    event, _, effect = one
    return event.seq, effect.id
