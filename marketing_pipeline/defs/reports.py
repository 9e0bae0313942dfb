"""What Dagster shows of a day: the ledger's numbers as metadata."""

from collections.abc import Mapping, Sequence
from datetime import date

from dagster import AssetMaterialization, AssetObservation, MarkdownMetadataValue, MetadataValue

from marketing_pipeline import telemetry
from marketing_pipeline.delivery.verification import Verification
from marketing_pipeline.event_log.reading import Balance, Tally
from marketing_pipeline.event_log.story import Trouble

DELIVERIES = "deliveries"
EVENTS = "marketing_events"
Value = int | str | MarkdownMetadataValue


def of_day(tally: Tally) -> dict[str, Value]:
    """Counts by state, and a table by provider."""
    return {
        **{state.lower(): count for state, count in tally.states.items()},
        "effects": sum(tally.states.values()),
        "events": sum(tally.events.values()),
        "calls": tally.calls,
        "retries": tally.retries,
        "by_provider": MetadataValue.md(_by_provider(tally.providers)),
    }


def of_troubles(troubles: Sequence[Trouble]) -> dict[str, Value]:
    """What failed or waits for a person, with the command that tells its whole story."""
    if not troubles:
        return {"troubles": "none"}
    lines = [["effect", "provider", "state", "reason", "its story"], ["---"] * 5]
    for one in troubles:
        command = f"`marketing-pipeline explain {one.id}`"
        lines.append([str(one.id), one.provider, one.state, cell(one.reason), command])
    return {"troubles": MetadataValue.md(table(lines))}


def of_verification(found: Verification) -> dict[str, Value]:
    """What a replay of the day found."""
    return {
        "verified_effects": found.rendered,
        "erased": found.erased,
        "digest": found.digest,
        "differences": "\n".join(found.differences) or "none",
    }


def materialization(tally: Tally, troubles: Sequence[Trouble]) -> AssetMaterialization:
    """A day as the delivery run leaves it."""
    told = {**of_day(tally), **of_troubles(troubles)}
    return shown(tally.day.isoformat(), told)


def shown(partition: str, told: Mapping[str, Value]) -> AssetMaterialization:
    """A day on its page, whatever becomes of the run."""
    return AssetMaterialization(asset_key=DELIVERIES, partition=partition, metadata=told)


def observation(day: date, version: str) -> AssetObservation:
    return AssetObservation(
        asset_key=EVENTS, partition=day.isoformat(), tags={"dagster/data_version": version}
    )


def unbalanced(balances: list[Balance]) -> list[str]:
    """The days whose ledger does not hold what was planned, in words."""
    return [
        f"{one.day}: {abs(one.missing)} effects "
        + ("planned and not in the ledger" if one.missing > 0 else "in the ledger and not planned")
        for one in balances
        if one.missing != 0
    ]


def _by_provider(providers: Mapping[str, Mapping[str, int]]) -> str:
    states = sorted({state for counts in providers.values() for state in counts})
    lines = [["provider", *states], ["---"] * (len(states) + 1)]
    for provider, counts in sorted(providers.items()):
        lines.append([provider, *(str(counts.get(state, 0)) for state in states)])
    return table(lines)


def cell(text: str) -> str:
    """One line of a table, whatever a provider said, and nobody's address in it."""
    plain = " ".join(telemetry.redact(text).split())
    return plain.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "'")


def table(rows: Sequence[Sequence[str]]) -> str:
    """Markdown; the first two rows are its head, and the rule below that."""
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
