"""The usual recipe, as people paste it: a status column, a loop, and a reset at the start."""

import asyncio
import threading
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg

from marketing_pipeline.delivery.assembly import Assembly
from marketing_pipeline.delivery.engine import Report
from marketing_pipeline.domain.effect import EffectKind, Email
from marketing_pipeline.event_log import heartbeats
from marketing_pipeline.providers.transport import Transport

_RESET = "update marketing_events set status = 'PENDING' where status = 'PROCESSING'"
_FETCH = """
update marketing_events set status = 'PROCESSING' where id in (
    select id from marketing_events where status = 'PENDING' order by seq limit 10)
returning id
"""
_DONE = "update marketing_events set status = 'COMPLETED' where id = %s"


def deliver(assembly: Assembly, stop: threading.Event, *, database_url: str, **_: Any) -> Report:
    """One mail an event, by the file's first provider of mails."""
    return asyncio.run(_deliver(assembly, stop, database_url))


async def _deliver(assembly: Assembly, stop: threading.Event, database_url: str) -> Report:
    (mails,) = (
        one.provider
        for one in assembly.destinations.values()
        if one.provider.kind is EffectKind.EMAIL
    )
    async with (
        await psycopg.AsyncConnection.connect(database_url, autocommit=True) as conn,
        Transport() as transport,
    ):
        await heartbeats.beat(conn, uuid4(), None, timedelta(minutes=1))
        await conn.execute(_RESET)
        while not stop.is_set():
            for (event,) in await (await conn.execute(_FETCH)).fetchall():
                await transport.send(mails.request(event, _mail(event)))
                await conn.execute(_DONE, (event,))
            await asyncio.sleep(0.02)
    return Report(planned=0, calls=0, settled={}, days=frozenset())


def _mail(event: UUID) -> Email:
    return Email(
        sender="hello@example.com",
        to=f"{event}@example.com",
        subject="Hello",
        html="<p>Hello</p>",
        text="Hello",
    )
