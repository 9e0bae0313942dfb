"""The ingest service as an ASGI application."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib import resources

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from marketing_pipeline.ingest import problem
from marketing_pipeline.ingest.batcher import Batcher
from marketing_pipeline.ingest.database import Unavailable
from marketing_pipeline.ingest.events import Events
from marketing_pipeline.ingest.health import Health
from marketing_pipeline.ingest.lingering import closing
from marketing_pipeline.ingest.problem import Rejected
from marketing_pipeline.ingest.senders import Senders
from marketing_pipeline.settings import Settings


def create_app(settings: Settings, database_url: str) -> Starlette:
    """The service that records into this database.

    It starts without the database too, and records as soon as that is there. `settings` only says
    what to advise when it is not: an embedded server is started otherwise than another.
    """
    senders, batcher = Senders(database_url), Batcher(database_url)
    events, health = Events(senders, batcher), Health(database_url, _advice(settings))

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(senders.close)
            stack.push_async_callback(health.close)
            await stack.enter_async_context(batcher)
            yield

    app = Starlette(
        routes=[
            Route("/events", events.post, methods=["POST"]),
            Route("/events/batch", events.post_batch, methods=["POST"]),
            Route("/healthz", health.alive, methods=["GET"]),
            Route("/readyz", health.ready, methods=["GET"]),
            Route("/openapi.json", _openapi, methods=["GET"]),
        ],
        exception_handlers={
            Rejected: _rejected,
            Unavailable: _unavailable,
            ClientDisconnect: _gone,
            HTTPException: _no_route,
            Exception: _fault,
        },
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # a redirected POST loses its body in many clients
    return app


def document() -> bytes:
    """The OpenAPI 3.1 description, as it is served."""
    return (resources.files("marketing_pipeline.ingest") / "openapi.json").read_bytes()


def _advice(settings: Settings) -> str:
    if settings.database_url is None:
        return "start the embedded server with `marketing-pipeline up`"
    return "check MARKETING_DATABASE_URL, and that its server runs"


async def _openapi(_: Request) -> Response:
    return Response(document(), media_type="application/json")


async def _rejected(_: Request, error: Exception) -> Response:
    assert isinstance(error, Rejected)
    return closing(error.problem.response())


async def _unavailable(_: Request, error: Exception) -> Response:
    return problem.unavailable(str(error)).response()


async def _gone(_: Request, __: Exception) -> Response:
    return Response(status_code=400)  # the sender went away: nobody reads this


async def _no_route(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        allow = ", ".join(sorted((error.headers or {})["Allow"].split(", ")))
        return problem.method_not_allowed(allow).response()
    return problem.not_found().response()


async def _fault(_: Request, __: Exception) -> Response:
    return problem.internal().response()  # the server logs it
