"""Days that are sent again: in a new epoch, once, to the same people, and only by name."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from psycopg import AsyncConnection

from marketing_pipeline.delivery import holding, replay, replaying, resending
from marketing_pipeline.delivery.replaying import CannotReplay
from marketing_pipeline.delivery.resending import Renewed, Resend
from marketing_pipeline.domain.event import Origin
from marketing_pipeline.event_log import intake, triggers
from marketing_pipeline.event_log.holding import Action, Said
from marketing_pipeline_tests import campaigning
from marketing_pipeline_tests.campaigning import Log


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return campaigning.write(tmp_path / "campaigns")


def on(database: str, folder: Path, story: Callable[[Log], Awaitable[None]]) -> None:
    async def run() -> None:
        async with campaigning.log(database, folder) as log:
            await story(log)

    asyncio.run(run())


def asked(*types: str, epoch: int = 1, **span: Any) -> Resend:
    today = datetime.now(UTC).date()
    first, last = span.get("first", date(2026, 1, 1)), span.get("last", today)
    return Resend(asked=replaying.asked(str(first), str(last), types, "resend"), epoch=epoch)


async def propose(log: Log, of: Resend) -> Renewed:
    return await resending.propose(log.conn, log.used, of, log.later())


async def resend(log: Log, of: Resend, digest: str) -> Renewed:
    return await resending.resend(log.conn, log.used, of, digest, "ada", log.later())


async def effects(log: Log) -> list[tuple[int, str, int]]:
    rows = await log.rows(
        "select epoch, state, count(*)::int as many from effects group by 1, 2 order by 1, 2"
    )
    return [(row["epoch"], row["state"], row["many"]) for row in rows]


async def day_is_right(log: Log) -> None:
    for row in await log.rows("select distinct day from plans"):
        assert (await replay.verify(log.conn, row["day"])).differences == ()
    [missing] = await log.rows(
        """select coalesce(sum(abs(missing)), 0)::int as many
           from conservation('2026-01-01', '2027-01-01')"""
    )
    assert missing["many"] == 0


def test_a_campaign_is_sent_again_with_another_mail_to_the_same_people(
    database: str, folder: Path
) -> None:
    async def story(log: Log) -> None:
        await log.leads(range(6))
        event_id = await log.trigger("news")
        await log.plan()
        await log.send()
        await log.leads([6, 7])  # came later: not of that campaign
        await log.unsubscribe(0)  # left later: planned for, and suppressed when its turn comes
        log.used = campaigning.load(campaigning.write(folder.parent, a="<p>Other</p>"))
        of = asked("CAMPAIGN_TRIGGER")
        proposed = await propose(log, of)
        assert (proposed.events, proposed.effects) == (1, 6)
        assert await log.rows("select from plans where epoch > 0") == [], "nothing is planned yet"
        done = await resend(log, of, proposed.digest[:12])
        assert (done.written, done.digest) == (1, proposed.digest)
        await log.plan()
        again = await log.rows(
            "select template, state, due_at from effects where event_id = %s and epoch = 1",
            event_id,
        )
        assert len(again) == 6
        assert {row["template"] for row in again} <= log.used.templates.keys()
        assert {row["state"] for row in again} == {"PLANNED"}
        assert all(row["due_at"] > log.now.replace(minute=0, second=0) for row in again)
        await day_is_right(log)
        told = await triggers.effects_of(log.conn, [event_id])
        assert told == {event_id: {"PLANNED": 6}}, "of its last time, and not of both"
        repeated = await resend(log, of, proposed.digest)
        assert repeated.written == 0, "an epoch is planned once"
        assert len(await log.rows("select from approvals")) == 1

    on(database, folder, story)


def test_leads_and_steps_are_sent_again_too(database: str, folder: Path) -> None:
    async def story(log: Log) -> None:
        await log.leads(range(700))  # more than a slice
        await log.plan()
        await log.send()
        of = asked("LEAD_CAPTURE")
        proposed = await propose(log, of)
        done = await resend(log, of, proposed.digest)
        assert (done.events, done.effects, done.written) == (700, 700, 700)
        assert await effects(log) == [(0, "SENT", 700), (1, "PLANNED", 700)]
        await day_is_right(log)

    on(database, folder, story)


def test_who_is_still_open_in_another_epoch_is_left_out(database: str, folder: Path) -> None:
    async def story(log: Log) -> None:
        await log.leads(range(4))
        event_id = await log.trigger("news")
        await log.plan()
        await log.send()
        await log.conn.execute("alter table effects disable trigger user")
        await log.conn.execute(
            """update effects set state = 'UNKNOWN', last_error = '?', doubt_since = now()
               where id in (select id from effects where kind = 'email' order by id limit 1)"""
        )
        await log.conn.execute("alter table effects enable trigger user")
        of = asked("CAMPAIGN_TRIGGER")
        proposed = await propose(log, of)
        assert proposed.effects == 4, "the plan promises all: what is open changes by the minute"
        await resend(log, of, proposed.digest)
        await log.plan()
        rows = await log.rows(
            """select state, last_error from effects where event_id = %s and epoch = 1
               order by state""",
            event_id,
        )
        assert [row["state"] for row in rows] == ["PLANNED"] * 3 + ["SUPPRESSED"]
        assert rows[-1]["last_error"].startswith("open in epoch 0")
        await day_is_right(log)

    on(database, folder, story)


def test_old_data_does_not_replace_newer(database: str, folder: Path) -> None:
    async def story(log: Log) -> None:
        await log.leads([1])
        await log.leads([1], first_name="Newer")
        await log.plan()
        await log.send()
        of = asked("LEAD_CAPTURE")
        await resend(log, of, (await propose(log, of)).digest)
        rows = await log.rows(
            "select state, last_error from effects where epoch = 1 order by event_seq"
        )
        assert [row["state"] for row in rows] == ["SUPPRESSED", "PLANNED"]
        assert rows[0]["last_error"].startswith("superseded")

    on(database, folder, story)


def test_history_is_never_sent_and_a_test_not_again(database: str, folder: Path) -> None:
    async def story(log: Log) -> None:
        at = log.later()
        old = replace(campaigning.lead(1, at), origin=Origin.HISTORY)
        async with log.conn.transaction():
            await intake.record(log.conn, [old], at)
        await log.plan()
        proposed = await propose(log, asked())
        assert (proposed.events, proposed.effects) == (0, 0)

    on(database, folder, story)


def test_what_was_cancelled_is_not_sent_again(database: str, folder: Path) -> None:
    async def story(log: Log) -> None:
        await log.leads(range(5))
        cancelled = await log.trigger("news")
        await log.plan()
        said = Said(why="wrong month", who="ada")
        await holding.control(log.conn, Action.CANCEL, str(cancelled), said, lambda _: None)
        await log.trigger("news")
        await log.plan()
        await log.send()
        of = asked("CAMPAIGN_TRIGGER")
        proposed = await propose(log, of)
        assert (proposed.events, proposed.effects) == (1, 5), "the other one only"
        await resend(log, of, proposed.digest)
        await log.plan()
        rows = await log.rows("select from plans where event_id = %s and epoch = 1", cancelled)
        assert rows == []
        assert await effects(log) == [(0, "SENT", 10), (0, "SUPPRESSED", 5), (1, "PLANNED", 5)]
        await day_is_right(log)

    on(database, folder, story)


def test_a_campaign_that_is_cancelled_after_the_proposal_makes_it_lapse(
    database: str, folder: Path
) -> None:
    async def story(log: Log) -> None:
        await log.leads(range(3))
        event_id = await log.trigger("news")
        await log.plan()
        of = asked("CAMPAIGN_TRIGGER")
        proposed = await propose(log, of)
        said = Said(why="wrong month", who="ada")
        await holding.control(log.conn, Action.CANCEL, str(event_id), said, lambda _: None)
        with pytest.raises(CannotReplay, match="come out differently by now"):
            await resend(log, of, proposed.digest)
        assert await log.rows("select from plans where epoch = 1") == []

    on(database, folder, story)


def test_an_epoch_is_asked_for_by_name_and_a_plan_by_its_digest(
    database: str, folder: Path
) -> None:
    async def story(log: Log) -> None:
        await log.leads(range(3))
        await log.trigger("news")
        await log.plan()
        await log.send()
        of = asked("CAMPAIGN_TRIGGER")
        with pytest.raises(CannotReplay, match="epoch: 0 is the first sending itself"):
            await propose(log, replace(of, epoch=0))
        digest = (await propose(log, of)).digest
        for wrong, told in (
            ((of, "0" * 64), "plan_digest: digest: no plan was shown"),
            ((replace(of, epoch=2), digest), "another epoch or other types"),
            ((asked(), digest), "another epoch or other types"),
            ((asked("CAMPAIGN_TRIGGER", first="2025-12-31"), digest), "keep within them"),
        ):
            with pytest.raises(CannotReplay, match=told):
                await resend(log, *wrong)
        log.used = campaigning.load(campaigning.write(folder.parent, a="<p>Other</p>"))
        with pytest.raises(CannotReplay, match="the file or a template has changed"):
            await resend(log, of, digest)
        assert await log.rows("select from plans where epoch > 0") == []
        await resend(log, of, (await propose(log, of)).digest)
        await log.plan()
        log.used = campaigning.load(campaigning.write(folder.parent, a="<p>Third</p>"))
        third = await propose(log, of)
        with pytest.raises(CannotReplay, match="epoch: 1 was used for another plan"):
            await resend(log, of, third.digest)
        await log.conn.execute("update proposals set created_at = created_at - interval '25 hours'")
        with pytest.raises(CannotReplay, match="it lapsed after 1 day"):
            await resend(log, replace(of, epoch=1), third.digest)

    on(database, folder, story)


def test_days_are_sent_again_one_by_one_or_all_at_once(database: str, folder: Path) -> None:
    """As a backfill's runs do, in whatever order, and again after some of them have failed."""

    async def story(log: Log) -> None:
        days = [date(2026, 3, day) for day in (1, 2, 3)]
        log.now = datetime(2026, 3, 1, 9, tzinfo=UTC)
        for day in days:
            log.now = datetime(day.year, day.month, day.day, 9, tzinfo=UTC)
            await log.leads(range(day.day * 10, day.day * 10 + 4))
            await log.trigger("news")
            await log.plan()
        await log.conn.execute("update effects set expires_at = null")
        await log.send()
        log.now = datetime.now(UTC)
        whole = asked(first=days[0], last=days[-1])
        digest = (await propose(log, whole)).digest
        written = []
        for day in (days[1], days[0], days[1], days[2]):
            done = await resend(log, asked(first=day, last=day), digest)
            written.append(done.written)
        assert written == [5, 5, 0, 5]
        assert (await resend(log, whole, digest)).written == 0
        await log.plan()
        [row] = await log.rows("select count(*)::int as many from effects where epoch = 1")
        assert row["many"] == 4 + 8 + 12 + 12, "the leads, and each campaign's people of its time"
        await day_is_right(log)

    on(database, folder, story)


def test_two_who_send_again_at_once_plan_it_once(database: str, folder: Path) -> None:
    async def story(log: Log) -> None:
        await log.leads(range(50))
        await log.plan()
        await log.send()
        of = asked("LEAD_CAPTURE")
        digest = (await propose(log, of)).digest
        async with await AsyncConnection.connect(database, autocommit=True) as other:
            rival = Log(conn=other, used=log.used, now=log.now)
            await asyncio.gather(resend(log, of, digest), resend(rival, of, digest))
        assert await effects(log) == [(0, "SENT", 50), (1, "PLANNED", 50)]
        await day_is_right(log)

    on(database, folder, story)


def test_a_resend_that_took_more_people_would_be_found_out(database: str, folder: Path) -> None:
    """The known-bad case of the digest: the facts that the first plan read have been changed."""

    async def story(log: Log) -> None:
        await log.leads(range(3))
        await log.trigger("news")
        await log.plan()
        await log.send()
        of = asked("CAMPAIGN_TRIGGER")
        digest = (await propose(log, of)).digest
        await log.leads([3])
        await log.conn.execute(
            "update plans set cut_seq = cut_seq + 100 where campaign is not null"
        )
        with pytest.raises(CannotReplay, match="come out differently by now"):
            await resend(log, of, digest)

    on(database, folder, story)
