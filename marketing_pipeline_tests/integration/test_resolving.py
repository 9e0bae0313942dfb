"""A person settles what nobody else can: it is done once, and what was decided is kept."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from marketing_pipeline import settings
from marketing_pipeline.domain.effect import EffectState
from marketing_pipeline.event_log import ledger, resolving
from marketing_pipeline.event_log.ledger import Settlement
from marketing_pipeline.event_log.resolving import Action, CannotResolve, Resolution, Resolved
from marketing_pipeline_tests.attempting import settle_openly
from marketing_pipeline_tests.pipeline import (
    Sandbox,
    campaign,
    campaign_name,
    lead,
    record,
    run,
    sent,
    states,
    statuses,
)
from marketing_pipeline_tests.undecided import ask, forgotten, rows

SENT = Resolution(action=Action.SENT, why="it is in the provider's log", who="op", reference="r-1")
RESEND = Resolution(action=Action.RESEND, why="the person has nothing", who="op")


def resolve(database: str, effect_id: UUID, decided: Resolution) -> Resolved:
    return ask(database, lambda conn: resolving.resolve(conn, effect_id, decided))


def hangs_past_the_horizon(used: settings.Settings, database: str, sandbox: Sandbox) -> UUID:
    """A campaign's mail that a provider never answers for until its look-up is of no use."""
    file = used.home / "campaigns" / "demo.yaml"
    file.write_text(file.read_text().replace("horizon: 5m", "horizon: 3s"))
    record(database, [lead(1)])
    run(used, linger=0.5)
    sandbox.faults({"provider": "mailgun", "kind": "hang_before", "times": 1, "seconds": 3})
    record(database, [campaign(campaign_name(used.home), "c1")])
    run(used, linger=5)
    assert states(database) == {"SENT": 2, "UNKNOWN": 1}
    assert statuses(database) == {"COMPLETED": 1, "PROCESSING": 1}
    [[effect_id]] = rows(database, "select id from effects where state = 'UNKNOWN'")
    return UUID(str(effect_id))


def test_a_mail_that_hung_past_the_horizon_is_sent_once_when_a_person_says_so(
    used: settings.Settings, database: str, sandbox: Sandbox
) -> None:
    effect_id = hangs_past_the_horizon(used, database, sandbox)
    [waiting] = ask(database, lambda conn: resolving.undecided(conn, 10))
    assert waiting.effect_id == effect_id
    assert waiting.address == "p1@example.com"
    assert waiting.setup["options"]["domain"] == "mg.example.com"
    assert "look-up no longer reaches back" in waiting.why
    done = resolve(database, effect_id, RESEND)
    assert (done.state, done.event_status) == (EffectState.PLANNED, "PROCESSING")
    run(used)
    assert states(database) == {"SENT": 3}
    assert statuses(database) == {"COMPLETED": 2}
    assert sandbox.acts() == dict.fromkeys(sent(database), 1)


def test_what_a_person_knows_to_be_sent_completes_its_event_and_is_not_sent_again(
    used: settings.Settings, database: str, sandbox: Sandbox
) -> None:
    effect_id = forgotten(used)
    done = resolve(database, effect_id, SENT)
    assert (done.state, done.event_status) == (EffectState.SENT, "COMPLETED")
    run(used)
    assert sandbox.acts() == dict.fromkeys(sent(database), 1)
    [row] = rows(database, "select provider_ref, doubt_since from effects where kind = 'email'")
    assert row == ("r-1", None)
    [kept] = rows(database, "select number, action, why, who, calls from resolutions")
    assert kept == (1, "sent", "it is in the provider's log", "op", 1)
    assert ask(database, resolving.waiting) == 0


def test_without_a_reference_one_stands_for_it(used: settings.Settings, database: str) -> None:
    effect_id = forgotten(used)
    resolve(database, effect_id, Resolution(action=Action.SENT, why="seen", who="op"))
    assert rows(database, "select provider_ref from effects where kind = 'email'") == [
        ("resolved",)
    ]


def test_what_is_sent_again_is_neither_stale_nor_in_doubt_and_counts_from_here(
    used: settings.Settings, database: str
) -> None:
    effect_id = forgotten(used)
    resolve(database, effect_id, RESEND)
    [row] = rows(
        database,
        """select state, attempts, calls, expires_at, first_attempt_at, doubt_since, settled_at
           from effects where kind = 'email'""",
    )
    assert row == ("PLANNED", 0, 1, None, None, None, None)
    run(used)
    assert states(database) == {"SENT": 2}, "its time was up; a person decided after that"


def test_a_person_who_has_unsubscribed_meanwhile_gets_nothing(
    used: settings.Settings, database: str, sandbox: Sandbox
) -> None:
    effect_id = forgotten(used)
    before = sandbox.acts()
    [[person]] = rows(database, "select recipient_id from effects where kind = 'email'")
    now = datetime.now(UTC)
    ask(database, lambda conn: ledger.suppress(conn, person, "email", "unsubscribed", now))
    resolve(database, effect_id, RESEND)
    run(used)
    assert states(database) == {"SENT": 1, "SUPPRESSED": 1}
    assert sandbox.acts() == before


def test_of_two_who_decide_at_once_the_second_is_told(
    used: settings.Settings, database: str
) -> None:
    effect_id = forgotten(used)

    async def both() -> tuple[Resolved | BaseException, ...]:
        async with (
            await psycopg.AsyncConnection.connect(database, autocommit=True) as one,
            await psycopg.AsyncConnection.connect(database, autocommit=True) as other,
        ):
            return await asyncio.gather(
                resolving.resolve(one, effect_id, SENT),
                resolving.resolve(other, effect_id, RESEND),
                return_exceptions=True,
            )

    told = asyncio.run(both())
    [refused] = [one for one in told if isinstance(one, CannotResolve)]
    [done] = [one for one in told if isinstance(one, Resolved)]
    assert f"is {done.state}" in str(refused)
    assert rows(database, "select count(*) from resolutions") == [(1,)]


def late(effect_id: UUID) -> Settlement:
    return Settlement(
        effect_id=effect_id,
        claim_id=uuid4(),
        number=1,
        outcome="ACCEPTED",
        status_code=200,
        latency=timedelta(hours=1),
        reason=None,
        state=EffectState.SENT,
        due_at=None,
        given_back=False,
        in_doubt=False,
        reference="late",
    )


@pytest.mark.parametrize("decided", [SENT, RESEND])
def test_a_late_accepted_wins_over_a_person(
    used: settings.Settings, database: str, decided: Resolution
) -> None:
    """The answer arrives in a transaction that is still open when the person decides."""
    effect_id = forgotten(used)

    async def race() -> None:
        async with (
            await psycopg.AsyncConnection.connect(database, autocommit=True) as worker,
            await psycopg.AsyncConnection.connect(database, autocommit=True) as person,
        ):
            async with worker.transaction():
                await settle_openly(worker, late(effect_id))
                deciding = asyncio.create_task(resolving.resolve(person, effect_id, decided))
                await asyncio.sleep(0.3)
                assert not deciding.done(), "it waits for the lock"
            with pytest.raises(CannotResolve, match=f"effect {effect_id} is SENT"):
                await deciding

    asyncio.run(race())
    assert rows(database, "select provider_ref from effects where kind = 'email'") == [("late",)]
    assert rows(database, "select count(*) from resolutions") == [(0,)]


def test_a_late_accepted_settles_what_was_to_be_sent_again(
    used: settings.Settings, database: str, sandbox: Sandbox
) -> None:
    effect_id = forgotten(used)
    resolve(database, effect_id, RESEND)
    ask(database, lambda conn: ledger.settle(conn, [late(effect_id)], datetime.now(UTC)))
    assert run(used).calls == 0
    assert states(database) == {"SENT": 2}
    assert sandbox.acts() == dict.fromkeys(sent(database), 1)


def test_only_what_is_unknown_waits_for_a_person(used: settings.Settings, database: str) -> None:
    record(database, [lead(1)])
    run(used)
    for effect_id in sorted(sent(database)):
        with pytest.raises(CannotResolve, match=f"effect {effect_id} is SENT, and only what is"):
            resolve(database, UUID(effect_id), RESEND)
    with pytest.raises(CannotResolve, match="there is no effect"):
        resolve(database, uuid4(), SENT)
    assert rows(database, "select count(*) from resolutions") == [(0,)]


def test_old_data_is_not_put_over_newer_of_the_same_contact(
    used: settings.Settings, database: str
) -> None:
    record(database, [lead(1)])
    run(used)
    with psycopg.connect(database) as conn:
        conn.execute("set session_replication_role = replica")  # no trigger refuses it
        row = conn.execute(
            """update effects set state = 'UNKNOWN', doubt_since = first_attempt_at,
               last_error = 'who knows' where kind = 'contact' returning id"""
        ).fetchone()
        assert row is not None
        conn.execute(
            """insert into effects select (jsonb_populate_record(e, jsonb_build_object(
                   'id', gen_random_uuid(), 'event_seq', e.event_seq + 1, 'state', 'SENT',
                   'doubt_since', null, 'last_error', null))).*
               from effects e where kind = 'contact'"""
        )
    with pytest.raises(CannotResolve, match="could put old data over new"):
        resolve(database, row[0], RESEND)
    assert resolve(database, row[0], SENT).state is EffectState.SENT


@pytest.mark.parametrize(
    ("spoiled", "named"),
    [
        ({"why": " "}, "why"),
        ({"who": ""}, "who"),
        ({"reference": ""}, "reference"),
        ({"reference": "r" * 201}, "201 characters"),
        ({"why": "\ud800"}, "why"),
        ({"action": Action.RESEND, "reference": "r"}, "reference"),
    ],
)
def test_a_decision_without_words_is_none(spoiled: dict[str, Any], named: str) -> None:
    usual: dict[str, Any] = {"action": Action.SENT, "why": "seen", "who": "op"}
    with pytest.raises(CannotResolve, match=named):
        Resolution(**(usual | spoiled))


def test_what_was_sent_in_an_earlier_life_of_the_log_needs_no_call_on_record(
    used: settings.Settings, database: str
) -> None:
    effect_id = forgotten(used)
    with psycopg.connect(database) as conn:
        conn.execute("set session_replication_role = replica")
        conn.execute("delete from attempts where effect_id = %s", [effect_id])
        conn.execute("update effects set calls = 0, attempts = 0 where id = %s", [effect_id])
    assert resolve(database, effect_id, SENT).event_status == "COMPLETED"
