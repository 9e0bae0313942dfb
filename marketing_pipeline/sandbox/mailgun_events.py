"""Mailgun's event search: what was accepted, once the index has caught up."""

import base64
import binascii
import json
import re
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from marketing_pipeline.sandbox.exchange import Answer, Call, Settings, in_json
from marketing_pipeline.sandbox.record import Record

FILTERS = frozenset({"message-id", "recipient"})
# What Mailgun documents besides; there is no filter for user variables.
ELSEWHERE = frozenset(
    {"list", "attachment", "from", "subject", "to", "size", "recipients", "tags", "severity"}
)
RANGE = frozenset({"begin", "end", "ascending", "limit", "event", "pretty"})
MOST_ITEMS = 300
USUAL_ITEMS = 100
_PAST = datetime(1970, 1, 1, tzinfo=UTC)
_FUTURE = datetime(9000, 1, 1, tzinfo=UTC)
_NUMBER = re.compile(r"\d+(\.\d+)?")

_SEARCH = """
select n, at, message_id, recipient, sender, subject, size from messages
where domain = :domain and at between :low and :high and at <= :visible
"""
_CLAUSES = {
    "message-id": "and message_id = :message_id",
    "recipient": "and recipient = :recipient",
}
_FORWARDS = "order by at, n limit :limit offset :offset"
_BACKWARDS = "order by at desc, n desc limit :limit offset :offset"


class BadSearch(ValueError):
    """Mailgun would not take this search; the message is what it answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    low: datetime
    high: datetime
    ascending: bool
    limit: int
    offset: int
    accepted: bool  # whether the wanted event types include the only one there is here
    filters: Mapping[str, str]  # by their documented names


def sought(call: Call) -> str | None:
    """The effect that a search is about, for the record."""
    message_id = call.query.get("message-id")
    return message_id.partition("@")[0] if message_id else None


def search(call: Call, settings: Settings, record: Record) -> Answer:
    try:
        query, offset = _page(call)
        wanted = _search(call, query, offset)
    except BadSearch as bad:
        return in_json(400, {"message": str(bad)})
    visible = call.at - settings.mailgun_index_delay
    rows = _matches(call, wanted, visible, record) if wanted.accepted else []
    paging = {
        "first": _link(call, query, 0),
        "previous": _link(call, query, max(0, offset - wanted.limit)),
        "next": _link(call, query, offset + len(rows)),
    }
    return in_json(200, {"items": [_event(row) for row in rows], "paging": paging})


def _matches(call: Call, wanted: Search, visible: datetime, record: Record) -> list[sqlite3.Row]:
    """What the index shows by now."""
    clauses = [clause for name, clause in _CLAUSES.items() if name in wanted.filters]
    order = _FORWARDS if wanted.ascending else _BACKWARDS
    return record.rows(
        "\n".join((_SEARCH, *clauses, order)),
        {
            "domain": call.parameters["domain"],
            "low": wanted.low.timestamp(),
            "high": wanted.high.timestamp(),
            "visible": visible.timestamp(),
            "message_id": wanted.filters.get("message-id"),
            "recipient": wanted.filters.get("recipient"),
            "limit": wanted.limit,
            "offset": wanted.offset,
        },
    )


def _search(call: Call, query: Mapping[str, str], offset: int) -> Search:
    for name in query:
        if name not in RANGE | FILTERS:
            known = "this stand-in does not" if name in ELSEWHERE else "Mailgun does not"
            raise BadSearch(f"{name}: {known} filter by it")
    begin, end, ascending = _range(call, query)
    types = query.get("event", "accepted").split(" OR ")
    return Search(
        low=begin if ascending else end,
        high=end if ascending else begin,
        ascending=ascending,
        limit=_limit(query),
        offset=offset,
        accepted="accepted" in (word.strip().lower() for word in types),
        filters={name: query[name] for name in FILTERS & query.keys()},
    )


def _range(call: Call, query: Mapping[str, str]) -> tuple[datetime, datetime, bool]:
    """Where the search starts, where it ends, and whether that is forwards in time.

    The defaults are Mailgun's: it starts now and goes back. So a search that only says
    `ascending=yes` sees the future alone, and nothing in it.
    """
    begin, end = _instant(query, "begin"), _instant(query, "end")
    word = query.get("ascending")
    if word not in (None, "yes", "no"):
        raise BadSearch("ascending: must be yes or no")
    if begin is not None and end is None and word is None:
        raise BadSearch("ascending: must be given where the range has no end")
    begin = begin or call.at
    ascending = word == "yes" if end is None else begin <= end
    if word is not None and ascending != (word == "yes"):
        raise BadSearch("ascending: does not agree with begin and end")
    return begin, end or (_FUTURE if ascending else _PAST), ascending


def _limit(query: Mapping[str, str]) -> int:
    text = query.get("limit", str(USUAL_ITEMS))
    if not text.isdecimal() or not 1 <= int(text) <= MOST_ITEMS:
        raise BadSearch(f"limit: must be a number from 1 to {MOST_ITEMS}")
    return int(text)


def _instant(query: Mapping[str, str], name: str) -> datetime | None:
    """Epoch seconds or an RFC 2822 date."""
    text = query.get(name)
    if text is None:
        return None
    try:
        if _NUMBER.fullmatch(text):
            return datetime.fromtimestamp(float(text), UTC)
        return parsedate_to_datetime(text)
    except (ValueError, OverflowError, OSError) as bad:
        raise BadSearch(f"{name}: must be epoch seconds or an RFC 2822 date") from bad


def _page(call: Call) -> tuple[Mapping[str, str], int]:
    """The query and offset: of the request itself, or of the page whose link it follows."""
    token = call.parameters.get("page")
    if token is None:
        return dict(call.query), 0
    try:
        query, offset = json.loads(base64.urlsafe_b64decode(token))
    except (binascii.Error, ValueError) as bad:
        raise BadSearch("page: not a link that was given out") from bad
    return query, offset


def _link(call: Call, query: Mapping[str, str], offset: int) -> str:
    token = base64.urlsafe_b64encode(json.dumps([dict(query), offset]).encode()).decode()
    events = call.path.partition("/events")[0] + "/events"
    return f"http://{call.headers.get('Host', '')}{events}/{token}"


def _event(row: sqlite3.Row) -> dict[str, object]:
    return {
        "event": "accepted",
        "id": f"accepted-{row['n']}",
        "timestamp": row["at"],
        "log-level": "info",
        "method": "HTTP",
        "recipient": row["recipient"],
        "recipient-domain": row["recipient"].partition("@")[2],
        "flags": {"is-authenticated": True, "is-test-mode": False},
        "tags": [],
        "user-variables": {},
        "message": {
            "headers": {
                "to": row["recipient"],
                "message-id": row["message_id"],
                "from": row["sender"],
                "subject": row["subject"],
            },
            "attachments": [],
            "size": row["size"],
        },
    }
