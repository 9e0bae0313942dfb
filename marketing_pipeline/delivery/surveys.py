"""A campaign's plan as one can read it before it is sent: who gets what, and who does not."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from itertools import islice

from psycopg import AsyncConnection

from marketing_pipeline.delivery import crowds
from marketing_pipeline.delivery.crowds import Page, Sending, Tally
from marketing_pipeline.domain.audience import LeftOut, Why
from marketing_pipeline.domain.stencil import Stencil

SHOWN = 20  # people of each kind that are named

Watch = Callable[[Page], None]  # is shown each page, for whoever writes all people down


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """What some of the people get."""

    step: str
    provider: str
    variant: str  # empty where there is one mail for all
    template: str  # its hash


@dataclass(slots=True, kw_only=True)
class Survey:
    """What a plan comes to."""

    digest: str = ""
    count: int = 0
    mails: Counter[Mail] = field(default_factory=Counter)
    excluded: Counter[Why] = field(default_factory=Counter)
    details: Counter[tuple[Why, str]] = field(default_factory=Counter)  # of those left out
    mailed: list[str] = field(default_factory=list)  # some of the people
    left_out: list[LeftOut] = field(default_factory=list)  # some, of each kind

    def add(self, page: Page) -> None:
        self.mails.update(mail_of(page.step, one.recipient_id) for one in page.members)
        self.mailed += [one.recipient_id for one in islice(page.members, SHOWN - len(self.mailed))]
        for one in page.left_out:
            self.excluded[one.why] += 1
            self.details[one.why, one.detail] += 1
            if self.excluded[one.why] <= SHOWN:
                self.left_out.append(one)


@dataclass(slots=True, kw_only=True)
class Change:
    """How a plan differs from another of the same campaign, person by person."""

    added: int = 0
    removed: int = 0
    other_mail: int = 0
    examples: dict[str, list[str]] = field(default_factory=dict)  # some people of each kind

    def note(self, kind: str, person: str) -> None:
        setattr(self, kind, getattr(self, kind) + 1)
        named = self.examples.setdefault(kind, [])
        if len(named) < SHOWN:
            named.append(person)


async def survey(conn: AsyncConnection, of: Sending, watch: Watch | None = None) -> Survey:
    """Go through the audience once, in bounded memory.

    Raises:
        Unplannable: the event names what the rules do not have.
    """
    found, tally = Survey(), Tally()
    async for page in crowds.crowd(conn, of):
        await tally.add(page)
        found.add(page)
        if watch is not None:
            watch(page)
        await asyncio.sleep(0)
    found.digest, found.count = tally.digest, tally.many
    return found


def mail_of(step: Stencil, person: str) -> Mail:
    """What a person who is mailed gets."""
    variant = step.campaign.variant_of(person)
    assert variant is not None, "those held out are left out before"
    return Mail(
        step=step.route.step,
        provider=step.route.provider,
        variant=variant.name,
        template=variant.template.hash,
    )


async def change(conn: AsyncConnection, old: Sending, new: Sending) -> Change:
    """What has changed from one plan of a campaign to another; both are read side by side."""
    found = Change()
    steps = {step.route.step for of in (old, new) for step in of.steps()}
    for name in sorted(steps):
        await _compare(
            _mails(conn, replace(old, only=name)), _mails(conn, replace(new, only=name)), found
        )
    return found


async def _compare(
    old: AsyncIterator[tuple[str, str]], new: AsyncIterator[tuple[str, str]], found: Change
) -> None:
    """Both come by person."""
    before, after = await anext(old, None), await anext(new, None)
    while before is not None or after is not None:
        if after is None or (before is not None and before[0] < after[0]):
            assert before is not None
            found.note("removed", before[0])
            before = await anext(old, None)
        elif before is None or after[0] < before[0]:
            found.note("added", after[0])
            after = await anext(new, None)
        else:
            if before[1] != after[1]:
                found.note("other_mail", after[0])
            before, after = await anext(old, None), await anext(new, None)


async def _mails(conn: AsyncConnection, of: Sending) -> AsyncIterator[tuple[str, str]]:
    """Person and template, by person."""
    if not any(of.steps()):
        return
    async for page in crowds.crowd(conn, of):
        for one in page.members:
            yield one.recipient_id, mail_of(page.step, one.recipient_id).template
