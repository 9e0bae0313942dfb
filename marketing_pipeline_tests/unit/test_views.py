"""Views give the same bytes for the same rows, whatever order they come in."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pandas as pd
import pytest

from marketing_pipeline.views import campaign_performance, leads, text

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ANNA, BEN = UUID(int=1), UUID(int=2)
Row = dict[str, Any]


def lead(event: int, person: UUID, state: str | None, **other: Any) -> Row:
    row = {"event_id": UUID(int=event), "recipient_id": person, "source": "form", "origin": "live"}
    at = NOON + timedelta(minutes=event)
    effect = (
        {"step": "contact", "provider": "hubspot"} if state else {"step": None, "provider": None}
    )
    return {**row, "scheduled_at": at, **effect, "state": state, **other}


def campaign(event: int, provider: str | None, state: str | None, effects: int) -> Row:
    row = {"event_id": UUID(int=event), "campaign": "news", "scheduled_at": NOON, "planned": 7}
    epoch = 0 if provider else None
    counted = {"provider": provider, "state": state, "effects": effects, "retries": effects // 2}
    return {**row, "epoch": epoch, **counted}


LEADS = [
    lead(1, ANNA, "SENT"),
    lead(1, ANNA, "DOUBT", step="welcome", provider="resend"),
    lead(2, BEN, None, origin="history"),
    lead(3, ANNA, "FAILED", source='webinar, "spring"'),
]
CAMPAIGNS = [
    campaign(1, "mailgun", "SENT", 4),
    campaign(1, "mailgun", "PLANNED", 2),
    campaign(1, "mailgun", "SENDING", 1),
    campaign(2, None, None, 0),
    campaign(3, "resend", "UNKNOWN", 1),
    campaign(3, "mailgun", "SUPPRESSED", 1),
]
View = Callable[[pd.DataFrame], pd.DataFrame]


def content(view: View, rows: Sequence[Mapping[str, Any]], reads: Sequence[str]) -> str:
    return text.csv(view(text.frame(rows, reads)))


def test_a_person_who_came_twice_is_one_row_with_first_and_last_source() -> None:
    assert content(leads.leads, LEADS, leads.READS) == (
        "recipient_id,captures,imported,first_source,last_source,first_at,last_at,"
        "sent,failed,suppressed,unknown,open\n"
        f'{ANNA},2,0,form,"webinar, ""spring""",'
        "2026-03-01T12:01:00.000000Z,2026-03-01T12:03:00.000000Z,1,1,0,0,1\n"
        f"{BEN},1,1,form,form,2026-03-01T12:02:00.000000Z,2026-03-01T12:02:00.000000Z,0,0,0,0,0\n"
    )


def test_a_campaign_is_a_row_for_each_provider_with_open_states_as_one() -> None:
    assert content(
        campaign_performance.campaign_performance, CAMPAIGNS, campaign_performance.READS
    ) == (
        "campaign,event_id,epoch,provider,scheduled_at,planned,"
        "sent,failed,suppressed,unknown,open,retries\n"
        f"news,{UUID(int=1)},0,mailgun,2026-03-01T12:00:00.000000Z,7,4,0,0,0,3,3\n"
        f"news,{UUID(int=2)},,,2026-03-01T12:00:00.000000Z,7,0,0,0,0,0,0\n"
        f"news,{UUID(int=3)},0,mailgun,2026-03-01T12:00:00.000000Z,7,0,0,1,0,0,0\n"
        f"news,{UUID(int=3)},0,resend,2026-03-01T12:00:00.000000Z,7,0,0,0,1,0,0\n"
    )


VIEWS = pytest.mark.parametrize(
    ("view", "rows", "reads"),
    [
        (leads.leads, LEADS, leads.READS),
        (campaign_performance.campaign_performance, CAMPAIGNS, campaign_performance.READS),
    ],
)


@VIEWS
def test_the_order_of_the_rows_does_not_show(
    view: View, rows: list[Row], reads: Sequence[str]
) -> None:
    expected = content(view, rows, reads)
    for shuffled in itertools.islice(itertools.permutations(rows), 0, 720, 11):
        assert content(view, shuffled, reads) == expected


@VIEWS
def test_the_session_time_zone_of_the_database_does_not_show(
    view: View, rows: list[Row], reads: Sequence[str]
) -> None:
    east = timezone(timedelta(hours=9))
    moved = [{**row, "scheduled_at": row["scheduled_at"].astimezone(east)} for row in rows]
    assert content(view, moved, reads) == content(view, rows, reads)


@VIEWS
def test_a_day_on_which_nothing_happened_has_a_head_and_no_rows(
    view: View, rows: list[Row], reads: Sequence[str]
) -> None:
    assert content(view, [], reads).split("\n")[1:] == [""]
    assert content(view, rows, reads).split("\n")[0] == content(view, [], reads).split("\n")[0]


@VIEWS
def test_another_state_gives_other_bytes(view: View, rows: list[Row], reads: Sequence[str]) -> None:
    changed = [{**rows[0], "state": "UNKNOWN"}, *rows[1:]]
    assert content(view, changed, reads) != content(view, rows, reads)


def test_a_state_that_no_view_counts_is_refused() -> None:
    with pytest.raises(ValueError, match="LOST"):
        content(leads.leads, [lead(1, ANNA, "LOST")], leads.READS)
