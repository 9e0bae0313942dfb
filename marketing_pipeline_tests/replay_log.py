"""A log that has been delivered: a month of events, planned by the planner's code and all sent.

Every row is made of what the planner and the adapters say, digests of requests included, and comes
to its table by COPY; campaigns go through the planner itself.
"""

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from multiprocessing import get_context
from typing import Any
from uuid import UUID

import orjson
import psycopg
from psycopg import AsyncConnection

from marketing_pipeline.campaigns import meaning, rendering
from marketing_pipeline.campaigns.meaning import Meaning
from marketing_pipeline.delivery import assembly, campaigns, planner
from marketing_pipeline.delivery.contents import Contents
from marketing_pipeline.domain import digest, plan
from marketing_pipeline.domain.event import Event, EventType, Origin
from marketing_pipeline.domain.plan import PlannedEffect
from marketing_pipeline.event_log import history, versions

FIRST = date(2026, 3, 1)
DAYS = 31
CHANGED = 15  # the day, counted from 0, from which the second version of the file holds
CAMPAIGNS = 4
STEPS = 40  # of a sequence, each for one person
NAMES, COMPANIES = 400, 3
EVERY_ID = UUID(int=0), UUID(int=2**128 - 1)

TABLES: Mapping[str, Sequence[str]] = {
    "marketing_events": (
        *("id", "seq", "idempotency_key", "type", "payload", "source", "fingerprint"),
        *("recipient_id", "scheduled_at", "created_at", "status", "updated_at"),
    ),
    "plans": (
        *("event_id", "epoch", "day", "cut_seq", "cut_at", "config_digest", "plan_version"),
        *("count", "digest", "inserted", "created_at"),
    ),
    "effects": (
        *("id", "event_id", "epoch", "day", "event_seq", "route", "step", "provider", "kind"),
        *("recipient_id", "template", "variables", "state", "priority", "attempts", "calls"),
        *("due_at", "first_attempt_at", "last_attempt_at", "provider_ref", "created_at"),
        *("updated_at", "settled_at"),
    ),
    "attempts": (
        *("effect_id", "number", "purpose", "claim_id", "provider", "started_at"),
        *("request_sha256", "finished_at", "outcome", "status_code"),
    ),
}
_PEOPLE = """
insert into recipients (id, address, created_at)
select md5('person ' || n)::uuid, 'p' || n || '@example.com', '2026-03-01T00:00Z'
from generate_series(0, %s) n"""
_CAMPAIGN = """
insert into marketing_events (id, idempotency_key, type, payload, source, fingerprint, scheduled_at,
                              created_at, updated_at)
values (%(id)s, %(id)s, 'CAMPAIGN_TRIGGER', %(payload)s, 'proof', repeat('a', 64),
        %(at)s, %(at)s, %(at)s)"""
_SENT = """
update effects set state = 'SENT', attempts = 1, calls = 1, first_attempt_at = due_at,
    last_attempt_at = due_at, provider_ref = 'ref', settled_at = due_at
where state = 'PLANNED';
update marketing_events set status = 'COMPLETED' where status = 'PROCESSING'"""
_FORGET = """
update recipients set address = null, erased_at = now()
where id in (select md5('person ' || n)::uuid from generate_series(0, %s, 50) n)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sent:
    """An effect with the inputs of its rendering."""

    kind: str
    template: str | None
    variables: Mapping[str, Any]
    config_digest: str
    address: str | None


def build(url: str, events: int, told: Callable[[], None] = lambda: None) -> None:
    """Fill an empty log with so many events; `told` hears of each of its `DAYS`."""
    versions = [_keep(url, version) for version in (0, 1)]
    few = events - CAMPAIGNS - STEPS
    with psycopg.connect(url) as conn:
        conn.execute(_PEOPLE, (few - 1,))
        conn.execute("select setval('fact_seq', %s)", (events,))
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        made = [pool.submit(_fill, url, few, number) for number in range(DAYS)]
        for one in made:
            one.result()
            told()
    for version, digest_of_file in enumerate(versions):
        asyncio.run(_campaigns(url, version, digest_of_file))
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(_FORGET, (few - 1,))
        conn.execute("vacuum analyze")


def _keep(url: str, version: int) -> str:
    """Keep a version of the operator's file and of its templates; the digest of the file."""

    async def keep() -> str:
        async with await AsyncConnection.connect(url) as conn:
            welcome, news = _templates(version)
            now = datetime.now(UTC)
            for one in (welcome, news):
                await versions.keep_template(conn, one, now)
            file = _file(version)
            await versions.keep_config(conn, file.rules.digest, file.body, now)
            return file.rules.digest

    return asyncio.run(keep())


def _templates(version: int) -> tuple[Any, Any]:
    greeting = ("<p>Hello {{ first_name }}</p>", "<h1>Hello {{ first_name }} of {{ company }}</h1>")
    style = "<style>p { color: #123 } h1 { margin: 1em }</style>"
    return (
        rendering.template("welcome", "Welcome, {{ first_name }}", style + greeting[version]),
        rendering.template("news", f"News {version}", f"{style}<p>{{{{ first_name }}}}</p>"),
    )


def _file(version: int) -> Meaning:
    """Two versions of a file: the first alone tells the CRM of leads, the second has a sequence."""
    welcome, news = _templates(version)
    step = {"properties": {}, "template": None, "priority": "normal"}
    contact = {"step": "contact", "provider": "crm", "kind": "contact"}
    mail = {"step": "welcome", "provider": "mail", "kind": "email", "template": "welcome"}
    bulk = {"step": "mail", "provider": "bulk", "kind": "email", "priority": "bulk"}
    names = {"firstname": "first_name", "company": "company"}
    chosen = {"where": {"segment": "a"}} if version == 0 else {"newest": 500}
    series = {
        "on": "LEAD_CAPTURE",
        "audience": None,
        "stop_when": None,
        "steps": [{"step": "later", "after": 86400.0, "template": "news"}],
        "priority": "normal",
    }
    body = {
        "sender": {"email": "us@example.com", "name": "Us"},
        "providers": {
            "crm": {"adapter": "hubspot", "options": {}},
            "mail": {"adapter": "resend", "options": {}},
            "bulk": {
                "adapter": "mailgun",
                "options": {"domain": "mg.example.com", "region": "us"},
            },
            "site": {"adapter": "webhook", "options": {"url": "https://www.example.com/hook"}},
        },
        "audiences": {"chosen": {"sources": [], "where": {}, "newest": None} | chosen},
        "campaigns": {"news": {"audience": "chosen", "template": "news"}},
        "sequences": {"series": series} if version else {},
        "templates": {
            one.name: {"hash": one.hash, "reads": list(rendering.reads(one))}
            for one in (welcome, news)
        },
        "routes": {
            "LEAD_CAPTURE": ([step | contact | {"properties": names}] if version == 0 else [])
            + [step | mail],
            "CONTENT_PUBLISH": [step | {"step": "post", "provider": "site", "kind": "post"}],
            "CAMPAIGN_TRIGGER": [step | bulk],
        },
    }
    return meaning.of(body)


def _events(few: int, day: int) -> Iterator[tuple[Event, str | None]]:
    """A day's events, but for campaigns, each with the address of its person."""
    numbers = range(-(-day * few // DAYS), -(-(day + 1) * few // DAYS))
    midnight = datetime.combine(FIRST + timedelta(days=day), time(tzinfo=UTC))
    step = timedelta(days=1) / max(len(numbers), 1)
    for place, number in enumerate(numbers):
        lead = number % 10 < 7
        person = number * 4 // 5  # some leave their address twice
        payload = (
            {
                "first_name": f"Ada {number * 7 % NAMES}",
                "company": f"Company {number % COMPANIES}",
                "segment": "a" if number % 8 == 0 else "b",
            }
            if lead
            else {"text": f"News number {number}", "tags": ["ä", number]}
        )
        made = Event(
            id=digest.identity("proof", number),
            seq=number + 1,
            type=EventType.LEAD_CAPTURE if lead else EventType.CONTENT_PUBLISH,
            payload=payload,
            source="proof",
            origin=Origin.LIVE,
            scheduled_at=midnight + step * place,
            recipient_id=_person(person) if lead else None,
        )
        yield made, f"p{person}@example.com" if lead else None


def _person(number: int) -> UUID:
    return UUID(hashlib.md5(f"person {number}".encode(), usedforsecurity=False).hexdigest())


def _fill(url: str, few: int, day: int) -> None:
    asyncio.run(_fill_day(url, few, day))


async def _fill_day(url: str, few: int, day: int) -> None:
    file, contents = _file(int(day >= CHANGED)), Contents()
    providers = assembly.for_rendering(file.body)
    rows: dict[str, list[tuple[Any, ...]]] = {table: [] for table in TABLES}
    async with await AsyncConnection.connect(url) as conn:
        for event, address in _events(few, day):
            effects = list(plan.effects(event, file.rules, 0, ()))
            rows["marketing_events"].append(_event_row(event))
            rows["plans"].append(_plan_row(event, file.rules.digest, effects))
            for effect in effects:
                inputs = _Sent(
                    kind=effect.kind,
                    template=effect.template,
                    variables=effect.variables,
                    config_digest=file.rules.digest,
                    address=address,
                )
                await contents.prepare(conn, [inputs])
                request = providers[effect.provider].request(effect.id, contents.of(inputs))
                rows["effects"].append(_effect_row(event, effect))
                rows["attempts"] += _attempt_rows(
                    effect.id, effect.provider, effect.due_at, digest.sha256(request.read())
                )
        await _copy(conn, rows)


async def _copy(conn: AsyncConnection, rows: Mapping[str, Iterable[Sequence[Any]]]) -> None:
    await conn.execute("set session_replication_role = replica")  # keys are as they must be
    for table, found in rows.items():
        statement = f"copy {table} ({', '.join(TABLES[table])}) from stdin"
        async with conn.cursor() as cursor, cursor.copy(statement.encode()) as copy:
            for row in found:
                await copy.write_row(row)


def _event_row(event: Event) -> tuple[Any, ...]:
    at, payload = event.scheduled_at, orjson.dumps(event.payload).decode()
    facts = (event.id, event.seq, str(event.id), event.type, payload, event.source, "a" * 64)
    return (*facts, event.recipient_id, at, at, "COMPLETED", at)


def _plan_row(
    event: Event, config_digest: str, effects: Sequence[PlannedEffect]
) -> tuple[Any, ...]:
    at, count = event.scheduled_at, len(effects)
    promised = (count, planner.plan_digest(effects), count)
    return (event.id, 0, event.day, event.seq, at, config_digest, plan.VERSION, *promised, at)


def _effect_row(event: Event, effect: PlannedEffect) -> tuple[Any, ...]:
    at, variables = effect.due_at, orjson.dumps(effect.variables).decode()
    calls = len(_attempt_rows(effect.id, effect.provider, at, ""))
    return (
        *(effect.id, event.id, 0, event.day, event.seq, event.type, effect.step, effect.provider),
        *(effect.kind, effect.recipient_id, effect.template, variables, "SENT"),
        *(int(effect.priority), calls, calls, at, at, at, f"ref-{effect.id}", at, at, at),
    )


def _attempt_rows(
    effect_id: UUID, provider: str, at: datetime, sha256: str
) -> list[tuple[Any, ...]]:
    """One call; for one effect in sixteen, a second after one whose answer was lost."""

    def row(number: int, outcome: str, status: int | None) -> tuple[Any, ...]:
        called = (effect_id, number, "send", effect_id, provider, at, sha256)
        return (*called, at, outcome, status)

    if effect_id.int % 16:
        return [row(1, "ACCEPTED", 200)]
    return [row(1, "AMBIGUOUS", None), row(2, "ACCEPTED", 200)]


async def _campaigns(url: str, version: int, config_digest: str) -> None:
    """Campaigns and steps of a version of the file, planned by the planner, and what they sent."""
    file, now, contents = _file(version), datetime.now(UTC), Contents()
    providers = assembly.for_rendering(file.body)
    async with await AsyncConnection.connect(url, autocommit=True) as conn:
        triggers = {one["id"]: one for one in _triggers(version)}
        for one in triggers.values():
            await conn.execute(_CAMPAIGN, one)
        while await campaigns.write_unfinished(conn, now, asyncio.Event(), file.rules):
            pass
        while (await planner.plan_due(conn, file.rules, now)).events:
            pass
        rows: list[tuple[Any, ...]] = []
        async with conn.transaction():
            for event_id in triggers:
                async for page in history.effects_of_campaign(conn, event_id, 0, *EVERY_ID):
                    await contents.prepare(conn, page)
                    for effect in page:
                        assert effect.config_digest == config_digest
                        content = contents.of(effect)
                        request = providers[effect.provider].request(effect.id, content)
                        sha256 = digest.sha256(request.read())
                        rows += _attempt_rows(effect.id, effect.provider, now, sha256)[-1:]
            await _copy(conn, {"attempts": rows})
        await conn.execute(_SENT.encode())


def _triggers(version: int) -> Iterator[Mapping[str, Any]]:
    """Two campaigns of a version of the file; of the second, a sequence's steps, too."""

    def trigger(day: int, name: str, payload: Mapping[str, str]) -> Mapping[str, Any]:
        at = datetime.combine(FIRST + timedelta(days=day), time(12, tzinfo=UTC))
        made = digest.identity("trigger", version, name)
        return {"id": made, "payload": orjson.dumps(payload).decode(), "at": at}

    for number in range(CAMPAIGNS // 2):
        yield trigger(CHANGED * version + 7 * number, f"news {number}", {"campaign": "news"})
    for number in range(STEPS if version else 0):
        step = {"campaign": "series", "sequence": "series", "step": "later", "origin": str(number)}
        person = {"recipient": str(_person(8 * number))}  # a lead's: the events' are ten apart
        yield trigger(CHANGED + number % 3, f"step {number}", step | person)
