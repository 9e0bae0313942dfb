"""The synchronous entrance to a delivery run, for a thread of whoever schedules it."""

import asyncio
import threading
from datetime import timedelta

from marketing_pipeline.delivery.assembly import Assembly
from marketing_pipeline.delivery.engine import Engine, Report
from marketing_pipeline.delivery.opening import engine
from marketing_pipeline.garbage import collected_seldom

__all__ = ["Report", "deliver"]


def deliver(
    assembly: Assembly,
    stop: threading.Event,
    *,
    database_url: str,
    redis_url: str,
    linger: timedelta | None = None,
    max_run: timedelta | None = None,
    run_id: str | None = None,
) -> Report:
    """Deliver until idle for `linger` (the file's, unless given) or until `stop` is set.

    After `stop`, what is in flight is settled before this returns.
    """
    delivery = assembly.configuration.file.delivery
    with collected_seldom():
        return asyncio.run(
            _deliver(
                assembly,
                database_url,
                redis_url,
                stop,
                linger=delivery.linger if linger is None else linger,
                max_run=delivery.max_run if max_run is None else max_run,
                run_id=run_id,
            )
        )


async def _deliver(
    assembly: Assembly,
    database_url: str,
    redis_url: str,
    stop: threading.Event,
    *,
    linger: timedelta,
    max_run: timedelta,
    run_id: str | None,
) -> Report:
    async with engine(assembly, database_url, redis_url, stop, run_id=run_id) as running:
        watcher = asyncio.create_task(_obey(stop, running))
        try:
            return await running.run(linger, max_run)
        finally:
            watcher.cancel()


async def _obey(stop: threading.Event, running: Engine) -> None:
    while not stop.is_set():  # noqa: ASYNC110  # another thread sets it: no asyncio.Event will do
        await asyncio.sleep(0.1)
    running.stopping.set()
