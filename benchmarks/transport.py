"""Calls a second over loopback: our transport against bare aiohttp, in the same run.

    python -m benchmarks.transport [--quick]

POSTs 300 bytes to benchmarks/provider.py; the clients take turns.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from uuid import UUID

import aiohttp
import httpx
import uvloop

from benchmarks import figures, provider
from benchmarks.figures import Line, compared
from marketing_pipeline.domain.effect import Post
from marketing_pipeline.domain.outcome import Accepted
from marketing_pipeline.providers import http, registry
from marketing_pipeline.providers.transport import Limits, Transport

BODY = b'{"text":"' + b"x" * 289 + b'"}'
IN_FLIGHT = (10, 50, 100)
Call = Callable[[], Awaitable[None]]


async def rate(call: Call, in_flight: int, calls: int) -> float:
    async def work(times: int) -> None:
        for _ in range(times):
            await call()

    await asyncio.gather(*(work(3) for _ in range(in_flight)))  # opens the connections
    began = time.perf_counter()
    await asyncio.gather(*(work(calls // in_flight) for _ in range(in_flight)))
    return (calls // in_flight) * in_flight / (time.perf_counter() - began)


def bare(session: aiohttp.ClientSession, url: str) -> Call:
    async def call() -> None:
        headers = {"Content-Type": "application/json", "Idempotency-Key": "k"}
        async with session.post(url, data=BODY, headers=headers) as response:
            await response.read()
            assert response.status == 200

    return call


def ours(transport: Transport, url: str) -> Call:
    address = httpx.URL(url)

    async def call() -> None:
        headers = {"Content-Type": "application/json", "Idempotency-Key": "k"}
        request = httpx.Request("POST", address, content=BODY, headers=headers)
        response = await transport.send(request, before_write=lambda: None)
        assert response.status_code == 200

    return call


def adapter(transport: Transport, url: str) -> Call:
    hook = registry.build("hook", "webhook", {"url": url})
    effect, content = UUID(int=7), Post(body={"text": "x" * 289})

    async def call() -> None:
        request = hook.request(effect, content)
        done = await http.call(transport, hook, request, now=datetime.now(UTC))
        assert isinstance(done.outcome, Accepted)

    return call


async def _rates(url: str, calls: int, rounds: int, in_flight: int) -> list[list[float]]:
    """Of bare aiohttp, of our transport, and of an adapter that reads the outcome too."""
    connector = aiohttp.TCPConnector(limit=in_flight)
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        Transport(Limits(connections=in_flight)) as transport,
    ):
        clients = [bare(session, url), ours(transport, url), adapter(transport, url)]
        turns = [[await rate(call, in_flight, calls) for call in clients] for _ in range(rounds)]
    return [list(of) for of in zip(*turns, strict=True)]


def lines(quick: bool = False) -> Iterator[Line]:
    """Calls a second as a share of bare aiohttp's."""
    calls, rounds = (2_000, 3) if quick else (5_000, 5)
    with provider.serving(0) as serving:
        for in_flight in IN_FLIGHT:
            rates = _rates(serving.url, calls, rounds, in_flight)
            aiohttps, transports, adapters = uvloop.run(rates)
            yield compared(f"transport/{in_flight} in flight", "calls/s", transports, aiohttps)
            name = f"transport/{in_flight} in flight, adapter and outcome"
            yield compared(name, "calls/s", adapters, aiohttps)


if __name__ == "__main__":
    figures.alone(__doc__, lines)
