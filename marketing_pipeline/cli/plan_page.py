"""Shows a plan: as one document for programs, as tables for people."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.console import Console
from rich.table import Table

from marketing_pipeline.cli.redaction import Redaction
from marketing_pipeline.delivery.proposals import Shown
from marketing_pipeline.delivery.surveys import Change
from marketing_pipeline.event_log.approvals import Approval

_SHOWN = Redaction()


def document(one: Shown) -> dict[str, Any]:
    """The plan as JSON takes it; people by their ids."""
    of, found = one.sending, one.survey
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
                "people": many,
            }
            for mail, many in found.mails.most_common()
        ],
        "left_out": {str(why): many for why, many in found.excluded.most_common()},
        "reasons": [
            {"why": str(why), "detail": _SHOWN.text(detail), "people": many}
            for (why, detail), many in found.details.most_common(50)
        ],
        "examples": {
            "mailed": found.mailed,
            "left_out": [
                {"person": left.person, "why": str(left.why), "detail": _SHOWN.text(left.detail)}
                for left in found.left_out
            ],
        },
        "before": _before(one),
        "sent": None if one.sent is None else {"digest": one.sent.digest, "count": one.sent.count},
        "approval": _approval(one.approval),
        "drift": None if one.drift is None else _change(one.drift),
        "seconds": one.lasts.total_seconds(),
        "cost": dict(one.cost),
    }


def show(console: Console, told: Mapping[str, Any]) -> None:
    """Tables for a terminal, and last what can be done with it."""
    console.print(f"[bold]{told['campaign']}[/] due {told['occurrence']}, event {told['event_id']}")
    console.print(
        f"as of {told['cut']['at']} (facts up to {told['cut']['seq']:,}), epoch {told['epoch']}"
    )
    mails = Table("step", "variant", "template", "provider", "people", title="who gets what")
    for one in told["mails"]:
        template, many = one["template"][:12], f"{one['people']:,}"
        mails.add_row(one["step"], one["variant"] or "-", template, one["provider"], many)
    console.print(mails)
    if told["reasons"]:
        left = Table("why", "detail", "people", title="who gets nothing")
        for one in told["reasons"]:
            left.add_row(one["why"], one["detail"], f"{one['people']:,}")
        console.print(left)
    for line in _lines(told):
        console.print(line, highlight=False, soft_wrap=True)


def _lines(told: Mapping[str, Any]) -> list[str]:
    lines = [_since("the last plan", told["before"])] if told["before"] else ["no earlier plan"]
    spent = ", ".join(f"{amount:,.2f} {currency}" for currency, amount in told["cost"].items())
    lines.append(
        f"{told['count']:,} mails, at least {timedelta(seconds=round(told['seconds']))} under the "
        f"limits, cost: {spent or 'the file says no price'}"
    )
    lines.append(f"digest {told['digest']}")
    if told["sent"]:
        same = "the same" if told["sent"]["digest"] == told["digest"] else "another"
        lines.append(f"planned already, {same} plan: {told['sent']['digest'][:12]}")
        return lines
    if told["approval"] is not None:
        lines.append(str(told["approval"]["said"]))
    if told["drift"]:
        lines.append(_since("the approved plan, left for the next", told["drift"]))
    if told["approval"] is not None:
        digest = told["digest"][:12]
        lines.append(f'marketing-pipeline approve {told["campaign"]} --digest {digest} --why "..."')
    return lines


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


def _approval(found: Approval | str | None) -> dict[str, Any] | None:
    if found is None:
        return None
    if isinstance(found, str):
        return {"approved": False, "said": found}
    until = _iso(found.expires_at)
    digest = found.proposal.digest
    said = f"{found.who} approved {digest[:12]} until {until}: {_SHOWN.text(found.why)}"
    return {"approved": True, "said": said, "digest": digest, "who": found.who, "until": until}


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="seconds")
