"""Triggers campaigns by hand, and shows when which is due and what became of the last time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import psycopg
from rich.console import Console
from rich.table import Table

from marketing_pipeline.campaigns.configuration import Configuration
from marketing_pipeline.campaigns.mailings import CampaignEntry
from marketing_pipeline.cli import asking, undecided
from marketing_pipeline.cli.redaction import Redaction
from marketing_pipeline.delivery import plan_requests, timetable, triggering
from marketing_pipeline.delivery.assembly import assemble
from marketing_pipeline.delivery.triggering import ByHand
from marketing_pipeline.domain import occurrences
from marketing_pipeline.event_log import approvals, triggers
from marketing_pipeline.event_log.intake import Recorded
from marketing_pipeline.event_log.triggers import Last, Step

_SHOWN = Redaction()
_OPEN = ("PLANNED", "SENDING", "DOUBT")
_COUNTED = ("SENT", "FAILED", "SUPPRESSED", "UNKNOWN")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What the log knows of the file's campaigns, by name, and of steps that are to come."""

    last: Mapping[str, Last]
    effects: Mapping[UUID, Mapping[str, int]]
    steps: Sequence[Step]


def trigger(name: str, at: str | None, why: str | None) -> tuple[Recorded, CampaignEntry]:
    """Record that a campaign is due now, or at an instant; what its schedule records there is the
    same event. Where a plan was approved for a trigger that nobody has given yet, this is it.

    Raises:
        CannotPlan: the file has no such campaign, or `at` is no instant with an offset.
        InvalidEvent: it is one that the log does not take.
    """
    used = assemble(asking.used()).configuration
    plan_requests.check_known("CAMPAIGN", used, name)
    now = datetime.now(UTC)
    asked = plan_requests.instant("--at", at)
    by_hand = ByHand(who=undecided.login(), why=why)

    async def record(conn: psycopg.AsyncConnection) -> Recorded:
        instant = asked
        if instant is None:
            agreed = await approvals.ready(conn, name, now)
            instant = now if agreed is None else agreed.occurrence
        assert instant is not None, "of a campaign there is one"
        return await triggering.trigger(conn, name, instant, now, by_hand)

    return asking.ask(record), used.file.campaigns[name]


def overview(now: datetime) -> dict[str, Any]:
    """All campaigns of the file and their sequences' steps, as JSON takes it."""
    used = assemble(asking.used()).configuration
    return document(used, asking.ask(lambda conn: _read(conn, used, now)), now)


def document(used: Configuration, found: Found, now: datetime) -> dict[str, Any]:
    return {
        "campaigns": [
            {
                "campaign": name,
                "schedule": _schedule(entry),
                "next": _next(entry, now),
                "last": _last(name, found),
            }
            for name, entry in used.file.campaigns.items()
        ],
        "sequences": [
            {
                "sequence": one.sequence,
                "step": one.step,
                "waiting": one.waiting,
                "next_at": _iso(one.next_at),
            }
            for one in found.steps
        ],
    }


def show(console: Console, told: Mapping[str, Any]) -> None:
    """A row for each campaign, what they wait for, and a row for each step that is to come."""
    table = Table("campaign", "schedule", "next", "last", "open", "sent", "failed")
    for one in told["campaigns"]:
        following, last = one["next"], one["last"]
        table.add_row(
            one["campaign"],
            one["schedule"] or "when it is triggered",
            following["text"] if following else "-",
            f"{last['status']}\n{last['scheduled_at'].replace('T', ' ')}" if last else "-",
            *(f"{last[state]:,}" if last else "-" for state in ("open", "sent", "failed")),
        )
    console.print(table)
    for one in told["campaigns"]:  # as lines, for commands that can be copied
        if one["last"] and one["last"]["waits_for"]:
            waits = f"{one['campaign']} waits: {one['last']['waits_for']}"
            console.print(waits, markup=False, highlight=False, soft_wrap=True)
    if told["sequences"]:
        steps = Table("sequence", "step", "people waiting", "the first at")
        for one in told["sequences"]:
            steps.add_row(one["sequence"], one["step"], f"{one['waiting']:,}", one["next_at"])
        console.print(steps)


async def _read(conn: psycopg.AsyncConnection, used: Configuration, now: datetime) -> Found:
    ids = [
        id
        for name, entry in used.file.campaigns.items()
        if entry.schedule is not None
        for id in triggering.latest_ids(name, entry.schedule.schedule(), now)
    ]
    last = await triggers.last(conn, list(used.file.campaigns), ids, now)
    effects = await triggers.effects_of(conn, [one.event_id for one in last.values()])
    return Found(last=last, effects=effects, steps=await triggers.steps_to_come(conn, now))


def _schedule(entry: CampaignEntry) -> str | None:
    return None if entry.schedule is None else timetable.in_words(entry.schedule.schedule())


def _next(entry: CampaignEntry, now: datetime) -> dict[str, str] | None:
    """The next occurrence, whether or not the schedule is switched on in Dagster."""
    if entry.schedule is None:
        return None
    following = occurrences.next_after(entry.schedule.schedule(), now)
    if following is None:
        return None
    zone = entry.schedule.timezone
    return {
        "utc": _iso(following.instant),
        "local": following.instant.astimezone(ZoneInfo(zone)).isoformat(),
        "timezone": zone,
        "text": timetable.moment(following.instant, zone),
    }


def _last(name: str, found: Found) -> dict[str, Any] | None:
    last = found.last.get(name)
    if last is None:
        return None
    states = found.effects[last.event_id]
    return {
        "event_id": str(last.event_id),
        "scheduled_at": _iso(last.scheduled_at),
        "status": last.status,
        "held": last.held,
        "open": sum(states.get(state, 0) for state in _OPEN),
        **{state.lower(): states.get(state, 0) for state in _COUNTED},
        "waits_for": _waits_for(name, last, states),
    }


def _waits_for(name: str, last: Last, states: Mapping[str, int]) -> str | None:
    """What has to happen for it to go on; None: nothing, or time alone."""
    if last.held is not None:
        remedy = f"; marketing-pipeline plan {name}" if last.held == "unapproved" else ""
        return f"{last.held}: {_SHOWN.text(last.held_because or '')}{remedy}"
    if undecided_ := states.get("UNKNOWN", 0):
        return f"for a person to decide about {undecided_:,}; marketing-pipeline unknown"
    if last.status == "FAILED" and last.last_error is not None:
        return f"for somebody to mend it: {_SHOWN.text(last.last_error)}"
    return "for its plan, by the next delivery run" if last.status == "PENDING" else None


def _iso(instant: datetime) -> str:
    return f"{instant.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
