"""People by the million: what the log says of them, and what a campaign has for them."""

import json
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from itertools import chain
from uuid import UUID

from psycopg import AsyncConnection

from marketing_pipeline.domain.audience import LeadFact
from marketing_pipeline.domain.stencil import Rows, Stencil
from marketing_pipeline.event_log import queries

_SQL = queries.load("people.sql")
PAGE = 1000  # facts: a few milliseconds, in which a loop does nothing else


async def has_more_leads_than(conn: AsyncConnection, many: int) -> bool:
    row = await (await conn.execute(_SQL["more leads than"], {"many": many})).fetchone()
    return bool(row and row[0])


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
        # Parsed in one go, which costs half of parsing each.
        attributes = json.loads(f"[{','.join([row[3] for row in rows])}]")
        facts = held + [
            LeadFact(seq, person, source, said)
            for (seq, person, source, _), said in zip(rows, attributes, strict=True)
        ]
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


async def insert_rows(
    conn: AsyncConnection, stencil: Stencil, rows: Sequence[Rows], now: datetime
) -> None:
    """Write effects of a campaign's step that has no `once`; what is there already stays as it is.

    They come in the order of their plan, which keeps the indices of people warm. Whoever writes the
    same plan has to wait in `advance`, so order cannot make two of them deadlock.
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
        "template": stencil.template.hash,
        "priority": int(route.priority),
        "due_at": event.scheduled_at,
        "expires_at": None if route.max_age is None else event.scheduled_at + route.max_age,
        # Arrays as text, which costs less than adapting each of their values.
        "ids": f"{{{','.join(chain.from_iterable(part.ids for part in rows))}}}",
        "people": f"{{{','.join(chain.from_iterable(part.people for part in rows))}}}",
        "variables": f"[{','.join(chain.from_iterable(part.variables for part in rows))}]",
        "now": now,
    }
    await conn.execute(_SQL["insert rows"], values)
