"""What a judge reads from the record."""

from collections.abc import Iterable

from marketing_pipeline.sandbox.record import Record

_CALLS = "select provider, count(*) as n from calls group by provider"
_ACTS = "select provider, count(*) as n from acts group by provider"
_UNKEYED = "select provider, count(*) as n from acts where key is null group by provider"
_REPEATS = "select count(*) as n from acts where repeat = 1"
_FAULTS = "select fault, count(*) as n from calls where fault is not null group by fault"
_PRESSURE = "select provider, peak, over_limit from pressure"
_TWICE = """
select key from acts where repeat = 0 and key is not null
group by provider, operation, key having count(*) > 1 order by min(n)
"""
# A repeat is harmless only if nobody else wrote to that contact in the meantime.
_STALE = """
select key from (
  select n, key, repeat, lag(key) over (partition by provider, recipient order by n) as previous
  from acts
) where repeat = 1 and previous is not key group by key order by min(n)
"""


def acts(record: Record, since: int) -> list[dict[str, object]]:
    return _listed(record, "select * from acts where n > :since order by n", since)


def calls(record: Record, since: int) -> list[dict[str, object]]:
    return _listed(record, "select * from calls where n > :since order by n", since)


def summary(record: Record, providers: Iterable[str]) -> dict[str, object]:
    """Counts by provider (all of them, zero included) and the keys that tell of a mistake.

    calls, acts: rows of the record; acts includes repeats. repeats: upserts done again, unchanged.
    twice: keys acted on more than once with effect. stale: keys whose repeat came after another
    write to the same contact, and so undid it. unkeyed: acts that nobody can attribute.
    faults: by kind. over_limit: calls refused for the limit. peak: the most calls seen in one
    window of the limit, refused ones included.
    """
    none = dict.fromkeys(providers, 0)
    pressure = record.rows(_PRESSURE)
    return {
        "calls": {**none, **_counts(record, _CALLS, "provider")},
        "acts": {**none, **_counts(record, _ACTS, "provider")},
        "repeats": record.rows(_REPEATS)[0]["n"],
        "twice": [row["key"] for row in record.rows(_TWICE)],
        "stale": [row["key"] for row in record.rows(_STALE)],
        "unkeyed": {**none, **_counts(record, _UNKEYED, "provider")},
        "faults": _counts(record, _FAULTS, "fault"),
        "over_limit": {**none, **{row["provider"]: row["over_limit"] for row in pressure}},
        "peak": {**none, **{row["provider"]: row["peak"] for row in pressure}},
    }


def _listed(record: Record, query: str, since: int) -> list[dict[str, object]]:
    return [dict(row) for row in record.rows(query, {"since": since})]


def _counts(record: Record, query: str, by: str) -> dict[str, int]:
    return {row[by]: row["n"] for row in record.rows(query)}
