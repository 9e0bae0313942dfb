"""A log of many leads and a campaign to all of them, filled in by SQL."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from benchmarks import installation
from benchmarks.installation import CHECKOUT, Installation

# Imported as history, which plans nothing. Ids of people are random. Some names are more common
# than others, as people's are: five people in eight have one of a quarter of them.
_LEADS = """
with people as (
    insert into recipients (id, address, created_at)
    select gen_random_uuid(), 'p' || n || '@example.com', now()
    from generate_series(1, %(people)s) n
    returning id, address
)
insert into marketing_events (id, idempotency_key, type, payload, source, origin, fingerprint,
    recipient_id, scheduled_at, created_at, status, updated_at)
select gen_random_uuid(), address, 'LEAD_CAPTURE',
       jsonb_build_object('first_name', 'Ada ' || floor(%(names)s * random() ^ 3), 'city', address),
       'crowd', 'history', repeat('a', 64), id, now(), now(), 'COMPLETED', now()
from people"""
_CAMPAIGN = """
insert into marketing_events (id, idempotency_key, type, payload, source, fingerprint, scheduled_at,
    created_at, updated_at)
values (gen_random_uuid(), 'all', 'CAMPAIGN_TRIGGER', '{"campaign": "news"}', 'crowd',
    repeat('a', 64), now(), now(), now())"""


@contextmanager
def crowd(people: int, names: int) -> Iterator[Installation]:
    """An installation with a campaign to so many people that is due.

    `names` is how many first names there are among them.
    """
    with installation.installation(linger="1s") as own:
        file = own.home / "campaigns" / "benchmark.yaml"
        text, audiences = re.subn(r"\{sources: \[demo\], newest: 50\}", "{}", file.read_text())
        assert audiences == 1, "campaigns/demo.yaml is not written as it was"
        file.write_text(text)
        with psycopg.connect(own.database_url, autocommit=True) as conn:
            conn.execute(_LEADS, {"people": people, "names": names})
            conn.execute(_CAMPAIGN)
            conn.execute("vacuum analyze")
            conn.execute("checkpoint")
        yield own


def alone(own: Installation, module: str, *arguments: str) -> dict[str, Any]:
    """What a process of its own found out, so that its memory is its own: JSON, its last line."""
    done = subprocess.run(  # noqa: S603 (our own programs)
        [sys.executable, "-m", module, *arguments],
        stdout=subprocess.PIPE,
        env={**own.env, "MARKETING_DATABASE_URL": own.database_url},
        cwd=CHECKOUT,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def peak_mib() -> float:
    """The most memory that this process ever held (VmHWM, so Linux only)."""
    found = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024
