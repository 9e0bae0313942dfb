"""How an answer, or the lack of one, reaches the client's socket."""

import asyncio
import socket
import struct

from aiohttp import web

from marketing_pipeline.sandbox.exchange import Answer
from marketing_pipeline.sandbox.faults import Kind, Rule

_LINGER_ZERO = struct.pack("ii", 1, 0)


async def deliver(
    request: web.Request, answer: Answer | None, rule: Rule | None
) -> web.StreamResponse:
    """What comes back is the answer, or a response that dies with the connection it is for."""
    match rule.kind if rule else None:
        case Kind.HANG_BEFORE | Kind.HANG_AFTER if rule:
            await asyncio.sleep(rule.seconds.total_seconds())
            _finish(request)
        case Kind.RESET_BEFORE | Kind.RESET_AFTER:
            _reset(request)
        case Kind.CLOSE_AFTER:
            _finish(request)
        case Kind.HALF_BODY_AFTER if answer:
            return await _half(request, answer)
        case _ if answer:
            return web.Response(
                status=answer.status,
                body=answer.body,
                content_type=answer.content_type,
                headers=answer.headers,
            )
    return web.Response(status=500)  # never sent: the connection is gone


async def _half(request: web.Request, answer: Answer) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, headers=answer.headers)
    response.content_type = answer.content_type
    response.content_length = len(answer.body)
    await response.prepare(request)
    await response.write(answer.body[: len(answer.body) // 2])
    _finish(request)
    return response


def _finish(request: web.Request) -> None:
    """FIN, after what has been written; the whole request was read, so no RST comes of it."""
    if request.transport is not None:
        request.transport.close()


def _reset(request: web.Request) -> None:
    if request.transport is None:
        return  # the client was faster
    connection = request.transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
    request.transport.abort()
