"""Stands between an engine and what it talks to, and strikes at the n-th message."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum

from marketing_pipeline_tests.chaos.framing import Framer
from marketing_pipeline_tests.chaos.naming import Talk
from marketing_pipeline_tests.chaos.targets import Target

_PIECE = 65536


class Action(StrEnum):
    """What happens to whom."""

    KILL = "kill"  # the engine gets SIGKILL
    CUT = "cut"  # the connection ends, on both sides
    FREEZE = "freeze"  # the engine gets SIGSTOP
    LATE = "late"  # the connection ends at the asker's side, and the request arrives a while later


class Side(StrEnum):
    """Whether the message still gets through."""

    BEFORE = "before"
    AFTER = "after"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One strike, at one message."""

    message: str  # by its name, see `naming`
    occurrence: int  # from 1, over all connections
    action: Action
    side: Side
    late: float = 0  # seconds, for LATE; at the latest when the trial has settled

    def __str__(self) -> str:
        return f"{self.action} {self.side} {self.message!r} no. {self.occurrence}"


@dataclass(slots=True)
class Interceptor:
    """One counter over all its proxies; its loop runs in a thread of its own."""

    struck: threading.Event = field(default_factory=threading.Event)
    struck_at: float | None = None  # seconds since the epoch
    seen: list[str] = field(default_factory=list)  # the names of all messages, in their order
    _late: set[asyncio.Task[None]] = field(default_factory=set)
    _fault: Fault | None = None
    _victim: int = 0
    _released: asyncio.Event = field(default_factory=asyncio.Event)
    _aimed: asyncio.Event = field(default_factory=asyncio.Event)
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _servers: list[asyncio.Server] = field(default_factory=list)

    def arm(self, fault: Fault | None) -> None:
        """Count anew, and strike where the fault says; None: only count."""

        def reset() -> None:
            self._fault = fault
            self._aimed.clear()
            self._released.clear()
            self.seen.clear()
            self.struck.clear()
            self.struck_at = None

        self._call(reset)

    def aim(self, victim: int) -> None:
        """Whom to kill or freeze. A message that comes earlier waits for this."""

        def take() -> None:
            self._victim = victim
            self._aimed.set()

        self._call(take)

    def disarm(self) -> None:
        self._call(lambda: setattr(self, "_fault", None))

    def arrived(self) -> None:
        """Have every late request arrive that has not yet."""

        async def wait() -> None:
            self._released.set()
            await asyncio.gather(*self._late)
            self._late.clear()

        asyncio.run_coroutine_threadsafe(wait(), self._loop).result()

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
        talk = Talk(target.name)
        there = self._flow(target, talk.request, target.request(), reader, to_them)
        back = self._flow(target, talk.answer, target.answer(), theirs, writer)
        ways = [asyncio.create_task(self._until_end(way, writer, to_them)) for way in (there, back)]
        await asyncio.wait(ways)

    async def _until_end(
        self, way: Coroutine[None, None, None], *ends: asyncio.StreamWriter
    ) -> None:
        with suppress(ConnectionError):
            await way
        for end in ends:
            end.close()

    async def _flow(
        self,
        target: Target,
        name: Callable[[bytes], str],
        frame: Framer,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
    ) -> None:
        buffer = bytearray()
        while data := await source.read(_PIECE):
            buffer += data
            while length := frame(buffer):
                message = bytes(buffer[:length])
                del buffer[:length]
                if not await self._message(target, name(message), message, sink):
                    return
        if buffer:  # a last word without an end, such as a FATAL
            sink.write(bytes(buffer))

    async def _message(
        self, target: Target, name: str, message: bytes, sink: asyncio.StreamWriter
    ) -> bool:
        """Pass a message on; False where the connection has been cut with it."""
        self.seen.append(name)
        fault = self._fault
        if (
            fault is None
            or name != fault.message
            or self.seen.count(name) != fault.occurrence
            or self.struck.is_set()
        ):
            sink.write(message)
            return True
        await self._aimed.wait()
        if fault.side is Side.AFTER:
            sink.write(message)
            await sink.drain()
        self._strike(fault)
        if fault.action is Action.LATE:
            self._late.add(asyncio.create_task(self._arrive(target, message, fault.late)))
        if fault.action is Action.FREEZE:
            if fault.side is Side.BEFORE:
                sink.write(message)
            return True
        return False

    async def _arrive(self, target: Target, message: bytes, late: float) -> None:
        """Bring a request to its target after all; its answer is for nobody."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._released.wait(), late)
        reader, writer = await target.connect()
        writer.write(message)
        await reader.read(_PIECE)
        writer.close()

    def _strike(self, fault: Fault) -> None:
        self.struck_at = time.time()
        signals = {Action.KILL: signal.SIGKILL, Action.FREEZE: signal.SIGSTOP}
        if fault.action in signals:
            with suppress(ProcessLookupError):
                os.kill(self._victim, signals[fault.action])
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
