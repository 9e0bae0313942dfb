"""A plan as one document: for programs, the command line's tables and Dagster's pages alike."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from marketing_pipeline import telemetry
from marketing_pipeline.delivery.proposals import Shown
from marketing_pipeline.delivery.surveys import Change
from marketing_pipeline.domain import rules
from marketing_pipeline.event_log.approvals import Approval


def document(one: Shown) -> dict[str, Any]:
    """The plan as JSON takes it; people by their ids."""
    of, found = one.sending, one.survey
    names = {ref.hash: name for name, ref in of.rules.templates.items()}
    return {
        "campaign": of.event.payload["campaign"],
        "event_id": str(of.event.id),
        "recorded": one.exists,
        "occurrence": _iso(of.event.scheduled_at),
        "epoch": of.epoch,
        "cut": {"seq": of.cut.seq, "at": _iso(of.cut.at)},
        "config_digest": of.rules.digest,
        "plan_version": of.version,
        "digest": found.digest,
        "count": found.count,
        "mails": [
            {
                "step": mail.step,
                "provider": mail.provider,
                "variant": mail.variant or None,
                "template": mail.template,
                "template_name": names.get(mail.template),
                "people": many,
            }
            for mail, many in found.mails.most_common()
        ],
        "left_out": {str(why): many for why, many in found.excluded.most_common()},
        "reasons": [
            {"why": str(why), "detail": telemetry.redact(detail), "people": many}
            for (why, detail), many in found.details.most_common(50)
        ],
        "examples": {
            "mailed": found.mailed,
            "left_out": [
                {
                    "person": left.person,
                    "why": str(left.why),
                    "detail": telemetry.redact(left.detail),
                }
                for left in found.left_out
            ],
        },
        "before": _before(one),
        "sent": None if one.sent is None else {"digest": one.sent.digest, "count": one.sent.count},
        "approval": _approval(one.approval, rules.campaign_of(of.event, of.rules).approve),
        "drift": None if one.drift is None else _change(one.drift),
        "seconds": one.lasts.total_seconds(),
        "cost": dict(one.cost),
    }


def cost(told: Mapping[str, Any]) -> str:
    """What sending comes to, as far as the file says prices."""
    if not told["count"]:
        return "nothing"
    spent = (f"{amount:,.2f} {currency}" for currency, amount in told["cost"].items())
    return ", ".join(spent) or "the file says no price"


def lasts(told: Mapping[str, Any]) -> str:
    """How long sending takes at least."""
    return f"at least {timedelta(seconds=round(told['seconds']))} under the limits"


def since(told: Mapping[str, Any]) -> str:
    """What has changed since the campaign's last plan."""
    return _since("the last plan", told["before"]) if told["before"] else "no earlier plan"


def standing(told: Mapping[str, Any]) -> list[str]:
    """Whether it is planned, or approved already, and what that leaves out."""
    if told["sent"]:
        same = "the same" if told["sent"]["digest"] == told["digest"] else "another"
        return [f"planned already, {same} plan: {told['sent']['digest'][:12]}"]
    lines = [] if told["approval"] is None else [str(told["approval"]["said"])]
    if told["drift"]:
        lines.append(_since("the approved plan, left for the next", told["drift"]))
    return lines


def command(told: Mapping[str, Any]) -> str | None:
    """The command that approves it; None where nothing is left to approve, or it is of the past."""
    if told["sent"] or told["approval"] is None:
        return None
    return (
        f'marketing-pipeline approve {told["campaign"]} --digest {told["digest"][:12]} --why "..."'
    )


def _since(what: str, change: Mapping[str, Any]) -> str:
    return (
        f"since {what}: {change['added']:,} more, {change['removed']:,} fewer, "
        f"{change['other_mail']:,} with another mail"
    )


def _before(one: Shown) -> dict[str, Any] | None:
    if one.before is None or one.change is None:
        return None
    named = {"event_id": str(one.before.event.id), "digest": one.before.digest}
    return named | {"at": _iso(one.before.cut.at)} | _change(one.change)


def _change(change: Change) -> dict[str, Any]:
    return {
        "added": change.added,
        "removed": change.removed,
        "other_mail": change.other_mail,
        "examples": change.examples,
    }


def _approval(found: Approval | str | None, needed: bool) -> dict[str, Any] | None:
    if found is None:
        return None
    if isinstance(found, str):
        free = "nobody has to approve it; once approved, it is sent as just this plan"
        return {"approved": False, "needed": needed, "said": found if needed else free}
    until = _iso(found.expires_at)
    digest = found.proposal.digest
    said = f"{found.who} approved {digest[:12]} until {until}: {telemetry.redact(found.why)}"
    return {
        "approved": True,
        "needed": needed,
        "said": said,
        "digest": digest,
        "who": found.who,
        "until": until,
    }


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="seconds")
