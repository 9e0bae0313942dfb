"""The real engine in a process that may die; runs as a module too, by its environment.

Forked from a server that has imported everything, since a start of Python would take most of a
trial. Nothing of the product is changed here, except where a control asks for a fault in it.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from datetime import timedelta
from multiprocessing.connection import Connection

from marketing_pipeline import settings, telemetry
from marketing_pipeline.delivery import run as delivery
from marketing_pipeline.delivery.assembly import assemble
from marketing_pipeline.delivery.run import Report
from marketing_pipeline_tests.chaos import faulty

LINGER = timedelta(seconds=60)  # whoever started it says when it is enough


def run(
    environment: Mapping[str, str],
    variation: str | None = None,
    heeding: Callable[[], None] = lambda: None,
) -> Report:
    """Deliver until SIGTERM, by the environment.

    variation: one of faulty.VARIATIONS. heeding: called once SIGTERM no longer kills.
    """
    if variation is not None:
        faulty.VARIATIONS[variation]()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    heeding()
    used = settings.read(environment)
    assert used.database_url is not None
    assert used.redis_url is not None
    return delivery.deliver(
        assemble(used),
        stop,
        database_url=used.database_url,
        redis_url=used.redis_url,
        linger=LINGER,
        max_run=LINGER,
    )


def forked(
    environment: Mapping[str, str], log: str, variation: str | None, heeds: Connection
) -> None:
    """`run`, with what it says in a file of its own; see Engine.start."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, sys.stdout.fileno())
    os.dup2(descriptor, sys.stderr.fileno())
    telemetry.configure_logging()
    run(environment, variation, lambda: heeds.send(None))


if __name__ == "__main__":
    print(run(os.environ))
