"""Calls a second over loopback: our transport against bare aiohttp, in the same run.

    python -m benchmarks.transport [--calls 5000] [--rounds 3] [--uvloop]

POSTs 300 bytes to a server in a process of its own; the clients take turns, and the best of the
rounds counts, so that a neighbour's load hits neither alone.
"""

import argparse
import asyncio
import multiprocessing
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from typing import cast
from uuid import UUID

import aiohttp
import httpx
import uvloop

from marketing_pipeline.domain.effect import Post
from marketing_pipeline.domain.outcome import Accepted
from marketing_pipeline.providers import http, registry
from marketing_pipeline.providers.transport import Limits, Transport

ANSWER = (
    b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{"id":"1"}'
)
BODY = b'{"text":"' + b"x" * 289 + b'"}'
IN_FLIGHT = (10, 50, 100)
Call = Callable[[], Awaitable[None]]


class Answering(asyncio.Protocol):
    """Knows just enough of HTTP to read the requests of this file."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop has its own class
        self.waiting = b""

    def data_received(self, data: bytes) -> None:
        self.waiting += data
        head, end, body = self.waiting.partition(b"\r\n\r\n")
        if end and len(body) >= _length(head):
            self.waiting = b""
            self.transport.write(ANSWER)


def _length(head: bytes) -> int:
    return int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])


def serve(ready: "Connection") -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Answering, "127.0.0.1", 0, backlog=1024)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    uvloop.run(run())


@contextmanager
def server() -> Iterator[str]:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,))
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}"
    finally:
        process.kill()
        process.join()


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


async def measure(url: str, calls: int, rounds: int) -> None:
    print(f"{'in flight':>10} {'bare aiohttp':>14} {'ours':>10} {'adapter, outcome':>18}   calls/s")
    for in_flight in IN_FLIGHT:
        connector = aiohttp.TCPConnector(limit=in_flight)
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            Transport(Limits(connections=in_flight)) as transport,
        ):
            clients = [bare(session, url), ours(transport, url), adapter(transport, url)]
            best = [0.0, 0.0, 0.0]
            for _ in range(rounds):
                for index, call in enumerate(clients):
                    best[index] = max(best[index], await rate(call, in_flight, calls))
        print(f"{in_flight:>10} {best[0]:>14,.0f} {best[1]:>10,.0f} {best[2]:>18,.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--calls", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--uvloop", action="store_true", help="run the clients on uvloop")
    options = parser.parse_args()
    run = uvloop.run if options.uvloop else asyncio.run
    with server() as url:
        run(measure(url, options.calls, options.rounds))


if __name__ == "__main__":
    main()
