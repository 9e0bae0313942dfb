"""What is planned and claimed by one transaction, and what that must leave to the lanes."""

import asyncio
import threading
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool
from redis.asyncio import Redis

from marketing_pipeline import settings
from marketing_pipeline.delivery import claiming, connections, eager, high_water, replay
from marketing_pipeline.delivery.assembly import assemble, marks
from marketing_pipeline.delivery.contents import Contents
from marketing_pipeline.delivery.eager import Effects
from marketing_pipeline.delivery.gate import Gate
from marketing_pipeline.delivery.lane import Lane
from marketing_pipeline.domain import event
from marketing_pipeline.domain.event import EventType, NewEvent
from marketing_pipeline.event_log import ledger, planning
from marketing_pipeline_tests.patience import until_true
from marketing_pipeline_tests.pipeline import (
    Sandbox,
    lead,
    post,
    record,
    run,
    sent,
    states,
    statuses,
)

ENOUGH = 0.6  # seconds in which the engine would have done what it must not do
pytestmark = pytest.mark.usefixtures("sandbox", "granting")


@pytest.fixture
def granting(used: settings.Settings) -> None:
    """Gates that know where they stand: a new one grants nothing for the life of a grant."""

    async def ask() -> None:
        assert used.database_url is not None
        assert used.redis_url is not None
        async with (
            AsyncConnectionPool(used.database_url, open=False) as pool,
            connections.redis(used.redis_url) as client,
        ):
            for one in assemble(used).destinations.values():
                gate = connections.gate_of(client, pool, one)
                while not (grant := await gate.ask(1)).calls:  # noqa: ASYNC110 - it says for how long
                    await asyncio.sleep(grant.wait.total_seconds())
                await gate.give_back(grant, 1)

    asyncio.run(ask())


def again(number: int, name: str) -> NewEvent:
    """The same person as lead(number), under another name."""
    return event.new(
        type=EventType.LEAD_CAPTURE,
        payload={"email": f"p{number}@example.com", "first_name": name},
        source="demo",
        key=f"again-{number}-{name}",
        now=datetime.now(UTC),
    )


def value(database: str, query: LiteralString, **values: object) -> Any:
    with psycopg.connect(database) as conn:
        row = conn.execute(query, values).fetchone()
    return row and row[0]


async def nothing_at_once(self: Lane, effects: int) -> None:
    """A lane that is never free."""


async def left_alone(self: Lane) -> None:
    """A lane that leaves its tasks to themselves."""


@pytest.mark.parametrize("free", [True, False], ids=["free", "known-bad"])
def test_what_a_free_lane_can_call_for_is_claimed_by_the_transaction_that_plans_it(
    used: settings.Settings,
    database: str,
    sandbox: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    free: bool,
) -> None:
    if not free:
        monkeypatch.setattr(Lane, "reserve", nothing_at_once)
    record(database, [lead(1)])
    run(used)
    assert states(database) == {"SENT": 2}
    assert set(sandbox.acts().values()) == {1}
    claims = value(database, "select count(distinct claim_id) from attempts")
    assert (claims == 1) is free, "the mail and the contact share a claim, or each has its own"
    assert value(database, "select count(claim_number) from attempts") == claims
    one_transaction = (
        "select bool_and(e.xmin = p.xmin) from effects e join plans p using (event_id)"
    )
    assert value(database, one_transaction) is False, "both have been settled since"


def test_its_bytes_are_those_that_the_ledger_renders(
    used: settings.Settings, database: str
) -> None:
    """The request was made before the ledger had its variables; jsonb keeps them its own way."""
    awkward: Mapping[str, Any] = {
        "text": "ünï ✓",
        "b": {"zz": 1.0, "a": 1e15, "aaa": -0.5, "deep": [{"y": None, "x": True}, 0.1, 1e-7]},
        "a": 12345678901,
    }
    record(
        database,
        [
            event.new(
                type=EventType.CONTENT_PUBLISH,
                payload=awkward,
                source="demo",
                key="awkward",
                now=datetime.now(UTC),
            ),
            again(1, "Zoë & <Co>"),
        ],
    )
    run(used)
    assert states(database) == {"SENT": 3}

    async def verify() -> replay.Verification:
        async with await AsyncConnection.connect(database, autocommit=True) as conn:
            return await replay.verify(conn, datetime.now(UTC).date())

    found = asyncio.run(verify())
    assert (found.rendered, found.differences) == (3, ())
    assert value(database, "select count(distinct claim_id) from attempts") == 1
    with psycopg.connect(database) as conn:
        conn.execute("update attempts set request_sha256 = repeat('0', 64)")
    assert len(asyncio.run(verify()).differences) == 3, "the known-bad case"


def all_at_once(effects: Effects, refused: object, now: datetime) -> Any:  # noqa: ARG001
    """The known-bad variant of `_plain`: it does not look whose turn it is."""
    found: dict[str, list[Any]] = {}
    for of, _, effect in effects:
        found.setdefault(effect.provider, []).append((of, effect))
    return found


@pytest.mark.parametrize("careful", [True, False], ids=["in turn", "known-bad"])
def test_of_one_contacts_effects_only_the_oldest_begins(
    used: settings.Settings, database: str, monkeypatch: pytest.MonkeyPatch, careful: bool
) -> None:
    if not careful:
        monkeypatch.setattr(eager, "_plain", all_at_once)
    record(database, [again(1, name) for name in ("A", "B", "C")])
    run(used)
    assert states(database) == {"SENT": 6}
    overlapping = """
        select count(*) from attempts a join effects e on e.id = a.effect_id
        join effects o on o.ordering_key = e.ordering_key and o.event_seq > e.event_seq
        join attempts b on b.effect_id = o.id
        where b.started_at < a.finished_at"""
    assert (value(database, overlapping) == 0) is careful


def test_a_key_that_somebody_else_has_is_waited_for_and_holds_up_nothing_else(
    used: settings.Settings, database: str, sandbox: Sandbox
) -> None:
    record(database, [lead(1), post(1)])
    person = value(database, "select id from recipients")
    [crm] = [name for name in assemble(used).destinations if name.startswith("hubspot")]

    async def race() -> None:
        async with (
            await AsyncConnection.connect(database) as other,
            await AsyncConnection.connect(database, autocommit=True) as conn,
        ):
            reach = await ledger.reach(other, [], [f"{crm}:{person}"], wait=False)
            assert reach.had == {f"{crm}:{person}"}
            running = asyncio.create_task(asyncio.to_thread(run, used, 2.0))
            await until_true(conn, "select count(*) = 2 from effects where state = 'SENT'")
            await asyncio.sleep(ENOUGH)
            still = "select count(*) = 1 from effects where state = 'PLANNED' and kind = 'contact'"
            await until_true(conn, still)
            await other.commit()
            await running

    asyncio.run(race())
    assert states(database) == {"SENT": 3}
    assert statuses(database) == {"COMPLETED": 2}
    assert set(sandbox.acts().values()) == {1}


BEGIN_THE_NEWER: LiteralString = """
update effects set state = 'SENDING', claim_id = gen_random_uuid(), calls = 1, attempts = 1,
       lease_until = now() + interval '1 minute', first_attempt_at = now(), last_attempt_at = now()
where id = (select id from effects where kind = 'contact' order by event_seq desc limit 1)"""


@pytest.mark.parametrize("overtaken", [True, False])
def test_what_another_process_calls_for_a_contact_is_seen_once_the_key_is_had(
    used: settings.Settings, database: str, monkeypatch: pytest.MonkeyPatch, overtaken: bool
) -> None:
    """It was begun after this claim had looked: the look alone would have let both go."""
    record(database, [again(1, "A"), again(1, "B")])
    assembly = assemble(used)
    crm = next(d for name, d in assembly.destinations.items() if name.startswith("hubspot"))
    with psycopg.connect(database) as conn:  # all is planned, and nobody calls
        for name in assembly.destinations:
            pause = "insert into pauses values (%s, now() + interval '1 hour', 'a test', now())"
            conn.execute(pause, [name])
    run(used, linger=0.5)
    assert states(database) == {"PLANNED": 4}
    look = ledger.lock_due

    async def race() -> int:
        async with (
            await AsyncConnection.connect(database, autocommit=True) as ours,
            await AsyncConnection.connect(database, autocommit=True) as theirs,
        ):

            async def look_too_early(conn: AsyncConnection, *asked: Any) -> Any:
                found = await look(conn, *asked)
                if overtaken:
                    await theirs.execute(BEGIN_THE_NEWER)
                return found

            monkeypatch.setattr(ledger, "lock_due", look_too_early)
            taken = await claiming.claim(ours, crm, Contents(), 10, claiming.front())
            return len(taken.calls)

    assert asyncio.run(race()) == (0 if overtaken else 1)


def adopt(used: settings.Settings, delay: timedelta) -> None:
    async def adopted() -> None:
        assert used.database_url is not None
        assert used.redis_url is not None
        async with (
            await AsyncConnection.connect(used.database_url, autocommit=True) as conn,
            Redis.from_url(used.redis_url) as client,
        ):
            await high_water.adopt(conn, marks(used), client, "restored from a backup", delay)

    asyncio.run(adopted())


def test_what_was_due_before_an_adoption_is_never_called_for_at_once(
    used: settings.Settings, database: str
) -> None:
    record(database, [post(1)])
    adopt(used, timedelta(seconds=4))  # more than a run takes to begin
    record(database, [post(2)])
    run(used, linger=6)
    assert states(database) == {"SENT": 2}
    early = "select count(*) from attempts, installation where started_at < look_at"
    assert value(database, early) == 1, "of the one that came after it"
    both = "select count(distinct claim_id) from attempts"
    assert value(database, both) == 2


def test_what_the_transaction_did_not_keep_is_not_called_and_keeps_no_connection(
    used: settings.Settings, database: str, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, failed = planning.insert_effects, threading.Event()

    async def lost(*arguments: Any, **options: Any) -> Any:
        begun = await honest(*arguments, **options)
        if begun is not None and not failed.is_set():
            failed.set()
            assert sandbox.acts() == {}
            raise psycopg.OperationalError("the connection is gone before the commit")
        return begun

    monkeypatch.setattr(planning, "insert_effects", lost)
    record(database, [lead(1), post(1)])
    report = run(used)  # ends by itself: no lane believes that a connection is in use
    assert failed.is_set()
    assert report.calls == 3
    assert states(database) == {"SENT": 3}
    assert set(sandbox.acts()) == sent(database)
    assert set(sandbox.acts().values()) == {1}


def test_what_is_wrong_with_asking_for_leave_is_seen(
    used: settings.Settings, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def wrong(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(Lane, "reserve", wrong)
    record(database, [post(1)])
    with pytest.RaisesGroup(ZeroDivisionError):
        run(used)


@pytest.mark.parametrize("careful", [True, False], ids=["careful", "known-bad"])
def test_nothing_of_a_run_that_broke_off_uses_what_is_closed(
    used: settings.Settings, database: str, monkeypatch: pytest.MonkeyPatch, careful: bool
) -> None:
    """Leave that was given back too late opened a connection again, which nobody closed."""
    ended: list[str] = []
    close = Redis.aclose

    async def closed(client: Redis, *arguments: Any) -> None:
        await close(client, *arguments)
        ended.append("the connections")

    async def restored(*_: object, **__: object) -> None:
        raise high_water.ReadOnly("the log went back in time")

    async def slow(*_: object) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("giving back")

    monkeypatch.setattr(Redis, "aclose", closed)
    monkeypatch.setattr(eager.Turn, "begin", restored)
    monkeypatch.setattr(Gate, "give_back", slow)
    if not careful:
        monkeypatch.setattr(Lane, "abandon", left_alone)
    record(database, [post(1)])
    with pytest.RaisesGroup(high_water.ReadOnly):
        run(used)
    assert (ended == ["giving back", "the connections"]) is careful


@pytest.mark.parametrize(
    "obstacle",
    [
        "insert into suppressions (recipient_id, reason, created_at) select id, 'left', now()"
        " from recipients",
        "update recipients set address = null, erased_at = now()",
    ],
    ids=["suppressed", "erased"],
)
def test_who_must_not_be_reached_is_left_to_the_lane_which_says_why(
    used: settings.Settings, database: str, sandbox: Sandbox, obstacle: LiteralString
) -> None:
    record(database, [lead(1)])
    with psycopg.connect(database) as conn:
        conn.execute(obstacle)
    run(used)
    assert states(database) == {"SUPPRESSED": 2}
    assert statuses(database) == {"COMPLETED": 1}
    assert value(database, "select count(*) from attempts") == 0
    assert sandbox.acts() == {}


def test_many_at_once_are_called_for_in_turns_and_each_once(
    used: settings.Settings, database: str, sandbox: Sandbox
) -> None:
    record(database, [lead(n) for n in range(30)] + [post(n) for n in range(90)])
    run(used)
    assert states(database) == {"SENT": 150}
    assert set(sandbox.acts().values()) == {1}
    at_once = """
        select max(calls) from (select count(*) as calls from attempts
                                group by provider, claim_id) as claims"""
    most = max(one.entry.connections for one in assemble(used).destinations.values())
    assert value(database, at_once) <= 2 * most  # brief calls: as many again are claimed meanwhile


@pytest.mark.parametrize("careful", [True, False], ids=["careful", "known-bad"])
@pytest.mark.parametrize(("room", "name"), [(planning, "insert_effects"), (ledger, "claim")])
def test_a_process_that_stood_still_in_the_middle_of_a_claim_does_not_commit_it(
    used: settings.Settings,
    database: str,
    monkeypatch: pytest.MonkeyPatch,
    room: Any,
    name: str,
    careful: bool,
) -> None:
    """Others would find it past its lease, and hold as UNKNOWN what was never sent."""
    honest, slept = getattr(room, name), threading.Event()

    async def sleepy(*arguments: Any, **options: Any) -> Any:
        begun = await honest(*arguments, **options)
        if begun is not None and not slept.is_set():
            slept.set()
            await asyncio.sleep(1.7)  # longer than a call may take
        return begun

    monkeypatch.setattr(room, name, sleepy)
    if room is ledger:
        monkeypatch.setattr(Lane, "reserve", nothing_at_once)
    if not careful:
        monkeypatch.setattr(claiming, "is_late", lambda *_: False)
    record(database, [post(1)])
    run(used)
    assert slept.is_set()
    first = value(database, "select outcome from attempts where number = 1")
    assert (first == "ACCEPTED") is careful, "else: UNREACHED, for no time was left"
    if careful:
        assert states(database) == {"SENT": 1}
