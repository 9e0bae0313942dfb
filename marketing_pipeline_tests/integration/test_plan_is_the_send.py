"""Whatever happens around it: the effects made are the approved plan's, minus who left since."""

import asyncio
import uuid
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from marketing_pipeline import embedded
from marketing_pipeline.delivery import claiming, proposals, surveys
from marketing_pipeline.delivery.assembly import assemble
from marketing_pipeline.delivery.contents import Contents
from marketing_pipeline.delivery.surveys import mail_of
from marketing_pipeline.event_log import approvals
from marketing_pipeline.event_log.approvals import ProposalKind
from marketing_pipeline.settings import read
from marketing_pipeline_tests import campaigning
from marketing_pipeline_tests.campaigning import Log

CAMPAIGNS = ("careful", "agreed", "tried")
few = settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
people = st.lists(st.integers(0, 11), min_size=1, max_size=6, unique=True)
saying = st.fixed_dictionaries(
    {},
    optional={
        "consent": st.fixed_dictionaries({"news": st.booleans()}),
        "tags": st.sampled_from([["pest"], ["-pest"], []]),
    },
)
happenings = st.lists(
    st.one_of(
        st.tuples(st.just("lead"), people, saying),
        st.tuples(st.just("unsubscribe"), st.integers(0, 11)),
        st.tuples(st.just("news")),  # another campaign is planned and sent in between
        st.tuples(st.just("plan")),
        st.tuples(st.just("propose")),  # somebody looks again, and does not approve
    ),
    max_size=8,
)


async def happen(log: Log, what: tuple[Any, ...], campaign: str) -> None:
    match what:
        case ("lead", numbers, said):
            await log.leads(numbers, **said)
        case ("unsubscribe", number):
            rows = await log.rows(
                "select id from recipients where address = %s", f"p{number}@example.com"
            )
            if rows:
                await log.unsubscribe(number)
        case ("news",):
            await log.trigger("news")
            await log.plan()
        case ("plan",):
            await log.plan()
        case ("propose",):
            await proposals.propose(log.conn, log.used, campaign, now=log.later())


async def approved(log: Log, campaign: str) -> tuple[UUID, str, Mapping[str, str]]:
    """The event, the digest, and template by person, as they were read and agreed to."""
    shown: dict[str, str] = {}

    def watch(page: Any) -> None:
        for one in page.members:
            shown[one.recipient_id] = mail_of(page.step, one.recipient_id).template

    found = await proposals.propose(log.conn, log.used, campaign, now=log.later(), watch=watch)
    of = await approvals.proposal(log.conn, found.survey.digest, ProposalKind.CAMPAIGN, campaign)
    await approvals.approve(log.conn, of, who="ada", why="read", life=timedelta(hours=9))
    return found.sending.event.id, found.survey.digest, shown


async def claim_all(log: Log, folder: Path) -> None:
    """Claim everything once: who must not be mailed any more is suppressed here."""
    used = read(
        {
            "MARKETING_HOME": str(folder),
            "KEY": "k",
            "TOKEN": "t",
            "MARKETING_CAMPAIGNS": "pipeline.yaml",
        }
    )
    # A throttled campaign's mails come due one after the other.
    await log.conn.execute("update effects set due_at = now() - interval '1 hour'")
    destination = assemble(used).destinations["mail"]
    taken = True
    while taken:
        claim = await claiming.claim(log.conn, destination, Contents(), 50, claiming.front())
        taken = bool(claim.calls or claim.closed)


async def tell(
    log: Log, folder: Path, campaign: str, before: list[Any], between: list[Any], after: list[Any]
) -> None:
    await log.leads(range(4), consent={"news": True})
    for one in before:
        await happen(log, one, campaign)
    waiting = await log.trigger(campaign)
    event_id, digest, shown = await approved(log, campaign)
    assert event_id == waiting
    for one in between:
        await happen(log, one, campaign)
    await log.plan()
    made = await log.mailed(event_id)
    assert made == shown, "the effects are the approved plan's, whoever came or left meanwhile"
    [stored] = await log.rows("select digest from plans where event_id = %s", event_id)
    assert stored["digest"] == digest
    for one in after:
        await happen(log, one, campaign)
    await claim_all(log, folder)
    left = {
        str(row["recipient_id"])
        for row in await log.rows(
            "select recipient_id from suppressions where scope in ('all', 'email')"
        )
    }
    ended = await log.rows(
        "select recipient_id::text, state, last_error from effects where event_id = %s", event_id
    )
    for row in ended:
        gone = row["recipient_id"] in left
        assert row["state"] == ("SUPPRESSED" if gone else "SENDING")
        assert row["last_error"] == ("left" if gone else None), "each with its reason"
    event(f"{campaign}: {min(len(shown), 3)} mailed, {min(len(left & shown.keys()), 2)} left since")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    campaigning.write(tmp_path / "operator")
    return tmp_path / "operator"


@few
@given(campaign=st.sampled_from(CAMPAIGNS), before=happenings, between=happenings, after=happenings)
def test_the_plan_is_the_send(
    servers: embedded.Servers,
    template: str,
    folder: Path,
    campaign: str,
    before: list[Any],
    between: list[Any],
    after: list[Any],
) -> None:
    name = f"plan_{uuid.uuid4().hex}"
    with psycopg.connect(servers.database_url, autocommit=True) as admin:
        admin.execute(f'create database "{name}" template "{template}"'.encode())
        url = urlunsplit(urlsplit(servers.database_url)._replace(path=f"/{name}"))

        async def run() -> None:
            async with campaigning.log(url, folder / "pipeline.yaml") as log:
                await tell(log, folder, campaign, before, between, after)

        try:
            asyncio.run(run())
        finally:
            admin.execute(f'drop database "{name}" with (force)'.encode())


def test_a_send_that_reads_the_present_would_be_found_out(database: str, folder: Path) -> None:
    """The known-bad case: an engine that plans from now on instead of from the approved cut."""

    async def run() -> None:
        async with campaigning.log(database, folder / "pipeline.yaml") as log:
            await log.leads(range(3))
            await log.trigger("careful")
            event_id, _, shown = await approved(log, "careful")
            await log.leads([7])
            await log.conn.execute("update proposals set cut_seq = cut_seq + 100")
            await log.plan()
            assert await log.mailed(event_id) == {}, "another plan than the approved one is held"
            await log.conn.execute("delete from holds")
            fresh = await proposals.propose(log.conn, log.used, "careful", now=log.later())
            assert fresh.survey.count == len(shown) + 1
            change = await surveys.change(log.conn, fresh.sending, fresh.sending)
            assert (change.added, change.removed) == (0, 0)

    asyncio.run(run())
