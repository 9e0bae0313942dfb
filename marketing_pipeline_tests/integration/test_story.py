"""The whole story of something, told in the order in which it happened."""

import asyncio
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import psycopg
import pytest
from dagster import materialize, mem_io_manager

from marketing_pipeline import settings
from marketing_pipeline.cli import explanation, next_steps
from marketing_pipeline.cli.redaction import Redaction
from marketing_pipeline.defs import reports
from marketing_pipeline.defs.assets import deliveries
from marketing_pipeline.defs.resources import EventLog, Providers
from marketing_pipeline.event_log import finding, ledger, pauses, resolving, story
from marketing_pipeline.event_log.pauses import Pause
from marketing_pipeline.event_log.resolving import Action, Resolution
from marketing_pipeline.event_log.story import EventStory, NoStory, Standing, Story, Trouble
from marketing_pipeline_tests.fresh_settings import forget_settings
from marketing_pipeline_tests.pipeline import (
    Sandbox,
    campaign,
    campaign_name,
    lead,
    post,
    record,
    run,
)
from marketing_pipeline_tests.undecided import ask, forgotten, rows

SENT = Resolution(action=Action.SENT, why="it is in the provider's log", who="op")


def find(database: str, what: str, source: str | None = None, limit: int = 50) -> Story:
    return ask(database, lambda conn: finding.find(conn, what, source, limit))


def the_event(told: Story) -> EventStory:
    [one] = told.events
    return one


def test_a_story_goes_from_the_form_to_the_answer_in_the_order_of_time(
    used: settings.Settings, database: str, sandbox: Sandbox
) -> None:
    sandbox.faults({"provider": "resend", "kind": "close_after", "times": 1})
    record(database, [replace(lead(1), traceparent="00-a-b-01")])
    run(used, linger=3)
    [[person]] = rows(database, "select id from recipients")
    now = datetime.now(UTC)
    ask(database, lambda conn: ledger.suppress(conn, person, "all", "unsubscribed", now))
    told = the_event(find(database, str(lead(1).id)))
    assert [one.at for one in told.entries] == sorted(one.at for one in told.entries)
    mail = next(one for one in told.effects if one.kind == "email")
    heard = [
        (one.what, one.facts.get("outcome"), one.facts.get("status_code"))
        for one in told.entries
        if one.effect_id in (None, mail.id)
    ]
    assert heard == [
        ("recorded", None, None),
        ("planned", None, None),
        ("effect planned", None, None),
        ("attempt", "AMBIGUOUS", None),
        ("attempt", "ACCEPTED", 200),
        ("settled", None, None),
        ("suppressed", None, None),
    ]
    recorded, planned = told.entries[0].facts, told.entries[1].facts
    assert recorded["source"] == "demo"
    assert recorded["fingerprint"] == lead(1).fingerprint
    assert recorded["traceparent"] == "00-a-b-01"
    assert (planned["epoch"], planned["count"]) == (0, 2)
    assert told.states == {"SENT": 2}
    assert (told.status, mail.calls, mail.step) == ("COMPLETED", 2, "welcome")


def test_what_a_person_decided_is_part_of_the_story(used: settings.Settings, database: str) -> None:
    effect_id = forgotten(used)
    ask(database, lambda conn: resolving.resolve(conn, effect_id, SENT))
    told = the_event(find(database, str(effect_id)))
    [resolved] = [one for one in told.entries if one.what == "resolved"]
    assert resolved.facts["why"] == SENT.why
    assert [one.what for one in told.entries][-2:] == ["resolved", "settled"]


def test_one_thing_is_found_by_each_of_its_names(used: settings.Settings, database: str) -> None:
    record(database, [lead(1), campaign(campaign_name(used.home), "c1")])
    run(used)
    event_id = lead(1).id
    for what, source in (
        (str(event_id), None),
        (lead(1).idempotency_key, None),
        (lead(1).idempotency_key.upper(), None),
        ("lead-1", "demo"),
    ):
        told = find(database, what, source)
        assert (told.kind, the_event(told).id) == ("event", event_id)
        assert len(the_event(told).effects) == 2
    effects = rows(database, "select id, provider_ref, event_id, kind from effects")
    assert len(effects) == 3
    for effect_id, reference, of, kind in effects:
        by_id, by_reference = find(database, str(effect_id)), find(database, f" {reference} ")
        for told in (by_id, by_reference):
            assert the_event(told).id == of
            assert [one.id for one in the_event(told).effects] == [effect_id], kind
        assert (by_id.kind, by_reference.kind) == ("effect", "reference")
    [[message_id]] = rows(
        database, "select provider_ref from effects where provider like 'mailgun%'"
    )
    assert find(database, f"<{message_id}>").kind == "reference"
    told = find(database, "P1@Example.com")
    assert told.kind == "recipient"
    assert [one.type for one in told.events] == ["CAMPAIGN_TRIGGER", "LEAD_CAPTURE"]


def test_a_person_is_told_newest_first_and_no_further_than_asked(
    used: settings.Settings, database: str
) -> None:
    record(database, [lead(1)])
    again = [replace(lead(1), id=uuid.uuid4(), idempotency_key=str(uuid.uuid4())) for _ in "123"]
    for one in again:
        record(database, [one])
    run(used)
    told = find(database, "p1@example.com", limit=3)
    assert [one.id for one in told.events] == [one.id for one in reversed(again)]
    contact = next(e for e in told.events[0].effects if e.kind == "contact")
    assert contact.reference is not None
    known_by = find(database, contact.reference)
    assert len(known_by.events) == 4, "a contact of the CRM is one thing, however often written"


def test_a_campaign_tells_first_of_those_that_need_a_person(
    used: settings.Settings, database: str
) -> None:
    record(database, [lead(n) for n in range(5)])
    record(database, [campaign(campaign_name(used.home), "c1")])
    run(used)
    with psycopg.connect(database) as conn:
        conn.execute("set session_replication_role = replica")  # no trigger refuses it
        conn.execute(
            """update effects set state = 'UNKNOWN', doubt_since = first_attempt_at,
               last_error = 'who knows'
               where id::text in (select max(id::text) from effects where kind = 'email'
                                  and provider like 'mailgun%')"""
        )
    event_id = campaign("x", "c1").id
    told = the_event(ask(database, lambda conn: story.of_event(conn, event_id, 2)))
    assert [one.state for one in told.effects] == ["UNKNOWN", "SENT"]
    assert told.states == {"SENT": 4, "UNKNOWN": 1}
    assert next_steps.of_event(told, datetime.now(UTC)).startswith("waits for a person")


def test_causes_are_followed_both_ways(database: str) -> None:
    first, second, third = post(1), post(2), post(3)
    record(database, [first])
    record(database, [replace(second, caused_by=first.id)])
    record(database, [replace(third, caused_by=second.id)])
    begin, middle, end = (the_event(find(database, str(e.id))) for e in (first, second, third))
    assert (begin.causes, begin.caused) == ([], [second.id, third.id])
    assert (middle.causes, middle.caused) == ([first.id], [third.id])
    assert (end.causes, end.caused) == ([second.id, first.id], [])


def test_a_name_of_nothing_or_of_several_things_is_told_so(
    used: settings.Settings, database: str
) -> None:
    record(database, [lead(1), lead(2), post(1)])
    run(used)
    for nothing in ("", "nobody@example.com", str(uuid.uuid4()), "lead-1", "\x00", "%"):
        with pytest.raises(NoStory, match="nothing is known by the name"):
            find(database, nothing)
    with pytest.raises(NoStory, match="'shop' has sent no event with the key 'lead-1'"):
        find(database, "lead-1", "shop")
    with psycopg.connect(database) as conn:
        conn.execute("set session_replication_role = replica")
        conn.execute("update effects set provider_ref = 'same'")
        conn.execute("update effects set provider_ref = %s where kind = 'post'", [str(lead(1).id)])
    with pytest.raises(NoStory, match="several effects have the reference 'same'; ask for one"):
        find(database, "same")
    with pytest.raises(NoStory, match="names several things; ask for one by its id: event "):
        find(database, str(lead(1).id))


def test_an_address_is_shown_to_whoever_asked_by_it_and_to_nobody_else(
    used: settings.Settings, database: str
) -> None:
    forgotten(used, 1)  # its reason names p1@example.com
    now = datetime.now(UTC)

    def shown(what: str) -> str:
        return str(explanation.document(find(database, what), what, now))

    by_address, by_id = shown("p1@example.com"), shown(str(lead(1).id))
    assert "no clear answer about p1@example.com" in by_address
    assert "no clear answer about [address]" in by_id
    assert "@example.com" not in by_id


def test_an_address_that_merely_ends_like_the_one_asked_for_stays_hidden() -> None:
    shown = Redaction(asked="ann@example.com")
    text = "to Ann@example.com, <ann@example.com>, joann@example.com and ann@example.com.au"
    assert shown.text(text) == "to ann@example.com, <ann@example.com>, [address] and [address]"
    assert Redaction().text("to ann@example.com") == "to [address]"


def test_a_message_id_is_no_address(used: settings.Settings, database: str) -> None:
    record(database, [lead(1), campaign(campaign_name(used.home), "c1")])
    run(used)
    told = find(database, str(campaign("x", "c1").id))
    document = explanation.document(told, "it", datetime.now(UTC))
    [effect] = document["events"][0]["effects"]
    assert effect["reference"] == f"{effect['id']}@mg.example.com"


NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LATER = NOW + timedelta(seconds=10)
STANDING = Standing(
    id=UUID(int=1),
    event_id=UUID(int=2),
    step="welcome",
    provider="mail",
    setup={"adapter": "mailgun", "options": {}},
    kind="email",
    recipient_id=UUID(int=3),
    address="a@example.com",
    erased=False,
    state="PLANNED",
    attempts=0,
    calls=0,
    redrives=0,
    due_at=LATER,
    lease_until=None,
    doubt_since=None,
    expires_at=None,
    settled_at=None,
    reference=None,
    last_error=None,
    suppressed=None,
    paused_until=None,
    pause_reason=None,
    hold=None,
    hold_reason=None,
    held_due_at=None,
    waits_for=None,
)


@pytest.mark.parametrize(
    ("standing", "said"),
    [
        (STANDING, "waits for its time, 12:00:10 UTC"),
        (replace(STANDING, due_at=NOW + timedelta(days=1)), "time, 2026-03-02 12:00:00 UTC"),
        (replace(STANDING, due_at=NOW), "is due: a delivery run calls mail as soon as its limits"),
        (
            replace(STANDING, paused_until=LATER, pause_reason="401: no such key"),
            "waits for its gate: mail paused until 12:00:10 UTC because 401: no such key",
        ),
        (replace(STANDING, waits_for=UUID(int=7)), f"waits for effect {UUID(int=7)}"),
        (replace(STANDING, suppressed="unsubscribed"), "will be SUPPRESSED at 12:00:10 UTC: unsub"),
        (replace(STANDING, expires_at=NOW), "will be SUPPRESSED at 12:00:10 UTC: its time is up"),
        (replace(STANDING, erased=True), "will be SUPPRESSED at 12:00:10 UTC: the person's addr"),
        (replace(STANDING, state="DOUBT"), "waits for the look-up at 12:00:10 UTC"),
        (
            replace(STANDING, state="DOUBT", setup={"adapter": "resend"}),
            "waits to be sent again under the same key at 12:00:10 UTC",
        ),
        (
            replace(STANDING, state="DOUBT", setup={"adapter": "resend"}, suppressed="bounced"),
            "will be UNKNOWN at 12:00:10 UTC: bounced",
        ),
        (replace(STANDING, state="DOUBT", setup={"adapter": "gone"}), "will be UNKNOWN at"),
        (replace(STANDING, state="SENDING", lease_until=LATER), "waits for the provider's answer"),
        (
            replace(STANDING, state="SENDING", lease_until=NOW - timedelta(seconds=1)),
            "whoever called is gone: the next delivery run puts it in doubt",
        ),
        (replace(STANDING, state="UNKNOWN"), f"decide: marketing-pipeline resolve {UUID(int=1)}"),
        (replace(STANDING, state="SENT"), "nothing: the provider has it"),
        (replace(STANDING, state="SUPPRESSED"), "nothing: it must not be sent"),
        (replace(STANDING, state="FAILED"), "nothing, unless the daily job"),
    ],
)
def test_what_happens_next_is_said_in_words(standing: Standing, said: str) -> None:
    assert said in next_steps.of_effect(standing, NOW)


def test_a_pause_in_force_is_told_and_one_that_is_over_is_not(
    used: settings.Settings, database: str
) -> None:
    record(database, [lead(1)])
    run(used)
    now = datetime.now(UTC)
    [[provider]] = rows(database, "select provider from effects where kind = 'email'")

    def told_of(until: datetime) -> list[str]:
        held = Pause(provider=provider, until=until, reason="401")
        with psycopg.connect(database) as conn:
            conn.execute("delete from pauses")
        ask(database, lambda conn: pauses.keep(conn, held, now))
        told = the_event(find(database, str(lead(1).id)))
        assert {one.paused_until for one in told.effects} <= {None, until}
        return [one.facts["reason"] for one in told.entries if one.what == "paused"]

    assert told_of(now - timedelta(seconds=1)) == []
    assert told_of(now + timedelta(minutes=5)) == ["401"]


@pytest.mark.filterwarnings("ignore::dagster.BetaWarning")
def test_a_day_shows_what_failed_and_what_waits_for_a_person(
    used: settings.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in used.environment.items():
        monkeypatch.setenv(name, value)
    forget_settings()
    try:
        effect_id = forgotten(used)
        made = materialize(
            [deliveries],
            partition_key=datetime.now(UTC).date().isoformat(),
            resources={
                "event_log": EventLog(),
                "providers": Providers(),
                "io_manager": mem_io_manager,
            },
        )
    finally:
        forget_settings()
    [one] = made.asset_materializations_for_node("deliveries")
    shown = str(one.metadata["troubles"].value)
    assert f"`marketing-pipeline explain {effect_id}`" in shown
    assert "| UNKNOWN | no clear answer about [address] |" in shown
    assert "@" not in shown


def test_a_table_of_troubles_holds_whatever_a_provider_said() -> None:
    said = Trouble(id=UUID(int=1), provider="p", state="FAILED", reason="a|b\n<i>`x`</i> \\| c@d.e")
    [*_, line] = str(reports.of_troubles([said])["troubles"].value).splitlines()  # type: ignore[union-attr]
    assert line.replace("\\\\", "").replace("\\|", "").count("|") == 6
    assert "<i>" not in line
    assert "[address]" in line
    assert reports.of_troubles([]) == {"troubles": "none"}


def test_what_a_day_shows_is_bounded(used: settings.Settings, database: str) -> None:
    record(database, [lead(n) for n in range(30)])
    run(used)
    with psycopg.connect(database) as conn:
        conn.execute("set session_replication_role = replica")
        conn.execute("update effects set state = 'FAILED', last_error = 'no'")
        conn.execute(
            """update effects set state = 'UNKNOWN', doubt_since = first_attempt_at
               where id in (select id from effects order by settled_at desc limit 3)"""
        )
    day = datetime.now(UTC).date()
    told = ask(database, lambda conn: story.troubles(conn, day))
    assert [one.state for one in told] == ["UNKNOWN"] * 3 + ["FAILED"] * 17
    assert asyncio.run(_none(database)) == []


async def _none(database: str) -> list[Trouble]:
    async with await psycopg.AsyncConnection.connect(database) as conn:
        return await story.troubles(conn, datetime(2020, 1, 1, tzinfo=UTC).date())
