"""A plan that is read, approved and triggered, as an operator does with the command line."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

from psycopg import AsyncConnection

from marketing_pipeline import settings
from marketing_pipeline.delivery import proposals, triggering
from marketing_pipeline.delivery.assembly import assemble
from marketing_pipeline.delivery.crowds import Page
from marketing_pipeline.delivery.surveys import mail_of
from marketing_pipeline.domain.audience import Why
from marketing_pipeline.event_log import approvals
from marketing_pipeline.event_log.approvals import ProposalKind
from marketing_pipeline_tests.campaign_trial.ground import CAMPAIGN, Ground


@dataclass(slots=True)
class Read:
    """What the plan showed of everybody in the log."""

    digest: str = ""
    mailed: dict[str, str] = field(default_factory=dict)  # template by person
    held_out: set[str] = field(default_factory=set)

    def page(self, page: Page) -> None:
        for one in page.members:
            self.mailed[one.recipient_id] = mail_of(page.step, one.recipient_id).template
        self.held_out.update(one.person for one in page.left_out if one.why is Why.HOLDOUT)


async def propose(own: Ground) -> Read:
    """Plan the campaign and read all of it."""
    used = assemble(settings.read(own.environment)).configuration
    read = Read()
    async with await AsyncConnection.connect(own.database, autocommit=True) as conn:
        shown = await proposals.propose(
            conn, used, CAMPAIGN, now=datetime.now(UTC), watch=read.page
        )
    read.digest = shown.survey.digest
    return read


async def approve(own: Ground, read: Read) -> UUID:
    """Agree to just that plan and trigger the campaign; its event."""
    async with await AsyncConnection.connect(own.database, autocommit=True) as conn:
        of = await approvals.proposal(conn, read.digest, ProposalKind.CAMPAIGN, CAMPAIGN)
        life = timedelta(hours=1)
        await approvals.approve(conn, of, who="the trial", why="read in full", life=life)
        assert of.occurrence is not None
        told = await triggering.trigger(conn, CAMPAIGN, of.occurrence, datetime.now(UTC))
    return told.event_id
