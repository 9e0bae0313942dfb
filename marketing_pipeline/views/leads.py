"""The view `leads`: who left an address on a day, and what was done about it."""

import pandas as pd

from marketing_pipeline.views import states, text

READS = (
    "event_id",
    "recipient_id",
    "source",
    "origin",
    "scheduled_at",
    "step",
    "provider",
    "state",
)
COLUMNS = (
    "recipient_id",  # never an address: an erasure must not change a view
    "captures",  # how often the person came on that day
    "imported",  # how many of these are history
    "first_source",
    "last_source",
    "first_at",
    "last_at",
    *states.COUNTED,  # effects
)


def leads(effects: pd.DataFrame) -> pd.DataFrame:
    """A row for each person, the earliest first.

    Takes the columns `READS`, a row for each effect of a LEAD_CAPTURE and one with None for a
    lead without effects, in any order. Gives the columns `COLUMNS`.
    """
    ordered = effects.sort_values(["scheduled_at", "event_id"], key=_comparable)
    people = [_person(group) for _, group in ordered.groupby("recipient_id", sort=False)]
    return text.frame(people, COLUMNS)


def _person(effects: pd.DataFrame) -> dict[str, object]:
    captures = effects.drop_duplicates("event_id")
    first, last = captures.iloc[0], captures.iloc[-1]
    return {
        "recipient_id": first["recipient_id"],
        "captures": len(captures),
        "imported": int((captures["origin"] == "history").sum()),
        "first_source": first["source"],
        "last_source": last["source"],
        "first_at": first["scheduled_at"],
        "last_at": last["scheduled_at"],
        **states.counts((state, 1) for state in effects["state"]),
    }


def _comparable(column: pd.Series) -> pd.Series:
    return column.map(str) if column.name == "event_id" else column
