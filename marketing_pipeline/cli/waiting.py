"""Examines what waits for a person, and would go on waiting without a word."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import psycopg
from psycopg import AsyncConnection

from marketing_pipeline.campaigns.document import ConfigError
from marketing_pipeline.cli.finding import Finding
from marketing_pipeline.delivery.assembly import Assembly, assemble
from marketing_pipeline.event_log import holding, status
from marketing_pipeline.event_log.holding import Hold
from marketing_pipeline.ingest import feedback
from marketing_pipeline.providers import registry
from marketing_pipeline.settings import Settings

LONG = timedelta(days=1)  # within which whoever is asked to approve a plan may be expected to
_BACK = (
    "put the provider back into the file under this name until they have ended; what a campaign "
    "has not begun can be cancelled instead: marketing-pipeline campaign cancel NAME --why ..."
)


def in_log(used: Settings, database_url: str) -> list[Finding]:
    """What nobody can send, and what was to be approved long ago."""

    async def asked(providers: Sequence[str]) -> tuple[Mapping[str, int], list[Hold]]:
        async with await AsyncConnection.connect(database_url, autocommit=True) as conn:
            return await status.strays(conn, providers), await holding.holds(conn)

    try:
        strays, holds = asyncio.run(asked(list(assemble(used).destinations)))
    except (ConfigError, psycopg.OperationalError):
        return []  # other parts of the examination say so
    before = datetime.now(UTC) - LONG
    return [
        *(_stray(provider, many) for provider, many in strays.items()),
        *(_unapproved(one) for one in holds if one.state == "unapproved" and one.since < before),
    ]


def for_feedback(used: Settings, assembly: Assembly) -> list[Finding]:
    """Whose notices would be taken, in this environment; to do without them is no fault."""
    closed = feedback.openings(used).closed
    return [
        Finding(
            part=f"webhooks of {name}",
            passed=True,
            finding="no feedback is taken" if name in closed else "ready",
            remedy=closed.get(name, ""),
            note=name in closed,
        )
        for name, destination in assembly.destinations.items()
        if destination.entry.adapter in registry.READERS
    ]


def _stray(provider: str, many: int) -> Finding:
    return Finding(
        part=f"provider {provider}",
        passed=False,
        finding=f"{many:,} open effects wait for it, and the file has no provider of that name",
        remedy=_BACK,
    )


def _unapproved(hold: Hold) -> Finding:
    name, id = hold.campaign or str(hold.event_id), hold.event_id
    return Finding(
        part=f"campaign {name}",
        passed=True,
        finding=f"waits since {hold.since:%Y-%m-%d %H:%M:%SZ} ({id}): {hold.reason}",
        remedy=f"marketing-pipeline plan {name}, then approve it; or campaign cancel {id}",
        note=True,
    )
