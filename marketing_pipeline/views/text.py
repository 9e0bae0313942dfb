"""A frame as bytes that are the same on every machine."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pandas as pd


def frame(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    """Rows under these columns, also where there are none.

    Values stay the Python objects that they are: left to guess, pandas turns a count beside a
    missing one into a float and an instant into what its version prefers.
    """
    return pd.DataFrame(
        {column: pd.Series([row[column] for row in rows], dtype=object) for column in columns}
    )


def csv(table: pd.DataFrame) -> str:
    """The frame as CSV: its columns and rows in their order, instants in UTC to the microsecond."""
    columns = list(table.columns)
    plain = [dict(zip(columns, map(_plain, row), strict=True)) for row in table.to_numpy(object)]
    return frame(plain, columns).to_csv(index=False, lineterminator="\n")


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return value
