"""Takes the books out of the ledger and out of the sandbox's record."""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime

import psycopg

from marketing_pipeline_tests.campaign_trial.agreement import Read
from marketing_pipeline_tests.campaign_trial.ground import Ground
from marketing_pipeline_tests.campaign_trial.judge import Act, Books, Entry, Send

_LEDGER = "select id::text, recipient_id::text, template, state, last_error from effects"
_SENDS = """
select effect_id::text, number = 1, started_at from attempts
where purpose = 'send' order by started_at, effect_id"""
_BALANCE = """
select coalesce(sum(abs(c.missing)), 0), coalesce(sum(c.open + c.unplanned), 0)
from (select min(day) as first, max(day) as last from marketing_events) as days,
     conservation(days.first, days.last) as c"""
_ACTS = "select key, recipient, at from acts order by n"
_CALLS = "select coalesce(fault, cast(status as text)), count(*) from calls group by 1"


def read(
    own: Ground,
    read: Read,
    people: Mapping[str, str],
    left: Mapping[str, datetime],
    paused: tuple[datetime, datetime] | None,
) -> Books:
    """people: ids by address."""
    with psycopg.connect(own.database) as conn:
        entries = conn.execute(_LEDGER).fetchall()
        sends = conn.execute(_SENDS).fetchall()
        balance = conn.execute(_BALANCE).fetchone()
    assert balance is not None
    with closing(sqlite3.connect(own.record)) as record:
        acts = record.execute(_ACTS).fetchall()
    return Books(
        approved=read.mailed,
        held_out=read.held_out,
        searchable=own.adapter == "mailgun",
        ledger={
            id: Entry(person=person, template=template, state=state, reason=reason)
            for id, person, template, state, reason in entries
        },
        acts=[
            Act(effect=key, person=people[address], at=datetime.fromtimestamp(at, UTC))
            for key, address, at in acts
        ],
        sends=[Send(effect=effect, first=first, at=at) for effect, first, at in sends],
        left=left,
        paused=paused,
        missing=int(balance[0]),
        open=int(balance[1]),
    )


def calls(own: Ground) -> dict[str, int]:
    """How often the sandbox was called, by the fault that hit it or the status it answered."""
    with closing(sqlite3.connect(own.record)) as record:
        return dict(record.execute(_CALLS).fetchall())
