"""Delivery against real PostgreSQL, Valkey and the sandbox, which judges what was done."""

import asyncio
import secrets
import threading
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psycopg
import pytest

from marketing_pipeline import settings
from marketing_pipeline.delivery import replay, settling
from marketing_pipeline.event_log import ledger
from marketing_pipeline_tests.pipeline import (
    Sandbox,
    campaign,
    campaign_name,
    lead,
    post,
    record,
    run,
    sent,
    states,
    statuses,
)


def test_every_event_becomes_effects_that_are_done_once(
    used: settings.Settings, database: str, sandbox: Sandbox, home: Path
) -> None:
    record(database, [lead(n) for n in range(40)] + [post(n) for n in range(20)])
    record(database, [campaign(campaign_name(home), "c1")])
    run(used)
    assert states(database) == {"SENT": 2 * 40 + 20 + 40}
    assert statuses(database) == {"COMPLETED": 61}
    acts = sandbox.acts()
    assert set(acts) == sent(database)
    assert set(acts.values()) == {1}


def test_faults_of_every_kind_make_nothing_twice_and_lose_nothing(
    used: settings.Settings, database: str, sandbox: Sandbox
) -> None:
    sandbox.faults(
        *(
            {"provider": provider, "kind": kind, "share": 0.04, "seconds": 3}
            for provider in ("hubspot", "resend", "mailgun", "webhook")
            for kind in ("throttle", "error_before", "error_after", "reset_after", "close_after")
        )
    )
    record(database, [lead(n) for n in range(60)] + [post(n) for n in range(40)])
    report = run(used, linger=10)
    assert report.calls > 160, "the faults were seen"
    assert states(database) == {"SENT": 160}
    acts = sandbox.acts()
    assert set(acts) == sent(database)
    assert max(acts.values()) == 1


def test_a_blind_repeat_would_have_been_caught_by_the_judge(
    used: settings.Settings, database: str, sandbox: Sandbox, home: Path
) -> None:
    """The known-bad case of the two tests above: forgetting that a mail was sent sends it twice."""
    record(database, [lead(1)])
    record(database, [campaign(campaign_name(home), "c1")])
    run(used)
    with psycopg.connect(database) as conn:
        conn.execute("set session_replication_role = replica")  # no trigger refuses it
        conn.execute(
            """update effects set state = 'PLANNED', settled_at = null, provider_ref = null
               where provider like 'mailgun%'"""
        )
    run(used)
    assert sorted(sandbox.acts().values()) == [1, 1, 2]


@pytest.mark.parametrize(
    "recipe",
    [
        "update marketing_events set status = 'PENDING' where status = 'PROCESSING'",
        "update marketing_events set status = 'PENDING' where type = 'CAMPAIGN_TRIGGER'"
        " and created_at between now() - interval '1 day' and now()",
        "update marketing_events set status = 'PENDING'",
    ],
)
def test_the_recipes_that_people_paste_send_nothing(
    recipe: str, used: settings.Settings, database: str, sandbox: Sandbox, home: Path
) -> None:
    record(database, [lead(n) for n in range(5)])
    record(database, [campaign(campaign_name(home), "c1")])
    run(used)
    before = sandbox.acts()
    with psycopg.connect(database) as conn:
        conn.execute("update marketing_events set status = 'PROCESSING' where source = 'none'")
        conn.execute(recipe)
    assert run(used).calls == 0
    assert sandbox.acts() == before
    assert statuses(database) == {"COMPLETED": 6}


def test_nothing_reaches_a_person_after_they_were_suppressed(
    used: settings.Settings, database: str, sandbox: Sandbox
) -> None:
    record(database, [lead(1), lead(2)])

    async def suppress() -> None:
        async with await psycopg.AsyncConnection.connect(database) as conn:
            row = await (
                await conn.execute("select id from recipients where address = 'p1@example.com'")
            ).fetchone()
            assert row is not None
            await ledger.suppress(conn, row[0], "email", "unsubscribed", datetime.now(UTC))

    asyncio.run(suppress())
    run(used)
    assert states(database) == {"SENT": 3, "SUPPRESSED": 1}
    assert statuses(database) == {"COMPLETED": 2}
    assert len(sandbox.acts()) == 3


def test_a_poisonous_event_fails_alone(used: settings.Settings, database: str) -> None:
    record(database, [campaign("no-such-campaign", "c9"), lead(1)])
    run(used)
    assert statuses(database) == {"FAILED": 1, "COMPLETED": 1}
    with psycopg.connect(database) as conn:
        row = conn.execute("select last_error from marketing_events where status = 'FAILED'")
        assert "no campaign 'no-such-campaign'" in str(row.fetchone())


def test_a_replay_finds_the_same_bytes_and_calls_nobody(
    used: settings.Settings, database: str, sandbox: Sandbox, home: Path
) -> None:
    record(database, [lead(n) for n in range(10)] + [post(1)])
    record(database, [campaign(campaign_name(home), "c1")])
    run(used)
    before = sandbox.acts()

    async def verify() -> replay.Verification:
        async with await psycopg.AsyncConnection.connect(database, autocommit=True) as conn:
            return await replay.verify(conn, datetime.now(UTC).date())

    first, second = asyncio.run(verify()), asyncio.run(verify())
    assert first == second
    assert (first.effects, first.rendered, first.differences) == (31, 31, ())
    assert sandbox.acts() == before
    with psycopg.connect(database) as conn:  # the known-bad case: the ledger was tampered with
        conn.execute(
            'update effects set variables = \'{"first_name": "Eve"}\' where id ='
            " (select id from effects where kind = 'email' order by id limit 1)"
        )
    assert len(asyncio.run(verify()).differences) == 1


def test_two_runs_at_once_are_harmless(
    used: settings.Settings, database: str, sandbox: Sandbox
) -> None:
    record(database, [lead(n) for n in range(150)])
    threads = [threading.Thread(target=run, args=(used,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert states(database) == {"SENT": 300}
    acts = sandbox.acts()
    assert len(acts) == 300
    assert set(acts.values()) == {1}


def test_the_books_balance_at_every_instant_while_the_engine_works(
    used: settings.Settings, database: str, sandbox: Sandbox, home: Path
) -> None:
    sandbox.faults(
        *(
            {"provider": provider, "kind": kind, "share": 0.05}
            for provider in ("hubspot", "resend", "mailgun", "webhook")
            for kind in ("error_before", "error_after", "reset_after")
        )
    )
    record(database, [lead(n) for n in range(150)] + [post(n) for n in range(50)])
    record(database, [campaign(campaign_name(home), "c1")])
    # Who is hit four times in a row is asked about again after up to 12 s.
    engine = threading.Thread(target=run, args=(used,), kwargs={"linger": 20})
    seen: Counter[bool] = Counter()
    with psycopg.connect(database, autocommit=True) as conn:
        engine.start()
        while engine.is_alive():
            rows = conn.execute(
                "select missing, open from conservation(current_date - 1, current_date)"
            ).fetchall()
            assert [row for row in rows if row[0] != 0] == []
            seen[any(row[1] for row in rows)] += 1
    assert seen[True] > 50, "it was looked at while work was under way"
    assert states(database) == {"SENT": 2 * 150 + 50 + 50}


def test_a_provider_that_was_set_up_anew_is_not_asked_about_calls_of_the_old_one(
    used: settings.Settings, database: str, sandbox: Sandbox, home: Path
) -> None:
    sandbox.faults({"provider": "mailgun", "kind": "error_after", "share": 1})
    record(database, [lead(1)])
    record(database, [campaign(campaign_name(home), "c1")])
    run(used, linger=0.2)
    with psycopg.connect(database) as conn:  # let it still be in doubt: its look-up is far away
        conn.execute("set session_replication_role = replica")
        conn.execute(
            """update effects set state = 'DOUBT', doubt_since = first_attempt_at, due_at = now(),
               settled_at = null, provider_ref = null, last_error = 'x'
               where provider like 'mailgun%'"""
        )
    file = home / "campaigns" / "demo.yaml"
    file.write_text(file.read_text().replace("domain: mg.example.com", "domain: mg2.example.com"))
    acts = sandbox.acts()
    run(used, linger=0.2)
    with psycopg.connect(database) as conn:
        row = conn.execute("select last_error from effects where state = 'UNKNOWN'").fetchone()
    assert row is not None
    assert "set up differently" in row[0]
    assert sandbox.acts() == acts


def test_an_answer_that_postgresql_cannot_store_holds_up_nobody() -> None:
    assert settling.storable("502 bad\x00gate\ud800way") == "502 bad?gate?way"
    assert settling.storable(None) is None


class LongWinded(BaseHTTPRequestHandler):
    """Takes every post, by a name of 3,000 characters that cannot be packed."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("X-Request-Id", secrets.token_hex(1500))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing on stderr."""


def test_a_provider_s_endless_name_for_a_call_holds_up_nobody(
    used: settings.Settings, database: str
) -> None:
    record(database, [post(1), post(2)])
    with ThreadingHTTPServer(("127.0.0.1", 0), LongWinded) as hook:
        threading.Thread(target=hook.serve_forever).start()
        run(replace(used, sandbox_url=f"http://127.0.0.1:{hook.server_port}"))
        hook.shutdown()
    assert states(database) == {"SENT": 2}
    assert statuses(database) == {"COMPLETED": 2}
    with psycopg.connect(database) as conn:
        longest = conn.execute("select max(length(provider_ref)) from effects").fetchone()
    assert longest == (200,)


def test_a_limit_that_a_look_up_meets_holds_back_the_provider(
    used: settings.Settings, database: str, sandbox: Sandbox, home: Path
) -> None:
    sandbox.faults(
        {"provider": "mailgun", "operation": "send", "kind": "error_after", "share": 1},
        {
            "provider": "mailgun",
            "operation": "events",
            "kind": "throttle",
            "share": 1,
            "seconds": 90,
        },
    )
    record(database, [lead(1)])
    record(database, [campaign(campaign_name(home), "c1")])
    run(used, linger=3)
    with psycopg.connect(database) as conn:
        paused = conn.execute("select provider from pauses where until > now()").fetchall()
        looked = conn.execute(
            "select count(*) from attempts where purpose = 'look_up' and status_code is not null"
        ).fetchone()
        [(mailgun,)] = conn.execute(
            "select distinct provider from effects where provider like 'mailgun%'"
        ).fetchall()
    assert (paused, looked) == ([(mailgun,)], (1,))
