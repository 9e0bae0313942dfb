"""Proposes to send the events of past days again, and does so once somebody has read what it is."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg
from rich.console import Console

from marketing_pipeline.cli import asking, undecided
from marketing_pipeline.delivery import resending
from marketing_pipeline.delivery.assembly import assemble
from marketing_pipeline.delivery.replaying import Asked, CannotReplay
from marketing_pipeline.delivery.resending import Renewed, Resend
from marketing_pipeline.domain.event import EventType


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What was proposed, or written."""

    of: Resend
    found: Renewed
    proposed: bool
    seconds: float


def resend(wanted: Asked, epoch: int | None, plan_digest: str | None) -> Done:
    """Propose; or with the digest of what was proposed, write its plans.

    Raises:
        CannotReplay: it names the field, its problem and the remedy.
    """
    if epoch is None:
        raise CannotReplay("epoch: is missing; write --epoch 1, or one not used before")
    of, began = Resend(asked=wanted, epoch=epoch), time.monotonic()
    used = assemble(asking.used()).configuration

    async def made(conn: psycopg.AsyncConnection) -> Renewed:
        now = datetime.now(UTC)
        if plan_digest is None:
            return await resending.propose(conn, used, of, now)
        return await resending.resend(conn, used, of, plan_digest, undecided.login(), now)

    found = asking.ask(made)
    return Done(of=of, found=found, proposed=plan_digest is None, seconds=time.monotonic() - began)


def document(done: Done) -> dict[str, Any]:
    """What was done, as JSON takes it; nobody was called."""
    return {
        "events": done.found.events,
        "effects": done.found.effects,
        "digest": done.found.digest,
        "days": done.found.days,
        "differences": [],
        "calls": 0,
        "epoch": done.of.epoch,
        "plans_written": done.found.written,
        "seconds": round(done.seconds, 3),
    }


def show(console: Console, done: Done) -> None:
    """What it comes to, and what can be done next."""
    found, asked = done.found, done.of.asked
    console.print(
        f"{found.events:,} events of {asked.first} to {asked.last} come to "
        f"{found.effects:,} effects in epoch {done.of.epoch}"
    )
    console.print(f"digest {found.digest}", soft_wrap=True)
    if not done.proposed:
        console.print(f"{found.written:,} plans written; a delivery run sends them")
        return
    types = "" if asked.types == tuple(EventType) else f" --types {','.join(asked.types)}"
    console.print(
        f"nothing is sent yet. To send it: marketing-pipeline replay --from {asked.first} "
        f"--to {asked.last}{types} --mode resend --epoch {done.of.epoch} "
        f"--plan-digest {found.digest[:12]}",
        soft_wrap=True,
    )
