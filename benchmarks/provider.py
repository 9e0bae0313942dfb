"""A provider that notes what was called and when, in a process of its own: it holds nobody up.

    python -m benchmarks.provider [--delay 20]

It takes everything, and says so as HubSpot, Resend and a webhook each want to hear it.
"""

import argparse
import asyncio
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import httpx
import uvloop

from benchmarks import usage
from benchmarks.installation import CHECKOUT

_TAKEN = b'{"id":"1","status":"COMPLETE","results":[{"id":"1"}]}'
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
_ANSWER = _HEAD % len(_TAKEN) + _TAKEN
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_KEY = re.compile(rb"\r\nidempotency-key: *([!-~]+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """The calls since the last time somebody asked."""

    calls: int
    first: float  # unix seconds, when it had been read
    last: float
    keys: Mapping[str, float]  # the same of the first call under each Idempotency-Key


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """One that is running."""

    url: str
    pid: int

    def count(self) -> Counted:
        """What has been called since this was last asked."""
        return Counted(**httpx.get(self.url).json())

    def cpu(self) -> float:
        """Seconds it has worked so far."""
        return usage.cpu(self.pid)


@contextmanager
def serving(delay: int) -> Iterator[Provider]:
    """A provider that answers after so many milliseconds."""
    process = subprocess.Popen(  # noqa: S603 (our own program)
        [sys.executable, "-m", "benchmarks.provider", "--delay", str(delay)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        cwd=CHECKOUT,
    )
    assert process.stdout is not None
    try:
        port = int(process.stdout.readline())
        yield Provider(url=f"http://127.0.0.1:{port}", pid=process.pid)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


class _Calls:
    """Shared by all connections."""

    def __init__(self, delay: float) -> None:
        self.delay = delay  # seconds
        self.count, self.first, self.last = 0, 0.0, 0.0
        self.keys: dict[str, float] = {}

    def note(self, request: bytes) -> None:
        self.last = time.time()
        self.first = self.first or self.last
        self.count += 1
        if key := _KEY.search(request):
            self.keys.setdefault(key[1].decode(), self.last)

    def tell(self) -> bytes:
        told = {"calls": self.count, "first": self.first, "last": self.last, "keys": self.keys}
        body = json.dumps(told).encode()
        self.count, self.first, self.last, self.keys = 0, 0.0, 0.0, {}
        return _HEAD % len(body) + body


class _Answering(asyncio.Protocol):
    """Knows just enough of HTTP for clients that wait for an answer before they ask again."""

    def __init__(self, calls: _Calls) -> None:
        self._calls = calls
        self._waiting = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop has its own class
        self._loop = asyncio.get_running_loop()

    def data_received(self, data: bytes) -> None:
        data = self._waiting + data if self._waiting else data
        end = data.find(b"\r\n\r\n")
        length = _LENGTH.search(data, 0, max(end, 0))
        if end < 0 or len(data) < end + 4 + int(length[1] if length else 0):
            self._waiting = data
            return
        self._waiting = b""
        if data.startswith(b"GET"):
            self._transport.write(self._calls.tell())
            return
        self._calls.note(data)
        if self._calls.delay:
            self._loop.call_later(self._calls.delay, self._transport.write, _ANSWER)
        else:
            self._transport.write(_ANSWER)


async def _serve(delay: float) -> None:
    calls = _Calls(delay)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Answering(calls), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--delay", type=int, default=0, help="milliseconds until it answers")
    uvloop.run(_serve(parser.parse_args().delay / 1000))


if __name__ == "__main__":
    main()
