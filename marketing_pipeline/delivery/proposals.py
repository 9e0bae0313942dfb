"""Plans that are shown before they are sent, and plans of the past: for one campaign at a time."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from psycopg import AsyncConnection

from marketing_pipeline.campaigns import meaning
from marketing_pipeline.campaigns.configuration import Configuration
from marketing_pipeline.campaigns.schema import ProviderEntry
from marketing_pipeline.delivery import campaigns, crowds, planner, surveys, triggering
from marketing_pipeline.delivery.crowds import EPOCH, Sending
from marketing_pipeline.delivery.surveys import Change, Survey, Watch
from marketing_pipeline.domain import occurrences, rules
from marketing_pipeline.domain.event import Event, EventType, Origin
from marketing_pipeline.event_log import approvals, planning, travel, versions
from marketing_pipeline.event_log.approvals import Approval, Proposal, ProposalKind
from marketing_pipeline.event_log.planning import Plan


class CannotPlan(ValueError):
    """What was asked for cannot be planned; says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A plan, and what a person wants to know beside it."""

    sending: Sending
    survey: Survey
    before: Plan | None  # the campaign's last plan
    change: Change | None  # since that
    sent: Plan | None  # the plan of this very event, where it was made already
    approval: Approval | str | None  # str: why none stands; None: of the past
    drift: Change | None  # since the approved plan
    lasts: timedelta  # at least, under the providers' limits and the campaign's own
    cost: Mapping[str, float]  # by currency
    exists: bool  # the event is in the log


async def propose(
    conn: AsyncConnection,
    used: Configuration,
    name: str,
    *,
    at: datetime | None = None,
    now: datetime,
    watch: Watch | None = None,
) -> Shown:
    """Plan a campaign as it would be sent now, and keep that it was shown.

    Of the occurrence `at`; else of the trigger that waits for its plan, or of the schedule's next
    one, or of a trigger by hand.

    Raises:
        CannotPlan: a writer of the log has been open for too long.
        Unplannable: there is no such campaign.
    """
    by = used.meaning.rules
    event, exists = await _subject(conn, used, name, at, now)
    cut = await campaigns.take_cut(conn, now)
    if cut is None:
        raise CannotPlan("a transaction that writes to the log stays open; end it and try again")
    of = Sending(event=event, rules=by, epoch=EPOCH, cut=cut)
    found = await surveys.survey(conn, of, watch)
    await planner.keep(conn, used, now)
    await approvals.propose(conn, _proposal(name, of, found), now)
    standing = await approvals.standing(conn, event.id, EPOCH, by.digest, now)
    drift = None
    if isinstance(standing, Approval):
        drift = await surveys.change(conn, crowds.approved(event, by, standing), of)
    return await _shown(conn, used, of, found, now, exists, standing, drift)


async def as_of(
    conn: AsyncConnection,
    used: Configuration,
    name: str,
    at: datetime,
    *,
    watch: Watch | None = None,
) -> Shown:
    """What would have been sent at an instant of the past, from what was known then.

    At the instant of a plan, that plan again. Nothing is kept.

    Raises:
        NoPast: nothing was in use by then.
        Unplannable: there was no such campaign.
    """
    made = await travel.plan_at(conn, name, at)
    if made is not None:
        by = meaning.of(await versions.config(conn, made.config_digest)).rules
        of, exists = crowds.sending(made, by), True
    else:
        digest = await travel.config_at(conn, at)
        by = meaning.of(await versions.config(conn, digest)).rules
        event = _hypothetical(name, at)
        cut = await travel.cut_at(conn, at)
        of, exists = Sending(event=event, rules=by, epoch=EPOCH, cut=cut), False
    found = await surveys.survey(conn, of, watch)
    return await _shown(conn, used, of, found, at, exists, None, None)


async def _subject(
    conn: AsyncConnection, used: Configuration, name: str, at: datetime | None, now: datetime
) -> tuple[Event, bool]:
    """The event to plan, and whether it is in the log."""
    if at is None:
        waiting = await travel.waiting(conn, name)
        if waiting is not None:
            return waiting, True
        entry = used.file.campaigns.get(name)
        if entry is not None and entry.schedule is not None:
            following = occurrences.next_after(entry.schedule.schedule(), now)
            at = None if following is None else following.instant
        else:
            seen = await approvals.ready(conn, name, now) or await approvals.shown(conn, name, now)
            at = None if seen is None else seen.occurrence
    event = _hypothetical(name, at or now)
    recorded = await travel.event(conn, event.id)
    return (event, False) if recorded is None else (recorded, True)


def _hypothetical(name: str, at: datetime) -> Event:
    """The event that the occurrence at this instant becomes: its id is known before it exists."""
    return Event(
        id=triggering.event_id(name, at),
        seq=0,
        type=EventType.CAMPAIGN_TRIGGER,
        payload={"campaign": name},
        source=triggering.SOURCE,
        origin=Origin.LIVE,
        scheduled_at=at,
        recipient_id=None,
    )


def _proposal(name: str, of: Sending, found: Survey) -> Proposal:
    return Proposal(
        digest=found.digest,
        kind=ProposalKind.CAMPAIGN,
        campaign=name,
        event_id=of.event.id,
        occurrence=of.event.scheduled_at,
        epoch=of.epoch,
        cut=of.cut,
        config_digest=of.rules.digest,
        plan_version=of.version,
        count=found.count,
        excluded={str(why): many for why, many in sorted(found.excluded.items())},
    )


async def _shown(
    conn: AsyncConnection,
    used: Configuration,
    of: Sending,
    found: Survey,
    before: datetime,
    exists: bool,
    approval: Approval | str | None,
    drift: Change | None,
) -> Shown:
    name = str(of.event.payload["campaign"])
    last = await travel.last_plan(conn, name, but_of=of.event.id, before=before)
    difference = None
    if last is not None:
        by = meaning.of(await versions.config(conn, last.config_digest)).rules
        difference = await surveys.change(conn, crowds.sending(last, by), of)
    calls = _calls(found)
    return Shown(
        sending=of,
        survey=found,
        before=last,
        change=difference,
        sent=await planning.plan(conn, of.event.id, of.epoch) if exists else None,
        approval=approval,
        drift=drift,
        lasts=_lasts(calls, used.file.providers, of, found.count),
        cost=_cost(calls, used.file.providers),
        exists=exists,
    )


def _calls(found: Survey) -> Mapping[str, int]:
    """By provider."""
    calls: Counter[str] = Counter()
    for mail, many in found.mails.items():
        calls[mail.provider] += many
    return calls


def _lasts(
    calls: Mapping[str, int], providers: Mapping[str, ProviderEntry], of: Sending, count: int
) -> timedelta:
    """How long it takes at least: each provider's windows, and the pace of the campaign."""
    spans = [
        many / limit.calls * limit.per - limit.per
        for name, many in calls.items()
        if name in providers
        for limit in providers[name].limits
    ]
    campaign = rules.campaign_of(of.event, of.rules)
    return max([timedelta(0), campaign.pace * max(count - 1, 0), *spans])


def _cost(calls: Mapping[str, int], providers: Mapping[str, ProviderEntry]) -> Mapping[str, float]:
    """By currency, of the providers whose price the file says."""
    cost: dict[str, float] = {}
    for name, many in sorted(calls.items()):
        price = providers[name].price if name in providers else None
        if price is not None:
            cost[price.currency] = cost.get(price.currency, 0.0) + many / 1000 * price.per_1000
    return cost
