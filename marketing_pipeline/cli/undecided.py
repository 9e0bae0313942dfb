"""Shows what waits for a person, and carries out what the person decides."""

import getpass
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from rich.console import Console
from rich.text import Text

from marketing_pipeline.cli.redaction import Redaction
from marketing_pipeline.event_log.resolving import Action, CannotResolve, Resolution, Undecided

SHOWN = Redaction()


def decision(
    *, sent: bool, resend: bool, why: str, who: str | None, reference: str | None
) -> Resolution:
    """What the flags say.

    Raises:
        CannotResolve: not exactly one of both was given, or a text is empty.
    """
    if sent == resend:
        problem = "were both given" if sent else "are both missing"
        raise CannotResolve(f"--sent and --resend {problem}; give the one that you know to be so")
    return Resolution(
        action=Action.SENT if sent else Action.RESEND,
        why=why,
        who=who if who is not None else login(),
        reference=reference,
    )


def identified(effect: str) -> UUID:
    """The id of an effect.

    Raises:
        CannotResolve: it is none.
    """
    try:
        return UUID(effect)
    except ValueError as error:
        raise CannotResolve(
            f"EFFECT: {effect!r} is not the id of an effect; `marketing-pipeline unknown` lists"
        ) from error


def document(found: Sequence[Undecided], waiting: int) -> dict[str, Any]:
    """What waits, as JSON takes it, without anybody's address."""
    return {"waiting": waiting, "unknown": [describe(one) for one in found]}


def show(console: Console, told: Mapping[str, Any]) -> None:
    """A block for each effect, whose commands can be copied."""
    for one in told["unknown"]:
        show_one(console, one)
    more = told["waiting"] - len(told["unknown"])
    if more > 0:
        console.print(f"{more:,} more wait; show them with --limit {told['waiting']}")
    if not told["waiting"]:
        console.print("nothing waits for a person")


def show_one(console: Console, one: Mapping[str, Any]) -> None:
    whom = f" to {one['recipient']}" if one["recipient"] else ""
    since = f"{datetime.fromisoformat(one['since']):%Y-%m-%d %H:%M:%SZ}"
    title = f"{one['provider']} {one['kind']}{whom}, unknown since {since}"
    lines = (
        ("effect", one["effect_id"]),
        ("event", one["event_id"]),
        ("person", one["recipient_id"]),
        ("why", one["why"]),
        ("attempts", f"{one['attempts']}, the last at {one['last_attempt_at']}"),
        ("look for", one["look_up"]),
        ("it is there", one["resolve"]["sent"]),
        ("it is not", one["resolve"]["resend"]),
    )
    console.print(Text(title, style="bold"), soft_wrap=True)
    for name, value in lines:
        if value is not None:
            console.print(Text(f"  {name:<13}{value}"), soft_wrap=True)


def describe(one: Undecided) -> dict[str, Any]:
    """One of them, with the commands that settle it."""
    command = f"marketing-pipeline resolve {one.effect_id}"
    return {
        "effect_id": str(one.effect_id),
        "event_id": str(one.event_id),
        "provider": one.provider,
        "kind": one.kind,
        "recipient": SHOWN.value(one.address),
        "recipient_id": SHOWN.value(one.recipient_id),
        "since": one.since.astimezone(UTC).isoformat(),
        "why": SHOWN.text(one.why),
        "attempts": one.attempts,
        "first_attempt_at": one.first_attempt_at.astimezone(UTC).isoformat(),
        "last_attempt_at": one.last_attempt_at.astimezone(UTC).isoformat(),
        "look_up": _look_up(one),
        "resolve": {
            "sent": f'{command} --sent --why "..."',
            "resend": f'{command} --resend --why "..."',
        },
    }


def _look_up(one: Undecided) -> str:
    """What to search for, and where. Only the mail's own id tells it from one like it."""
    match one.setup.get("adapter"):
        case "mailgun":
            domain = one.setup.get("options", {}).get("domain")
            at = domain if isinstance(domain, str) else "your sending domain"
            return f"Message-Id {one.effect_id}@{at} in Mailgun's logs"
        case "resend":
            return (
                f"a mail to the person at the time of the attempts, in Resend's list of emails "
                f"(its request had the Idempotency-Key {one.effect_id})"
            )
        case "hubspot":
            return "the contact of the person in HubSpot, and when its properties changed"
        case "webhook" if one.setup.get("options", {}).get("deduplicates") is False:
            return "the post itself at the receiver, at the time of the attempts: it keeps no keys"
        case "webhook":
            return f"the Idempotency-Key {one.effect_id} in the receiver's log"
        case adapter:
            return f"{one.effect_id} in the provider's own record (adapter {adapter})"


def login() -> str:
    """Who runs this command."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run as a number that has no name
        return f"uid {os.getuid()}"
