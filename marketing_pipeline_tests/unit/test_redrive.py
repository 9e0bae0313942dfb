"""What may be tried once more by itself: only what certainly was not done and is still wanted."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from marketing_pipeline.domain import redrive
from marketing_pipeline.domain.audience import Audience
from marketing_pipeline.domain.effect import EffectKind
from marketing_pipeline.domain.event import Event, EventType, Origin
from marketing_pipeline.domain.redrive import FRESH, FailedEffect
from marketing_pipeline.domain.rules import (
    Campaign,
    Priority,
    Route,
    Rules,
    TemplateRef,
    Variant,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
FAILED = FailedEffect(
    id=UUID(int=1),
    event_id=UUID(int=2),
    provider="resend",
    last_outcome="UNREACHED",
    last_error="connection refused",
    redrives=0,
    expires_at=None,
    erased=False,
    suppressed=None,
    once_lost=False,
    superseded=False,
    cancelled=None,
    resent=False,
    forgotten=False,
)
NEWS = Campaign(
    audience=Audience(), variants=(Variant(template=TemplateRef(hash="b" * 64, reads=())),)
)
MAIL = Route(step="mail", provider="mailgun", kind=EffectKind.EMAIL, priority=Priority.BULK)
EVENT = Event(
    id=UUID(int=3),
    seq=7,
    type=EventType.CAMPAIGN_TRIGGER,
    payload={"campaign": "news"},
    source="web",
    origin=Origin.LIVE,
    scheduled_at=NOW,
    recipient_id=None,
)


def rules(**campaigns: Campaign) -> Rules:
    routes = {EventType.CAMPAIGN_TRIGGER: (MAIL,)}
    return Rules(digest="a" * 64, routes=routes, campaigns=campaigns)


@pytest.mark.parametrize("outcome", ["UNREACHED", "ABSENT"])
def test_what_never_reached_its_provider_is_sent_once_more(outcome: str) -> None:
    assert redrive.why_not(replace(FAILED, last_outcome=outcome), {"resend"}, NOW) is None


@pytest.mark.parametrize(
    ("but", "reason"),
    [
        ({"resent": True}, "resent: its event was planned again in a later epoch, which sends it"),
        ({"last_outcome": "REFUSED", "last_error": "no such user"}, "refused: no such user"),
        ({"last_outcome": "AMBIGUOUS"}, "ambiguous: connection refused"),
        ({"last_outcome": "ACCEPTED"}, "accepted: connection refused"),
        (
            {"last_outcome": None, "last_error": "cannot be rendered: x"},
            "never attempted: cannot be rendered: x",
        ),
        ({"redrives": 1}, "failed again after it was redriven: connection refused"),
        ({"forgotten": True}, "adopted: "),
        ({"erased": True}, "erased: "),
        ({"suppressed": "unsubscribed"}, "suppressed: unsubscribed"),
        ({"once_lost": True}, "once: "),
        ({"superseded": True}, "superseded: "),
        ({"expires_at": NOW}, "stale: its time was up at 2026-03-01 12:00:00Z"),
        ({"provider": "gone"}, "the file has no provider 'gone' any more"),
    ],
)
def test_each_reason_against_it_is_told(but: dict[str, Any], reason: str) -> None:
    told = redrive.why_not(replace(FAILED, **but), {"resend"}, NOW)
    assert told is not None
    assert told.startswith(reason)


def test_what_still_has_time_is_sent_once_more() -> None:
    later = replace(FAILED, expires_at=NOW + timedelta(seconds=1))
    assert redrive.why_not(later, {"resend"}, NOW) is None


def test_an_event_is_planned_again_when_the_file_has_what_it_names() -> None:
    reason = redrive.why_not_planned(EVENT, NOW, rules(), NOW)
    assert reason == "payload.campaign: no campaign 'news'; the file has: none"
    assert redrive.why_not_planned(EVENT, NOW, rules(news=NEWS), NOW) is None


def test_an_event_of_the_day_before_is_left_to_a_person() -> None:
    since = NOW - FRESH
    assert redrive.why_not_planned(EVENT, since, rules(news=NEWS), NOW) is None
    told = redrive.why_not_planned(EVENT, since - timedelta(seconds=1), rules(news=NEWS), NOW)
    assert told == "too old to be planned by itself: due since 2026-02-28 09:59:59Z"


def test_an_event_that_breaks_planning_is_told_and_stops_nobody() -> None:
    poisonous = replace(EVENT, type=EventType.CONTENT_PUBLISH)  # for which there is no route
    told = redrive.why_not_planned(poisonous, NOW, rules(news=NEWS), NOW)
    assert told == "planning raised KeyError: <EventType.CONTENT_PUBLISH: 'CONTENT_PUBLISH'>"
