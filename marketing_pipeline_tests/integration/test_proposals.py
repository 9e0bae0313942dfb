"""A plan that is read before it is sent: it is sent just so, once, or not at all."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from psycopg import AsyncConnection

from marketing_pipeline.delivery import proposals
from marketing_pipeline.delivery.proposals import Shown
from marketing_pipeline.domain.audience import Why
from marketing_pipeline.domain.rules import Unplannable
from marketing_pipeline.event_log import approvals, intake, travel
from marketing_pipeline.event_log.approvals import Approval, CannotApprove, ProposalKind
from marketing_pipeline.event_log.travel import NoPast
from marketing_pipeline_tests import campaigning
from marketing_pipeline_tests.campaigning import Log

LIFE = timedelta(hours=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return campaigning.write(tmp_path / "campaigns")


def on(database: str, folder: Path, story: Callable[[Log], Awaitable[None]]) -> None:
    async def run() -> None:
        async with campaigning.log(database, folder) as log:
            await story(log)

    asyncio.run(run())


async def propose(log: Log, campaign: str, **options: Any) -> Shown:
    return await proposals.propose(log.conn, log.used, campaign, now=log.later(), **options)


async def approve(log: Log, shown: Shown, life: timedelta = LIFE) -> Approval:
    campaign = str(shown.sending.event.payload["campaign"])
    of = await approvals.proposal(
        log.conn, shown.survey.digest[:12], ProposalKind.CAMPAIGN, campaign
    )
    return await approvals.approve(log.conn, of, who="ada", why="read", life=life)


async def holds(log: Log) -> list[str]:
    return [row["reason"] for row in await log.rows("select reason from holds")]


def test_a_plan_says_who_gets_what_and_who_does_not_and_why(database: str, folder: Path) -> None:
    async def story(log: Log) -> None:
        await log.leads(range(20), consent={"news": True})
        await log.leads([20, 21])
        await log.leads([3], tags=["pest"])
        await log.unsubscribe(4)
        shown = await propose(log, "agreed")
        found = shown.survey
        assert found.count == 18
        assert found.excluded == {Why.NO_CONSENT: 2, Why.FILTERED: 1, Why.SUPPRESSED: 1}
        assert found.details[Why.FILTERED, "tagged pest"] == 1
        [mail] = found.mails
        assert (mail.step, mail.provider) == ("mail", "mail")
        assert shown.cost == {"EUR": 0.009}
        assert shown.lasts == timedelta(seconds=8), "18 at two a second"
        assert (shown.before, shown.sent, shown.exists) == (None, None, False)

    on(database, folder, story)


def test_a_split_is_shown_by_variant_with_its_holdout(database: str, folder: Path) -> None:
    async def story(log: Log) -> None:
        await log.leads(range(200))
        shown = await propose(log, "tried")
        by_variant = {mail.variant: many for mail, many in shown.survey.mails.items()}
        assert by_variant.keys() == {"one", "two"}
        assert sum(by_variant.values()) + shown.survey.excluded[Why.HOLDOUT] == 200
        assert 20 < shown.survey.excluded[Why.HOLDOUT] < 60
        assert shown.lasts == timedelta(seconds=shown.survey.count - 1), "its own pace is slower"

    on(database, folder, story)


def test_nothing_is_planned_before_somebody_approves(database: str, folder: Path) -> None:
    async def story(log: Log) -> None:
        await log.leads(range(5))
        await log.trigger("careful")
        await log.trigger("news")
        await log.plan()
        planned = await log.rows("select campaign from plans where campaign is not null")
        assert [row["campaign"] for row in planned] == ["news"], "which nobody has to approve"
        assert await holds(log) == ["its plan waits for somebody's approval"]

    on(database, folder, story)


def test_what_was_approved_is_what_is_sent(database: str, folder: Path) -> None:
    """People who came or left after it was shown are left for the next."""

    async def story(log: Log) -> None:
        await log.leads(range(5))
        event_id = await log.trigger("careful")
        await log.plan()
        shown = await propose(log, "careful")
        assert shown.sending.event.id == event_id, "it is of the trigger that waits"
        assert shown.exists
        await approve(log, shown)
        await log.leads([5, 6])
        await log.plan()
        [stored] = await log.rows(
            "select digest, count, inserted from plans where campaign = 'careful'"
        )
        assert stored == {"digest": shown.survey.digest, "count": 5, "inserted": 5}
        assert len(await log.mailed(event_id)) == 5
        assert await holds(log) == []

    on(database, folder, story)


def test_the_next_occurrence_can_be_approved_before_it_is_there(
    database: str, folder: Path
) -> None:
    async def story(log: Log) -> None:
        await log.leads(range(3))
        at = log.later(minutes=1)
        shown = await propose(log, "careful", at=at)
        assert not shown.exists
        await approve(log, shown)
        await log.leads([3])
        assert await log.trigger("careful", at) == shown.sending.event.id
        await log.plan()
        [stored] = await log.rows("select digest from plans where campaign is not null")
        assert stored["digest"] == shown.survey.digest

    on(database, folder, story)


def test_what_was_approved_for_an_occurrence_to_come_is_not_triggered_now(
    database: str, folder: Path
) -> None:
    async def story(log: Log) -> None:
        await log.leads(range(3))
        await approve(log, await propose(log, "careful", at=log.now + timedelta(days=1)))
        assert await approvals.ready(log.conn, "careful", log.later()) is None
        by_hand = await propose(log, "careful")
        await approve(log, by_hand)
        ready = await approvals.ready(log.conn, "careful", log.later())
        assert ready is not None
        assert ready.event_id == by_hand.sending.event.id

    on(database, folder, story)


def test_an_approval_lapses_when_its_time_is_up(database: str, folder: Path) -> None:
    async def story(log: Log) -> None:
        await log.leads(range(3))
        await log.trigger("careful")
        await approve(log, await propose(log, "careful"), timedelta(microseconds=1))
        log.later(hours=2)
        await log.plan()
        assert await log.rows("select from plans where campaign is not null") == []
        [reason] = await holds(log)
        assert "lapsed at" in reason

    on(database, folder, story)


@pytest.mark.parametrize("edit", [{"a": "<p>Other</p>"}, {"route": ", max_age: 2h"}])
def test_an_approval_lapses_when_a_template_or_the_file_changes(
    database: str, folder: Path, edit: dict[str, str]
) -> None:
    async def story(log: Log) -> None:
        await log.leads(range(3))
        await log.trigger("careful")
        await approve(log, await propose(log, "careful"))
        log.used = campaigning.load(campaigning.write(folder.parent, **edit))
        await log.plan()
        assert await log.rows("select from plans where campaign is not null") == []
        [reason] = await holds(log)
        assert reason.endswith("lapsed: the file or a template has changed since")
        await approve(log, await propose(log, "careful"))
        await log.plan()
        assert len(await log.rows("select from plans where campaign is not null")) == 1

    on(database, folder, story)


def test_an_approval_is_used_once(database: str, folder: Path) -> None:
    async def story(log: Log) -> None:
        await log.leads(range(3))
        await log.trigger("careful")
        shown = await propose(log, "careful")
        await approve(log, shown)
        await log.plan()
        with pytest.raises(CannotApprove, match="planned already"):
            await approve(log, shown)
        await log.conn.execute("update marketing_events set status = 'PENDING'")
        await log.trigger("careful")  # another one
        await log.plan()
        assert len(await log.rows("select from plans where campaign is not null")) == 1
        assert len(await log.rows("select from effects where route = 'CAMPAIGN_TRIGGER'")) == 3
        assert await holds(log) == ["its plan waits for somebody's approval"]

    on(database, folder, story)


def test_a_plan_that_comes_out_differently_is_held(database: str, folder: Path) -> None:
    """As when somebody has changed the log below its triggers."""

    async def story(log: Log) -> None:
        await log.leads(range(3))
        await log.trigger("careful")
        await approve(log, await propose(log, "careful"))
        await log.conn.execute("alter table marketing_events disable trigger user")
        await log.conn.execute(
            """update marketing_events set payload = payload || '{"first_name": "Eve"}'
               where payload ->> 'first_name' = 'P1'"""
        )
        await log.plan()
        [reason] = await holds(log)
        assert "comes out differently" in reason
        assert await log.rows("select from plans where campaign is not null") == []

    on(database, folder, story)


def test_drift_since_an_approval_and_since_the_last_plan_is_shown(
    database: str, folder: Path
) -> None:
    async def story(log: Log) -> None:
        await log.leads(range(10))
        await log.trigger("careful")
        await approve(log, await propose(log, "careful"))
        await log.plan()
        await log.leads([10, 11])
        await log.unsubscribe(0)
        shown = await propose(log, "careful")
        assert shown.before is not None
        assert shown.change is not None
        assert (shown.change.added, shown.change.removed, shown.change.other_mail) == (2, 1, 0)
        assert shown.change.examples["removed"] == [str(await log.person(0))]
        assert shown.drift is None
        await approve(log, shown)
        await log.leads([12])
        again = await propose(log, "careful")
        assert again.drift is not None
        assert (again.drift.added, again.drift.removed) == (1, 0)
        log.used = campaigning.load(campaigning.write(folder.parent, a="<p>New</p>"))
        edited = await propose(log, "careful")
        assert edited.change is not None
        assert edited.change.other_mail == 9, "everybody who stayed gets another mail"

    on(database, folder, story)


def test_who_was_sent_it_is_left_out_of_the_next_where_once_says_so(
    database: str, tmp_path: Path
) -> None:
    async def story(log: Log) -> None:
        await log.leads(range(4))
        await log.trigger("news")
        await log.plan()
        await log.send()
        await log.leads([4])
        shown = await propose(log, "news")
        assert shown.survey.count == 1
        assert shown.survey.excluded == {Why.ALREADY_SENT: 4}
        await log.trigger("news")
        await log.plan()
        counts = await log.rows(
            "select count, excluded from plans where campaign = 'news' order by created_at"
        )
        assert [row["count"] for row in counts] == [4, 1]
        assert counts[1]["excluded"] == {"already sent": 4}

    on(database, campaigning.write(tmp_path / "once", route=", once: recipient"), story)


def test_behaviour_filters_read_the_ledger_up_to_the_cut(database: str, folder: Path) -> None:
    async def story(log: Log) -> None:
        await log.leads(range(4))
        await log.trigger("news")
        await log.plan()
        before = log.later()
        await log.send()
        await log.leads([4])
        shown = await propose(log, "fresh")
        assert shown.survey.count == 1
        assert shown.survey.details == {(Why.FILTERED, "mailed within 7 days"): 4}
        then = await proposals.as_of(log.conn, log.used, "fresh", before)
        assert then.survey.count == 4, "nobody had been mailed by then, and the fifth had not come"
        log.later(days=8)
        assert (await propose(log, "fresh")).survey.count == 5

    on(database, folder, story)


def test_a_digest_must_name_one_plan(database: str, folder: Path) -> None:
    async def story(log: Log) -> None:
        await log.leads(range(2))
        shown = await propose(log, "careful")
        for digest, told in (
            ("abc", "first 8 digits"),
            ("zzzzzzzzzz", "first 8 digits"),
            ("0" * 64, "no plan of 'careful' was shown"),
        ):
            with pytest.raises(CannotApprove, match=told):
                await approvals.proposal(log.conn, digest, ProposalKind.CAMPAIGN, "careful")
        with pytest.raises(CannotApprove, match="no plan of 'tried'"):
            await approvals.proposal(log.conn, shown.survey.digest, ProposalKind.CAMPAIGN, "tried")
        with pytest.raises(Unplannable, match="no campaign 'gone'"):
            await propose(log, "gone")

    on(database, folder, story)


def test_the_past_is_planned_from_what_was_known_then(database: str, folder: Path) -> None:
    async def story(log: Log) -> None:
        with pytest.raises(NoPast, match="no delivery run had been awake"):
            await proposals.as_of(log.conn, log.used, "news", log.later())
        await log.plan()
        await log.leads(range(3))
        three = log.later()
        await log.leads([3, 4])
        await log.unsubscribe(0)
        five = log.later()
        log.used = campaigning.load(campaigning.write(folder.parent, a="<p>New</p>"))
        await log.plan()
        old = await proposals.as_of(log.conn, log.used, "news", three)
        [mail] = old.survey.mails
        assert (old.survey.count, old.approval) == (3, None)
        assert mail.template not in log.used.templates, "the template of that time"
        assert (await proposals.as_of(log.conn, log.used, "news", five)).survey.count == 4
        assert await log.rows("select from proposals") == [], "nothing is kept of the past"

    on(database, folder, story)


def test_every_past_plan_comes_out_again_at_its_instant(database: str, folder: Path) -> None:
    """Also where a transaction was open, and after a template and a route were edited."""

    async def story(log: Log) -> None:
        async with await AsyncConnection.connect(database) as slow:
            for round in range(4):
                await log.leads(range(round * 5, round * 5 + 5))
                await slow.execute("savepoint early")  # begun before the plan, numbered after it
                early = log.later()
                await log.trigger("news")
                await log.trigger("fresh")
                await log.plan()
                await _insert_lead(slow, 100 + round, early)
                await slow.commit()
                await log.unsubscribe(round)
                if round % 2:
                    await log.send()
                log.used = campaigning.load(
                    campaigning.write(
                        folder.parent, a=f"<p>{round}</p>", route=f", max_age: {round + 1}h"
                    )
                )
        stored = await log.rows(
            "select campaign, cut_at, cut_seq, digest, count from plans where campaign is not null"
        )
        assert len(stored) == 8
        for one in stored:
            then = await proposals.as_of(log.conn, log.used, one["campaign"], one["cut_at"])
            assert then.survey.digest == one["digest"]
            assert then.survey.count == one["count"]
            assert then.sending.cut.seq == one["cut_seq"]
            cut = await travel.cut_at(log.conn, one["cut_at"])
            assert cut.seq == one["cut_seq"], "also for a campaign that was not planned then"

    on(database, folder, story)


async def _insert_lead(conn: Any, number: int, at: Any) -> None:
    await intake.record(conn, [campaigning.lead(number, at)], at)
