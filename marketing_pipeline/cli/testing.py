"""Sends a template to one person, through everything that a campaign goes through."""

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime

import psycopg

from marketing_pipeline.cli import asking, previewing
from marketing_pipeline.domain import event
from marketing_pipeline.domain.event import EventType
from marketing_pipeline.event_log import intake
from marketing_pipeline.event_log.intake import Recorded
from marketing_pipeline.settings import Settings

SOURCE = "test"


def send(used: Settings, template: str, address: str, given: Sequence[str]) -> Recorded:
    """Record that a template is to be sent to this address, once it could be rendered for it.

    Raises:
        SystemExit: there is no such template, or a variable is missing.
        InvalidEvent: it is no address.
    """
    event.normal_address(address)
    variables = previewing.preview(used, template, address, given).variables
    now = datetime.now(UTC)

    async def record(conn: psycopg.AsyncConnection) -> Recorded:
        async with conn.transaction():
            person = await intake.recipient(conn, address, now)
            trigger = event.new(
                type=EventType.CAMPAIGN_TRIGGER,
                payload={
                    "campaign": f"test of {template}",
                    "template": template,
                    "recipient": str(person),
                    "variables": dict(variables),
                },
                source=SOURCE,
                key=str(uuid.uuid4()),  # each test is one of its own
                now=now,
            )
            [told] = await intake.record(conn, [trigger], now)
            return told

    return asking.ask(record)
