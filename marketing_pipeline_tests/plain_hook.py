"""Hooks that keep no keys, as Slack's and most others: what is sent to them twice is done twice."""

import sqlite3
from contextlib import closing
from pathlib import Path

NAME = (
    "plain"  # a webhook in a test's file whose name begins so is one of them; also in the trigger
)

_FORGET = """
create trigger plain_hooks_forget after insert on keys
when new.provider = 'webhook' and new.operation like 'plain%' begin
    delete from keys where provider = new.provider and operation = new.operation and key = new.key;
end
"""


def forgets(record: Path) -> None:
    """Have a running sandbox, whose record this is, forget the keys of such hooks at once."""
    with closing(sqlite3.connect(record)) as file, file:
        file.execute(_FORGET)
