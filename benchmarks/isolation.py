"""How much the other providers' effects wait while one provider is dead, in pairs.

    python -m benchmarks.isolation [--quick]

Leads (a contact and a mail each) and posts arrive steadily at a delivery run. In one run of each
pair the posts' provider hangs, refuses connections or answers 500 to everything; in the other it is
well, and which comes first alternates. What counts is the p95, over contacts and mails, of the time
from the event's record to its effect's settlement. Every run has a database of its own, and the
gate remembers nothing of the run before.
"""

import asyncio
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import httpx
import psycopg
import redis
from rich.progress import track

from benchmarks import figures, installation
from benchmarks.figures import Line, compared
from benchmarks.installation import SOURCE, Installation, until
from marketing_pipeline import settings
from marketing_pipeline.cli.processes import free_port
from marketing_pipeline.delivery.assembly import Assembly, assemble
from marketing_pipeline.delivery.run import deliver
from marketing_pipeline.domain import event
from marketing_pipeline.domain.event import EventType, NewEvent
from marketing_pipeline.event_log import intake
from marketing_pipeline.event_log.location import locate
from marketing_pipeline.providers.webhook import Webhook

MOST = 1.25  # times the others' p95 with everybody well
PER_SECOND = 20  # leads, and as many posts
DEAD = "site"  # the provider of posts
DEATHS: Mapping[str, Mapping[str, Any] | None] = {
    "hanging": {"kind": "hang_before", "seconds": 60},
    "refusing": None,  # nobody listens where it should be
    "answering 500": {"kind": "error_before"},
}
_WAITS = """
select extract(epoch from f.settled_at - e.created_at)::float * 1000
from effects f join marketing_events e on e.id = f.event_id
where f.provider <> %s and e.idempotency_key <> %s and f.state = 'SENT'"""
_OPEN = "select count(*) from effects where provider <> %s and state <> 'SENT'"
_PLANNED = "select count(*) from effects where provider <> %s"


def lines(quick: bool = False) -> Iterator[Line]:
    """The others' p95 as a multiple of that with everybody well, for each death."""
    pairs, seconds = (2, 5.0) if quick else (11, 5.0)
    with installation.installation(linger="60s") as own:
        own.start_sandbox()
        for death in DEATHS:
            well: list[float] = []
            dead: list[float] = []
            for pair in track(range(pairs), death):
                for how in (None, death) if pair % 2 else (death, None):
                    p95 = _p95(own, how, seconds, PER_SECOND)
                    (well if how is None else dead).append(p95)
            name = f"isolation/p95 beside one {death}"
            yield compared(name, "ms", dead, well, at_most=MOST)


def _p95(own: Installation, death: str | None, seconds: float, per_second: int) -> float:
    """Milliseconds, of one run."""
    servers = locate(settings.read(own.env))
    _heal(own, servers.redis_url)
    if death is not None and (fault := DEATHS[death]) is not None:
        _set_faults(own, [{"provider": "webhook", "share": 1.0, **fault}])
    assembly = assemble(settings.read(own.env))
    if death == "refusing":
        assembly = _unreachable(assembly)
    with (
        installation.database(servers.database_url) as database_url,
        _delivering(assembly, database_url, servers.redis_url),
        psycopg.connect(database_url, autocommit=True) as conn,
    ):
        asyncio.run(_send(database_url, [_event("warm", 0)]))
        _wait_until_sent(conn, 2)
        events = asyncio.run(_send_steadily(database_url, seconds, per_second))
        _wait_until_sent(conn, 2 + 2 * events)
        warm = _event("warm", 0).idempotency_key
        waits = [row[0] for row in conn.execute(_WAITS, (DEAD, warm))]
    if len(waits) != 2 * events:
        raise SystemExit(f"{len(waits)} effects of {events} leads: the figures are void")
    return figures.percentile(waits, 95)


def _heal(own: Installation, redis_url: str) -> None:
    """Everybody is well, and no breaker remembers otherwise."""
    _set_faults(own, [])
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()


def _set_faults(own: Installation, faults: list[dict[str, Any]]) -> None:
    httpx.put(f"{own.sandbox_url}/_sandbox/faults", json=faults).raise_for_status()


def _unreachable(assembly: Assembly) -> Assembly:
    destination = assembly.destinations[DEAD]
    assert isinstance(destination.provider, Webhook)
    nobody = httpx.URL(f"http://127.0.0.1:{free_port()}/")
    moved = replace(destination, provider=replace(destination.provider, url=nobody))
    return replace(assembly, destinations={**assembly.destinations, DEAD: moved})


@contextmanager
def _delivering(assembly: Assembly, database_url: str, redis_url: str) -> Iterator[None]:
    stop = threading.Event()
    places = {"database_url": database_url, "redis_url": redis_url}
    run = threading.Thread(target=deliver, args=(assembly, stop), kwargs=places)
    run.start()
    try:
        yield
    finally:
        stop.set()
        run.join()


def _wait_until_sent(conn: psycopg.Connection, effects: int) -> None:
    def all_sent() -> bool:
        planned, waiting = (conn.execute(one, (DEAD,)).fetchone() for one in (_PLANNED, _OPEN))
        return planned == (effects,) and waiting == (0,)

    until(all_sent, 60, "the others' effects")


async def _send(database_url: str, events: list[NewEvent]) -> None:
    async with await psycopg.AsyncConnection.connect(database_url) as conn:
        await intake.record(conn, events, datetime.now(UTC))


async def _send_steadily(database_url: str, seconds: float, per_second: int) -> int:
    """A lead and a post each time; how many of each."""
    began, number = time.monotonic(), 0
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as conn:
        for number in range(1, int(seconds * per_second) + 1):
            pair = [_event("lead", number), _post(number)]
            await intake.record(conn, pair, datetime.now(UTC))
            await asyncio.sleep(max(began + number / per_second - time.monotonic(), 0))
    return number


def _event(name: str, number: int) -> NewEvent:
    return event.new(
        type=EventType.LEAD_CAPTURE,
        payload={"email": f"{name}{number}@example.com", "first_name": "Ada"},
        source=SOURCE,
        key=f"{name}-{number}",
        now=datetime.now(UTC),
    )


def _post(number: int) -> NewEvent:
    return event.new(
        type=EventType.CONTENT_PUBLISH,
        payload={"text": f"news {number}"},
        source=SOURCE,
        key=f"post-{number}",
        now=datetime.now(UTC),
    )


if __name__ == "__main__":
    figures.alone(__doc__, lines)
