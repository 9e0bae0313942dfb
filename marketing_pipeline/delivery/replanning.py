"""Plans events of few effects again, as their plans on record were made."""

from collections.abc import Mapping, Sequence

from psycopg import AsyncConnection

from marketing_pipeline.delivery import singles
from marketing_pipeline.delivery.singles import Known
from marketing_pipeline.domain import plan
from marketing_pipeline.domain.event import Event
from marketing_pipeline.domain.person import Member
from marketing_pipeline.domain.plan import PlannedEffect
from marketing_pipeline.domain.rules import Rules
from marketing_pipeline.event_log.cuts import Cut
from marketing_pipeline.event_log.planning import Plan

Then = tuple[Cut, str]  # what a plan read: facts up to a cut, and a version of the file
AllRules = Mapping[str, Rules]  # by their digest


async def known(
    conn: AsyncConnection, plans: Sequence[Plan], rules: AllRules
) -> Mapping[Then, Known]:
    """What the log said, at the time of each plan, of the one person whom it is for, if it is."""
    asked: dict[Then, list[Event]] = {}
    for promised in plans:
        if plan.needs_audience(promised.event):
            asked.setdefault(_then(promised), []).append(promised.event)
    return {
        (cut, file): await singles.known(conn, events, rules[file], cut)
        for (cut, file), events in asked.items()
    }


def effects(promised: Plan, rules: AllRules, known: Mapping[Then, Known]) -> list[PlannedEffect]:
    """The effects of a plan.

    Raises:
        Unplannable: the event names what the rules do not have, or nobody.
    """
    event, by, members = promised.event, rules[promised.config_digest], list[Member]()
    if plan.needs_audience(event):
        members, _ = singles.members(event, by, promised.cut, known[_then(promised)])
    epoch, version = promised.epoch, promised.plan_version
    return list(plan.effects(event, by, epoch, members, version, promised.starts_at))


def _then(promised: Plan) -> Then:
    return promised.cut, promised.config_digest
