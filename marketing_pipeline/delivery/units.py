"""The units of a replay: parts of a day that do not need each other.

Any number of workers may share them, and what they find adds up to the same whoever found it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from uuid import UUID

from psycopg import AsyncConnection

from marketing_pipeline.domain import rules
from marketing_pipeline.domain.event import Event, EventType
from marketing_pipeline.event_log import history
from marketing_pipeline.event_log.history import PastCampaign

SLICE = 5_000  # events of a unit: a second or two
PART = 50_000  # effects of a campaign of a unit: each reads the index of the whole campaign
EVERY = tuple(EventType)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """Events of a day by a span of their numbers, those of few effects among them."""

    day: date
    types: tuple[EventType, ...]
    since: int
    before: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """A campaign's plan against the list of its effects."""

    day: date
    event_id: UUID
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Renderings:
    """A campaign's mails, those of a span of ids."""

    day: date
    event_id: UUID
    epoch: int
    first: UUID
    last: UUID


Unit = Slice | Books | Renderings


async def of_day(conn: AsyncConnection, day: date, types: Sequence[EventType]) -> list[Unit]:
    """All that a day consists of, the longest first: nobody waits for one at the end."""
    found: list[Unit] = []
    if EventType.CAMPAIGN_TRIGGER in types:
        for one in await history.campaigns_of_day(conn, day):
            found.append(Books(day=day, event_id=one.event_id, epoch=one.epoch))
            found += _renderings(day, one)
    found += [
        Slice(day=day, types=tuple(types), since=since, before=before)
        for since, before in await history.slices(conn, day, types, SLICE)
    ]
    return found


def has_books(event: Event) -> bool:
    """Is it a campaign to more than one person, which is a unit of its own?"""
    return event.type is EventType.CAMPAIGN_TRIGGER and rules.person_of(event) is None


def _renderings(day: date, campaign: PastCampaign) -> list[Renderings]:
    """Spans of all ids there can be; ids are hashes, so that there are as many in each."""
    parts = max(-(-campaign.count // PART), 1)
    bounds = [2**128 * number // parts for number in range(parts + 1)]
    return [
        Renderings(
            day=day,
            event_id=campaign.event_id,
            epoch=campaign.epoch,
            first=UUID(int=first),
            last=UUID(int=after - 1),
        )
        for first, after in pairwise(bounds)
    ]
