"""What must not be sent: a second time to a person, too late, or because history was imported."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from marketing_pipeline import settings
from marketing_pipeline.campaigns.document import ConfigError
from marketing_pipeline.delivery.assembly import assemble
from marketing_pipeline.domain import event
from marketing_pipeline.domain.event import EventType, NewEvent, Origin
from marketing_pipeline_tests.pipeline import Sandbox, post, record, run, states, statuses


def signup(form: str, *, due: datetime | None = None) -> NewEvent:
    """The same person on another form."""
    return event.new(
        type=EventType.LEAD_CAPTURE,
        payload={"email": "ada@example.com", "first_name": "Ada"},
        source="demo",
        key=f"{form}-{due}",
        now=datetime.now(UTC),
        scheduled_at=due,
    )


def say(home: Path, step: str, also: str) -> None:
    """Add to a step of the operator's file."""
    file = home / "campaigns" / "demo.yaml"
    text, count = re.subn(
        rf"\{{step: {step}, (.*)\}}", rf"{{step: {step}, \1, {also}}}", file.read_text()
    )
    assert count == 1
    file.write_text(text)


def reasons(database: str) -> list[str]:
    with psycopg.connect(database) as conn:
        rows = conn.execute("select last_error from effects where state = 'SUPPRESSED'").fetchall()
    return [row[0] for row in rows]


def mails(database: str) -> int:
    with psycopg.connect(database) as conn:
        row = conn.execute("select count(*) from effects where kind = 'email' and state = 'SENT'")
        return int(row.fetchone()[0])  # type: ignore[index]


def test_once_a_recipient_a_second_form_brings_no_second_welcome(
    used: settings.Settings, database: str, home: Path
) -> None:
    say(home, "welcome", "once: recipient")
    record(database, [signup("newsletter"), signup("webinar")])
    record(database, [signup("demo")])
    run(used)
    assert states(database) == {"SENT": 4, "SUPPRESSED": 2}
    assert mails(database) == 1
    assert set(reasons(database)) == {"once: another effect has reached this person, or will"}
    assert statuses(database) == {"COMPLETED": 3}


def test_without_once_each_form_brings_its_own(used: settings.Settings, database: str) -> None:
    """The known-bad case of the test above."""
    record(database, [signup("newsletter"), signup("webinar")])
    run(used)
    assert mails(database) == 2


def test_once_in_thirty_days_is_measured_from_when_the_last_was_due(
    used: settings.Settings, database: str, home: Path
) -> None:
    say(home, "welcome", "once: recipient/30d, max_age: never")
    now = datetime.now(UTC)
    for days in (62, 33, 31, 1):  # 62 sends, 33 is within, 31 sends again, 1 does (30 days on)
        record(database, [signup("form", due=now - timedelta(days=days))])
        run(used, linger=0.2)
    assert mails(database) == 3
    with psycopg.connect(database) as conn:
        rows = conn.execute(
            """select (%s::date - day) from effects where state = 'SUPPRESSED' order by 1""",
            [now.date()],
        ).fetchall()
    assert rows == [(33,)]


def test_what_comes_due_a_day_too_late_is_not_mailed_and_still_upserted(
    used: settings.Settings, database: str
) -> None:
    record(database, [signup("old", due=datetime.now(UTC) - timedelta(hours=25)), post(1)])
    record(database, [signup("fresh", due=datetime.now(UTC) - timedelta(hours=23))])
    run(used)
    assert states(database) == {"SENT": 4, "SUPPRESSED": 1}
    (reason,) = reasons(database)
    assert reason.startswith("stale: its time was up at ")
    assert statuses(database) == {"COMPLETED": 3}


def test_a_route_may_set_its_own_age(used: settings.Settings, database: str, home: Path) -> None:
    say(home, "welcome", "max_age: 1h")
    record(database, [signup("old", due=datetime.now(UTC) - timedelta(hours=2))])
    run(used)
    assert states(database) == {"SENT": 1, "SUPPRESSED": 1}


def test_imported_history_sends_nothing(
    used: settings.Settings, database: str, sandbox: Sandbox
) -> None:
    record(database, [replace(signup("import"), origin=Origin.HISTORY)])
    assert run(used).calls == 0
    assert states(database) == {}
    assert statuses(database) == {"COMPLETED": 1}
    assert sandbox.acts() == {}


@pytest.mark.parametrize(
    ("step", "also", "complaint"),
    [
        ("welcome", "once: person", "write event, recipient or recipient/30d"),
        ("welcome", "once: recipient/30", "'30' is no duration"),
        ("welcome", "max_age: soon", "'soon' is no duration"),
        ("post", "once: recipient", "a post has no recipient"),
    ],
)
def test_a_wrong_rule_is_refused_with_its_line(
    step: str, also: str, complaint: str, used: settings.Settings, home: Path
) -> None:
    say(home, step, also)
    with pytest.raises(ConfigError, match=complaint) as refused:
        assemble(used)
    line = next(
        number
        for number, text in enumerate((home / "campaigns" / "demo.yaml").read_text().split("\n"), 1)
        if also in text
    )
    assert f":{line}" in str(refused.value)
