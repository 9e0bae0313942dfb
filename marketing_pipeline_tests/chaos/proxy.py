"""Stands between an engine and what it talks to, and strikes at the n-th message."""

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import quote, urlsplit

from psycopg.conninfo import conninfo_to_dict

from marketing_pipeline_tests.chaos import framing
from marketing_pipeline_tests.chaos.framing import Framer

_PIECE = 65536


class Action(StrEnum):
    """What happens to whom."""

    KILL = "kill"  # the engine gets SIGKILL
    CUT = "cut"  # the connection ends, on both sides
    FREEZE = "freeze"  # the engine gets SIGSTOP


class Side(StrEnum):
    """Whether the message still gets through."""

    BEFORE = "before"
    AFTER = "after"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One strike, at one message."""

    n: int  # from 1, over all connections and both directions
    action: Action
    side: Side

    def __str__(self) -> str:
        return f"{self.action} {self.side} message {self.n}"


@dataclass(frozen=True, slots=True)
class Target:
    """Where a proxy leads, and how messages end there."""

    name: str
    connect: Callable[[], "asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]]"]
    request: Callable[[], Framer]
    answer: Callable[[], Framer]


@dataclass(slots=True)
class Interceptor:
    """One counter over all its proxies; its loop runs in a thread of its own."""

    count: int = 0
    struck: threading.Event = field(default_factory=threading.Event)
    struck_at: str | None = None  # the message of the strike
    seen: list[str] = field(default_factory=list)  # what each message was, for people
    _fault: Fault | None = None
    _victim: int | None = None
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _servers: list[asyncio.Server] = field(default_factory=list)

    def arm(self, fault: Fault | None) -> None:
        """Count anew, and strike where the fault says; None: only count."""

        def reset() -> None:
            self.count, self._fault, self._victim = 0, fault, None
            self.seen.clear()
            self.struck_at = None
            self.struck.clear()

        self._call(reset)

    def aim(self, victim: int) -> None:
        """Whom to kill or freeze. A message that comes earlier waits for this."""
        self._call(lambda: setattr(self, "_victim", victim))

    def disarm(self) -> None:
        self._call(lambda: setattr(self, "_fault", None))

    def lead(self, target: Target) -> int:
        """Listen on a port of loopback that leads to the target; returns the port."""
        return asyncio.run_coroutine_threadsafe(self._listen(target), self._loop).result()

    def _call(self, change: Callable[[], None]) -> None:
        async def run() -> None:
            change()

        asyncio.run_coroutine_threadsafe(run(), self._loop).result()

    async def _listen(self, target: Target) -> int:
        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._serve(target, reader, writer)

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        self._servers.append(server)
        port: int = server.sockets[0].getsockname()[1]
        return port

    async def _serve(
        self, target: Target, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            theirs, to_them = await target.connect()
        except OSError:
            writer.close()
            return
        both = (writer, to_them)
        ways = [
            asyncio.create_task(
                self._pass(f"{target.name} >", target.request(), reader, to_them, both)
            ),
            asyncio.create_task(
                self._pass(f"{target.name} <", target.answer(), theirs, writer, both)
            ),
        ]
        await asyncio.wait(ways)

    async def _pass(
        self,
        way: str,
        frame: Framer,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        both: Sequence[asyncio.StreamWriter],
    ) -> None:
        with suppress(ConnectionError):
            await self._flow(way, frame, source, sink)
        for writer in both:
            writer.close()

    async def _flow(
        self, way: str, frame: Framer, source: asyncio.StreamReader, sink: asyncio.StreamWriter
    ) -> None:
        buffer = bytearray()
        while data := await source.read(_PIECE):
            buffer += data
            while length := frame(buffer):
                message = bytes(buffer[:length])
                del buffer[:length]
                if not await self._message(way, message, sink):
                    return
        if buffer:  # a last word without an end, such as a FATAL
            sink.write(bytes(buffer))

    async def _message(self, way: str, message: bytes, sink: asyncio.StreamWriter) -> bool:
        """Pass a message on; False where the connection has been cut with it."""
        self.count += 1
        gist = f"{way} {_gist(message)}"
        self.seen.append(gist)
        fault = self._fault if self._fault and self._fault.n == self.count else None
        if fault is None:
            sink.write(message)
            return True
        while self._victim is None:
            await asyncio.sleep(0.001)
        if fault.side is Side.AFTER:
            sink.write(message)
            await sink.drain()
        self._strike(fault, gist)
        if fault.action is Action.FREEZE:
            if fault.side is Side.BEFORE:
                sink.write(message)
            return True
        for_good = fault.side is Side.BEFORE or fault.action is Action.CUT
        return not for_good

    def _strike(self, fault: Fault, gist: str) -> None:
        assert self._victim is not None
        if fault.action is not Action.CUT:
            number = signal.SIGKILL if fault.action is Action.KILL else signal.SIGSTOP
            with suppress(ProcessLookupError):
                os.kill(self._victim, number)
        self.struck_at = gist
        self.struck.set()

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


@contextmanager
def interceptor() -> Iterator[Interceptor]:
    one = Interceptor()
    thread = threading.Thread(target=one._loop.run_forever, name="interceptor", daemon=True)
    thread.start()
    try:
        yield one
    finally:
        asyncio.run_coroutine_threadsafe(one._close(), one._loop).result()
        one._loop.call_soon_threadsafe(one._loop.stop)
        thread.join()
        one._loop.close()


def postgres(database_url: str) -> Target:
    server = conninfo_to_dict(database_url)
    host, port = str(server["host"]), int(server.get("port") or 5432)
    path = f"{host}/.s.PGSQL.{port}" if host.startswith("/") else None
    return Target(
        "postgres", _way(path, host, port), framing.postgres_request, framing.postgres_answer
    )


def redis(redis_url: str) -> Target:
    url = urlsplit(redis_url)
    path = url.path if url.scheme == "unix" else None
    connect = _way(path, url.hostname or "127.0.0.1", url.port or 6379)
    return Target("valkey", connect, framing.redis_message, framing.redis_message)


def http(base_url: str) -> Target:
    url = urlsplit(base_url)
    assert url.hostname is not None
    assert url.port is not None
    connect = _way(None, url.hostname, url.port)
    return Target("provider", connect, framing.http_message, framing.http_message)


def postgres_url(database_url: str, port: int) -> str:
    """The same database through the proxy on that port; without TLS, whose bytes it cannot read."""
    server = conninfo_to_dict(database_url)
    user, name = (quote(str(server[part])) for part in ("user", "dbname"))
    return f"postgresql://{user}@127.0.0.1:{port}/{name}?sslmode=disable&gssencmode=disable"


def _way(
    path: str | None, host: str, port: int
) -> Callable[[], "asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]]"]:
    if path is not None:
        return lambda: asyncio.ensure_future(asyncio.open_unix_connection(path))
    return lambda: asyncio.ensure_future(asyncio.open_connection(host, port))


def _gist(message: bytes) -> str:
    """A few readable words of a message."""
    text = "".join(chr(byte) if 32 <= byte < 127 else " " for byte in message[:400])
    return " ".join(text.split())[:100]
