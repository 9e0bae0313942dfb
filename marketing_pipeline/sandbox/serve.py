"""Serves the sandbox: in a process of its own, or beside a test."""

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from aiohttp import web

from marketing_pipeline.sandbox.app import create_app, now
from marketing_pipeline.sandbox.limits import Limit

LOOPBACK = "127.0.0.1"
_GRACE_SECONDS = 0.2  # for answers that are on their way; whoever hangs is cut off
_BACKLOG = 1024  # a burst of new connections must not look like a refusal


async def serve(
    host: str,
    port: int,
    record_path: Path,
    *,
    ready: Callable[[str], None] | None = None,
    limits: Mapping[str, Limit] | None = None,
) -> None:
    """Run until cancelled, SIGTERM or SIGINT; ready gets the base URL. Port 0 takes a free one.

    Nothing here asks who calls, so a host other than loopback opens it to the network.
    """
    app = create_app(record_path, limits=limits)
    runner, url = await _listen(app, host, port)
    try:
        if ready is not None:
            ready(url)
        await _told_to_stop()
    finally:
        await runner.cleanup()


@contextmanager
def running(record_path: Path, *, clock: Callable[[], datetime] = now) -> Iterator[str]:
    """A sandbox on a free loopback port, in a thread, as long as the block lasts; gives its URL."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="sandbox", daemon=True)
    thread.start()
    try:
        app = create_app(record_path, clock=clock)
        starting = asyncio.run_coroutine_threadsafe(_listen(app, LOOPBACK, 0), loop)
        runner, url = starting.result()
        try:
            yield url
        finally:
            asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _listen(app: web.Application, host: str, port: int) -> tuple[web.AppRunner, str]:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_GRACE_SECONDS)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, backlog=_BACKLOG).start()
    except OSError:
        await runner.cleanup()
        raise
    bound, taken = runner.addresses[0][:2]
    return runner, f"http://[{bound}]:{taken}" if ":" in bound else f"http://{bound}:{taken}"


async def _told_to_stop() -> None:
    """Signals reach the main thread only; elsewhere cancellation is the one way to end."""
    told = asyncio.Event()
    if threading.current_thread() is not threading.main_thread():
        await told.wait()
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, told.set)
    try:
        await told.wait()
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
