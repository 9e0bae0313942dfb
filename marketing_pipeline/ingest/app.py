"""The ingest service as an ASGI application."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from importlib import resources
from typing import Any

from marketing_pipeline.ingest import problem
from marketing_pipeline.ingest.batcher import Batcher
from marketing_pipeline.ingest.database import Unavailable
from marketing_pipeline.ingest.events import Events
from marketing_pipeline.ingest.exchange import Answer, Gone, Receive, Request, Send
from marketing_pipeline.ingest.feedback import Feedback, openings
from marketing_pipeline.ingest.health import Health
from marketing_pipeline.ingest.problem import Rejected
from marketing_pipeline.ingest.senders import Senders
from marketing_pipeline.settings import Settings

Endpoint = Callable[[Request], Awaitable[Answer]]


class Ingest:
    """The service that records into this database.

    It starts without the database too, and records as soon as that is there.
    """

    def __init__(
        self, senders: Senders, batcher: Batcher, health: Health, feedback: Feedback
    ) -> None:
        events = Events(senders, batcher)
        self._parts = senders, batcher, health, feedback
        self._feedback = feedback
        self._endpoints: Mapping[str, tuple[str, Endpoint]] = {
            "/events": ("POST", events.post),
            "/events/batch": ("POST", events.post_batch),
            "/healthz": ("GET", health.alive),
            "/readyz": ("GET", health.ready),
            "/openapi.json": ("GET", _openapi),
        }

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        try:
            answer = await self._endpoint(scope)(Request(scope, receive))
        except Rejected as rejected:
            answer = rejected.problem.answer()
        except Unavailable as error:
            answer = problem.unavailable(str(error)).answer()
        except Gone:
            return
        except Exception:
            await problem.internal().answer().send(receive, send)
            raise  # the server logs it
        await answer.send(receive, send)

    def _endpoint(self, scope: Mapping[str, Any]) -> Endpoint:
        method, endpoint = self._endpoints.get(scope["path"], ("", None))
        folder, _, name = scope["path"].rpartition("/")
        if folder == "/webhooks" and name:
            method, endpoint = "POST", partial(self._feedback.post, name)
        if endpoint is None:
            raise Rejected(problem.not_found())
        if scope["method"] != method and (scope["method"], method) != ("HEAD", "GET"):
            allow = "GET, HEAD" if method == "GET" else method
            raise Rejected(problem.method_not_allowed(allow))
        return endpoint

    async def _live(self, receive: Receive, send: Send) -> None:
        """From the server's start to its end (https://asgi.readthedocs.io/en/latest/specs/lifespan.html)."""
        senders, batcher, health, feedback = self._parts
        await receive()
        async with AsyncExitStack() as stack:
            stack.push_async_callback(senders.close)
            stack.push_async_callback(health.close)
            stack.push_async_callback(feedback.close)
            await stack.enter_async_context(batcher)
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})


def create_app(settings: Settings, database_url: str) -> Ingest:
    """The service on this database.

    `settings` says what to advise when it is not there, since an embedded server is started
    otherwise than another, and whose webhooks are read.
    """
    health = Health(database_url, _advice(settings))
    feedback = Feedback(database_url, openings(settings))
    return Ingest(Senders(database_url), Batcher(database_url), health, feedback)


def document() -> bytes:
    """The OpenAPI 3.1 description, as it is served."""
    return (resources.files("marketing_pipeline.ingest") / "openapi.json").read_bytes()


def _advice(settings: Settings) -> str:
    if settings.database_url is None:
        return "start the embedded server with `marketing-pipeline up`"
    return "check MARKETING_DATABASE_URL, and that its server runs"


async def _openapi(_: Request) -> Answer:
    return Answer(200, document(), {"Content-Type": "application/json"})
