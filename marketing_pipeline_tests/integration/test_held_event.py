"""An event's row is locked by whoever completes it: that must not hold up what is to be sent."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import psycopg

from marketing_pipeline import settings
from marketing_pipeline.delivery.assembly import assemble
from marketing_pipeline.event_log import ledger
from marketing_pipeline_tests import campaigning, pipeline
from marketing_pipeline_tests.chaos.bench import wait_for

PEOPLE = 40


def test_a_campaign_goes_on_while_another_process_that_is_frozen_holds_its_event(
    used: settings.Settings, database: str
) -> None:
    pipeline.record(database, [pipeline.lead(number) for number in range(PEOPLE)])
    pipeline.run(used)
    name = pipeline.campaign_name(used.home)
    pipeline.record(database, [pipeline.campaign(name, "held")])
    asyncio.run(_plan_and_suppress_each_second(used, database))
    with ThreadPoolExecutor(1) as thread, psycopg.connect(database) as frozen:
        frozen.execute("select from marketing_events where type = 'CAMPAIGN_TRIGGER' for update")
        running = thread.submit(pipeline.run, used)
        went_on = wait_for(lambda: _ended(database) == {"SENT": 20, "SUPPRESSED": 20}, 10)
        frozen.rollback()
        running.result()
    assert went_on, "the campaign waited for its event"
    assert pipeline.statuses(database) == {"COMPLETED": PEOPLE + 1}


async def _plan_and_suppress_each_second(used: settings.Settings, database: str) -> None:
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as conn:
        configuration = assemble(used).configuration
        log = campaigning.Log(conn=conn, used=configuration, now=datetime.now(UTC))
        await log.plan()
        for number in range(0, PEOPLE, 2):
            person = await log.person(number)
            async with conn.transaction():
                await ledger.suppress(conn, person, "email", "left", datetime.now(UTC))


def _ended(database: str) -> dict[str, int]:
    query = "select state, count(*) from effects where step = 'mail' group by state"
    with psycopg.connect(database) as conn:
        return dict(conn.execute(query).fetchall())
