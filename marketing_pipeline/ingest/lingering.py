"""Ends a connection whose request was not read to its end, so that the answer still arrives."""

import asyncio
from datetime import timedelta

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

_PATIENCE = timedelta(seconds=1)
_MOST = 1024 * 1024  # bytes that are thrown away; a sender with more than that loses the answer


class _Closing(Response):
    """Sends the answer at once and closes a little later.

    A socket that is closed over unread bytes resets the connection, and the sender's own system
    then throws away the answer that it had received. This is the lingering close of RFC 9112,
    section 9.6.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 (ASGI)
        headers = self.raw_headers
        await send({"type": "http.response.start", "status": self.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        await _discard(receive)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def closing(response: Response) -> Response:
    """The response itself, unless it asks for the connection to be closed."""
    if response.headers.get("connection") != "close":
        return response
    lingering = _Closing(response.body, response.status_code)
    lingering.raw_headers = response.raw_headers
    return lingering


async def _discard(receive: Receive) -> None:
    left = _MOST
    try:
        async with asyncio.timeout(_PATIENCE.total_seconds()):
            while left > 0:
                message = await receive()
                if not message.get("more_body", False):
                    return
                left -= len(message.get("body", b""))
    except TimeoutError:
        return
