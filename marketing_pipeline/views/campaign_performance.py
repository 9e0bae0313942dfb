"""The view `campaign_performance`: how far each campaign of a day has come."""

import pandas as pd

from marketing_pipeline.views import states, text

READS = (
    "event_id",
    "campaign",
    "scheduled_at",
    "epoch",
    "planned",
    "provider",
    "state",
    "effects",
    "retries",
)
COLUMNS = (
    "campaign",
    "event_id",
    "epoch",  # 0, or higher where it was sent anew by name
    "provider",  # empty where nothing was planned
    "scheduled_at",
    "planned",  # effects that the plan promised, of all providers
    *states.COUNTED,
    "retries",  # sends after the first
)


def campaign_performance(effects: pd.DataFrame) -> pd.DataFrame:
    """A row for each campaign, epoch and provider, the earliest first.

    Takes the columns `READS`, a row for each state that effects stand in and one with None where
    there are none, in any order. Gives the columns `COLUMNS`.
    """
    ordered = effects.sort_values(["scheduled_at", "event_id", "epoch", "provider"], key=_present)
    groups = ordered.groupby(["event_id", "epoch", "provider"], sort=False, dropna=False)
    return text.frame([_campaign(group) for _, group in groups], COLUMNS)


def _campaign(effects: pd.DataFrame) -> dict[str, object]:
    first = effects.iloc[0]
    return {
        **{name: first[name] for name in COLUMNS[:6]},
        **states.counts(zip(effects["state"], effects["effects"], strict=True)),
        "retries": int(effects["retries"].sum()),
    }


def _present(column: pd.Series) -> pd.Series:
    """Something to sort by where there is no plan, or no effect."""
    if column.name == "epoch":
        return column.map(lambda epoch: -1 if epoch is None else epoch)
    return column.map(str) if column.name in {"event_id", "provider"} else column
