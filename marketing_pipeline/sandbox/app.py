"""The sandbox as a web application: each provider under its prefix, the controls beside them."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from aiohttp import web

from marketing_pipeline.sandbox import control
from marketing_pipeline.sandbox.desk import NOWHERE, PROVIDERS, Desk
from marketing_pipeline.sandbox.limits import DEFAULTS, Limit
from marketing_pipeline.sandbox.record import Record

LARGEST_BODY = 64 * 1024**2  # Mailgun takes 52 MiB


def now() -> datetime:
    return datetime.now(UTC)


def create_app(
    record_path: Path,
    *,
    clock: Callable[[], datetime] = now,
    limits: Mapping[str, Limit] | None = None,
) -> web.Application:
    """The application over a record that is made, or taken up again, at that path.

    clock: aware instants. It dates the record and moves the limits' windows, the life of
    idempotency keys and the search index; waits take real time. limits: those that differ from
    limits.DEFAULTS.
    """
    app = web.Application(client_max_size=LARGEST_BODY)
    record = Record(record_path)
    desk = Desk(record, clock, {**DEFAULTS, **(limits or {})})
    app.add_routes(control.routes(desk))
    for name, provider in PROVIDERS.items():
        for route in provider.ROUTES:
            handler = _handler(desk, name, route.operation)
            app.router.add_route(route.method, f"/{name}{route.path}", handler)
        app.router.add_route("*", f"/{name}{{rest:.*}}", _handler(desk, name, NOWHERE))

    async def closing(_: web.Application) -> AsyncIterator[None]:
        yield
        await desk.hooks.close()
        record.close()

    app.cleanup_ctx.append(closing)
    return app


def _handler(
    desk: Desk, name: str, operation: str | None
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(request: web.Request) -> web.StreamResponse:
        return await desk.exchange(name, operation, request)

    return handle
