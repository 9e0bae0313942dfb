"""A template sent to oneself: one mail, by the way of all others."""

import asyncio
import json
import subprocess
import sys

import psycopg

from marketing_pipeline.delivery import replay
from marketing_pipeline.settings import Settings
from marketing_pipeline_tests.pipeline import Sandbox, lead, record, run, sent


def command(used: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "marketing_pipeline", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=dict(used.environment) | {"PATH": "/usr/bin:/bin"},
        timeout=60,
    )


def test_a_test_is_one_mail_to_one_address(used: Settings, database: str, sandbox: Sandbox) -> None:
    record(database, [lead(1)])  # whose address is not the operator's
    run(used)
    before = set(sandbox.acts())
    done = command(
        used, "send-test", "welcome", "--to", "me@example.com", "--with", "first_name=Me"
    )
    assert done.returncode == 0, done.stderr
    run(used)
    [key] = set(sandbox.acts()) - before
    assert key in sent(database)
    with psycopg.connect(database) as conn:
        [(address, variables, campaign)] = conn.execute(
            """select r.address, e.variables, p.campaign from effects e
               join plans p on p.event_id = e.event_id join recipients r on r.id = e.recipient_id
               where e.id = %s""",
            (key,),
        ).fetchall()
        days = [row[0] for row in conn.execute("select distinct day from plans").fetchall()]
    assert (address, variables, campaign) == (
        "me@example.com",
        {"first_name": "Me"},
        "test of welcome",
    )

    async def verify() -> None:
        async with await psycopg.AsyncConnection.connect(database, autocommit=True) as conn:
            for day in days:
                assert (await replay.verify(conn, day)).differences == ()

    asyncio.run(verify())


def test_a_test_that_cannot_be_rendered_is_refused_before_it_is_recorded(used: Settings) -> None:
    for arguments, told in (
        (("welcom", "--to", "me@example.com"), "welcome"),
        (("welcome", "--to", "me"), "is not an e-mail address"),
        (("welcome", "--to", "me@example.com", "--with", "colour=red"), "does not read 'colour'"),
    ):
        done = command(used, "send-test", *arguments)
        assert done.returncode == 2
        assert told in done.stderr, done.stderr
    status = json.loads(command(used, "status", "--json").stdout)
    assert status["events"] == {}
