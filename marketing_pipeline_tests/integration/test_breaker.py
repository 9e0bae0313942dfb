"""A provider that fails is left alone by the real engine, and taken up again by itself."""

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta

from marketing_pipeline import settings
from marketing_pipeline.delivery.assembly import assemble
from marketing_pipeline.delivery.run import deliver
from marketing_pipeline_tests.patience import until
from marketing_pipeline_tests.pipeline import Sandbox, lead, post, record, sent, states

POSTS = 100
IN_A_ROW = 20  # campaigns/demo.yaml
# Calls that have leave when it opens: two for each connection where they are brief.
CLAIMED = 2 * 10
PROBES = 3


def calls(sandbox: Sandbox, provider: str) -> int:
    with closing(sqlite3.connect(sandbox.record)) as file:
        found = file.execute("select count(*) from calls where provider = ?", (provider,))
        return int(found.fetchone()[0])


@contextmanager
def delivering(used: settings.Settings, linger: float) -> Iterator[threading.Thread]:
    assert used.database_url is not None
    assert used.redis_url is not None
    ends = threading.Event()
    places = {"database_url": used.database_url, "redis_url": used.redis_url}
    spans = {"linger": timedelta(seconds=linger), "max_run": timedelta(seconds=60)}
    run = threading.Thread(target=deliver, args=(assemble(used), ends), kwargs=places | spans)
    run.start()
    try:
        yield run
    finally:
        ends.set()
        run.join(60)


def test_a_provider_that_fails_is_tried_call_by_call_until_it_is_well(
    used: settings.Settings, database: str, sandbox: Sandbox
) -> None:
    sandbox.faults({"provider": "webhook", "kind": "error_before", "share": 1.0})
    record(database, [post(n) for n in range(POSTS)] + [lead(n) for n in range(10)])
    with delivering(used, linger=2) as run:
        until(lambda: states(database).get("SENT", 0) >= 20, "the others do not go on")
        until(lambda: calls(sandbox, "webhook") >= IN_A_ROW)
        time.sleep(3)
        assert calls(sandbox, "webhook") <= IN_A_ROW + CLAIMED + PROBES, "a probe a second at most"
        sandbox.faults()
        run.join(40)
    assert states(database) == {"SENT": POSTS + 20}
    assert set(sandbox.acts()) == sent(database)


def test_a_provider_that_is_not_left_alone_would_have_been_caught(
    used: settings.Settings, database: str, sandbox: Sandbox
) -> None:
    """The known-bad case: a breaker that nothing opens."""
    text = used.campaigns_file.read_text()
    cut = text.replace("{failures: 20, error_share: 0.5", "{failures: 10000, error_share: 1")
    assert cut != text, "campaigns/demo.yaml is not written as it was"
    used.campaigns_file.write_text(cut)
    sandbox.faults({"provider": "webhook", "kind": "error_before", "share": 1.0})
    record(database, [post(n) for n in range(POSTS)])
    with delivering(used, linger=2):
        until(lambda: calls(sandbox, "webhook") > IN_A_ROW + CLAIMED + PROBES)
