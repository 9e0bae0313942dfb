"""People by the million: what the log says of them, and what a campaign has for them."""

import json
from collections.abc import AsyncIterator, Collection, Sequence
from datetime import datetime, timedelta
from itertools import chain
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection

from marketing_pipeline.domain.person import Behaviour, LeadFact, Traits
from marketing_pipeline.domain.stencil import Rows, Stencil
from marketing_pipeline.event_log import queries

_SQL = queries.load("people.sql")
PAGE = 1000  # facts: a few milliseconds, in which a loop does nothing else


async def people_up_to(conn: AsyncConnection, cut: int) -> AsyncIterator[list[LeadFact]]:
    """What the log says of people, by recipient and of each in order of seq.

    Pages of whole persons: nothing but a page is held, and no transaction is needed, for what is
    below a cut never changes.
    """
    values = {"cut": cut, "person": str(UUID(int=0)), "seq": -1, "limit": PAGE}
    held: list[LeadFact] = []  # of the last person of the page before: there may be more
    while True:
        found = await conn.execute(_SQL["people up to"], values)
        rows = await found.fetchall()
        facts = held + _facts(rows)
        if len(rows) < PAGE:
            if facts:
                yield facts
            return
        last = facts[-1]
        values |= {"person": last.recipient_id, "seq": last.seq}
        whole = len(facts)
        while whole and facts[whole - 1].recipient_id == last.recipient_id:
            whole -= 1
        held = facts[whole:]
        if whole:
            yield facts[:whole]


async def people_of(conn: AsyncConnection, people: Collection[str], cut: int) -> list[LeadFact]:
    """The same of a few people."""
    values = {"people": sorted(people), "cut": cut}
    found = await conn.execute(_SQL["people of"], values)
    return _facts(await found.fetchall())


def _facts(rows: Sequence[tuple[Any, ...]]) -> list[LeadFact]:
    # Parsed in one go, which costs half of parsing each.
    attributes = json.loads(f"[{','.join([row[3] for row in rows])}]")
    return [
        LeadFact(seq, person, source, said)
        for (seq, person, source, _), said in zip(rows, attributes, strict=True)
    ]


async def traits(
    conn: AsyncConnection, facts: Sequence[LeadFact], behaviours: Collection[Behaviour], cut: int
) -> Traits:
    """What else the log says, up to the cut, of the people whose facts these are."""
    values: dict[str, Any] = {
        "first": facts[0].recipient_id,
        "last": facts[-1].recipient_id,
        "cut": cut,
    }
    found = await (await conn.execute(_SQL["suppressed between"], values)).fetchall()
    suppressed = {person: reason for person, reason in found}
    did: dict[str, dict[Behaviour, datetime]] = {}
    if Behaviour.MAILED in behaviours:
        for person, at in await (await conn.execute(_SQL["mailed between"], values)).fetchall():
            did.setdefault(person, {})[Behaviour.MAILED] = at
    if told := sorted(set(behaviours) - {Behaviour.MAILED}):
        notices = await conn.execute(_SQL["feedback between"], values | {"kinds": told})
        for person, kind, at in await notices.fetchall():
            did.setdefault(person, {})[Behaviour(kind)] = at
    return Traits(suppressed, did)


async def sent_once(
    conn: AsyncConnection,
    keys: Sequence[str],
    cut: int,
    *,
    within: timedelta | None,
    starts_at: datetime,
) -> set[str]:
    """Which keys of a step's `once` are taken by what had been sent by the cut."""
    values = {"keys": list(keys), "cut": cut, "within": within, "starts_at": starts_at}
    return {row[0] for row in await (await conn.execute(_SQL["sent once"], values)).fetchall()}


async def insert_rows(
    conn: AsyncConnection, stencil: Stencil, rows: Sequence[Rows], place: int, now: datetime
) -> None:
    """Write effects of a campaign's step that has no `once`; what is there already stays as it is.

    `place` is how many effects of the plan come before. They come in the order of their plan, which
    keeps the indices of people warm. Whoever writes the same plan has to wait in `advance`, so
    order cannot make two of them deadlock.
    """
    event, route = stencil.event, stencil.route
    values = {
        "event_id": event.id,
        "epoch": stencil.epoch,
        "day": event.day,
        "event_seq": event.seq,
        "route": str(event.type),
        "step": route.step,
        "provider": route.provider,
        "kind": str(route.kind),
        "priority": int(route.priority),
        "starts_at": stencil.starts_at,
        "place": place,
        "pace": stencil.campaign.pace,
        "max_age": route.max_age,
        # Arrays as text, which costs less than adapting each of their values.
        "ids": f"{{{','.join(chain.from_iterable(part.ids for part in rows))}}}",
        "people": f"{{{','.join(chain.from_iterable(part.people for part in rows))}}}",
        "templates": f"{{{','.join(chain.from_iterable(part.templates for part in rows))}}}",
        "variables": f"[{','.join(chain.from_iterable(part.variables for part in rows))}]",
        "now": now,
    }
    await conn.execute(_SQL["insert rows"], values)
