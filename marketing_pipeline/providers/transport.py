"""One HTTP/1.1 exchange, never repeated, that tells what was certainly not written from the rest.

aiohttp gives the pool, DNS, TLS and the parser; its session is left out. The session repeats GET
and PUT on a reused connection by itself, and the httpx transports built on it report a request
that was read and then dropped as a failed connect: believed, each is a mail sent twice.
"""

import asyncio
import select
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Self
from weakref import WeakSet

import aiohttp
import httpx
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http import RawResponseMessage, StreamWriter
from yarl import URL

from marketing_pipeline import telemetry

LONGEST_REASON = 300
_OURS = ((b"Accept-Encoding", b"identity"), (b"User-Agent", b"marketing-pipeline"))


class TransportError(Exception):
    """Why a call brought no answer.

    TransportError
    +-- NotWritten   certain: not a byte of the request left this process
    +-- AnswerLost   everything else: it may have been read and acted on
    """

    def __init__(self, reason: str) -> None:
        super().__init__(telemetry.redact(reason)[:LONGEST_REASON])

    @property
    def reason(self) -> str:
        return str(self)


class NotWritten(TransportError):
    """The request was certainly not written."""


class AnswerLost(TransportError):
    """The request may have been written, and no whole answer came."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long each part of a call may take, and how much of a provider may be in use."""

    connections: int = 10  # to one host and port; calls beyond them queue
    connect: timedelta = timedelta(seconds=5)  # TCP and TLS, for each of the host's addresses
    write: timedelta = timedelta(seconds=10)  # until the system has taken all of the request
    read: timedelta = timedelta(seconds=30)  # from then until the whole answer is here
    call: timedelta = timedelta(seconds=40)  # all of it, waiting for a connection included
    keep_alive: timedelta = timedelta(seconds=20)  # an idle connection is not used after this
    dns: timedelta = timedelta(seconds=10)  # how long an address is remembered
    answer: int = 4 * 2**20  # bytes of body, unpacked


_DEFAULT = Limits()


class Transport:
    """A pool of connections; make it inside the running loop, and close it there."""

    def __init__(self, limits: Limits = _DEFAULT, *, tls: ssl.SSLContext | None = None) -> None:
        """tls: whom to trust, where it is not the system's own list."""
        self._limits = limits
        self._connector = aiohttp.TCPConnector(
            ssl=tls or True,
            limit=0,
            limit_per_host=limits.connections,
            keepalive_timeout=limits.keep_alive.total_seconds(),
            ttl_dns_cache=int(limits.dns.total_seconds()),
        )
        self._timeout = aiohttp.ClientTimeout(sock_connect=limits.connect.total_seconds())
        self._targets: dict[tuple[str, str, int | None], aiohttp.ClientRequest] = {}
        self._used: WeakSet[ResponseHandler] = WeakSet()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close every connection; calls under way lose their answers."""
        await self._connector.close()

    async def send(
        self,
        request: httpx.Request,
        *,
        within: timedelta | None = None,
        before_write: Callable[[], None] | None = None,
    ) -> httpx.Response:
        """The whole answer to a request whose body is known in full; redirects are answers.

        `within` replaces the call limit. `before_write` is called on an established connection
        with nothing between it and the write, and may raise NotWritten: the place to check a lease
        or a grant.

        Raises:
            NotWritten: see there.
            AnswerLost: see there.
        """
        allowed = self._limits.call if within is None else within  # 0 is: not at all
        deadline = asyncio.get_running_loop().time() + allowed.total_seconds()
        wire = _wire(request)
        connection = await self._connect(request.url, deadline)
        try:
            response = await self._exchange(connection, request, wire, deadline, before_write)
        except NotWritten:
            connection.release()
            raise
        except BaseException:  # half used, or cancelled: nothing that comes on it can be trusted
            if connection.protocol is not None:
                connection.protocol.abort()  # a mere close would go on writing what is left
            connection.close()
            raise
        if connection.protocol is not None:
            self._used.add(connection.protocol)
        connection.release()
        return response

    async def _connect(self, url: httpx.URL, deadline: float) -> Connection:
        """A connection on which nothing has been heard yet; nothing is ever written here."""
        if self._connector.closed:
            raise NotWritten("this transport is closed")
        try:
            target = self._target(url)
            async with asyncio.timeout_at(deadline) as timer:
                while True:
                    connection = await self._connector.connect(target, [], self._timeout)
                    protocol = connection.protocol
                    used = protocol is not None and protocol in self._used
                    if not _is_stale(connection, used=used):
                        return connection
                    connection.close()
                    if not used:
                        raise NotWritten("it spoke before it was asked")
        except (aiohttp.ClientConnectorError, ValueError) as error:
            # Refused, unreachable, DNS, TLS; or a host whose name nobody can look up.
            raise NotWritten(f"{type(error).__name__}: {error}") from error
        except TimeoutError as error:
            waited = "connection or turn" if timer.expired() else "connection"
            raise NotWritten(f"no {waited} to {url.host} in time") from error
        except NotWritten:
            raise
        except Exception as error:  # none is known to come from here: the safe side
            raise AnswerLost(f"{type(error).__name__}: {error}") from error

    def _target(self, url: httpx.URL) -> aiohttp.ClientRequest:
        """What the pool knows a destination by; only ever read, so one serves all its calls."""
        key = (url.scheme, url.host, url.port)
        target = self._targets.get(key)
        if target is None:
            origin = URL.build(scheme=url.scheme, host=url.host, port=url.port)
            loop = asyncio.get_running_loop()
            target = self._targets[key] = aiohttp.ClientRequest("GET", origin, loop=loop)
        return target

    async def _exchange(
        self,
        connection: Connection,
        request: httpx.Request,
        wire: bytes,
        deadline: float,
        before_write: Callable[[], None] | None,
    ) -> httpx.Response:
        loop = asyncio.get_running_loop()
        protocol = connection.protocol
        if protocol is None:
            raise NotWritten("the connection was gone before the write")
        protocol.set_response_params(skip_payload=request.method == "HEAD", read_until_eof=True)
        doing = "writing"
        if loop.time() >= deadline:
            raise NotWritten("its time was up before the write")
        if before_write is not None:
            before_write()
        try:
            await self._write(protocol, wire, deadline)  # it begins here, without a pause
            doing = "reading"
            async with asyncio.timeout_at(self._by(self._limits.read, deadline)):
                return await self._answer(protocol, request)
        except TimeoutError as error:
            raise AnswerLost(f"its time was up while {doing}") from error
        except AnswerLost:
            raise
        except Exception as error:  # whatever it was, the request may have been read
            raise AnswerLost(f"while {doing}: {type(error).__name__}: {error}") from error

    async def _write(self, protocol: ResponseHandler, wire: bytes, deadline: float) -> None:
        writer = StreamWriter(protocol, asyncio.get_running_loop())
        await writer.write(wire, drain=False)
        if protocol.writing_paused:  # the system has not taken it all
            async with asyncio.timeout_at(self._by(self._limits.write, deadline)):
                await writer.drain()

    def _by(self, limit: timedelta, deadline: float) -> float:
        return min(deadline, asyncio.get_running_loop().time() + limit.total_seconds())

    async def _answer(self, protocol: ResponseHandler, request: httpx.Request) -> httpx.Response:
        while True:
            message, payload = await protocol.read()
            if message.code >= 200 or message.code == 101:
                break
        body = bytearray()
        while chunk := await payload.readany():
            body += chunk
            if len(body) > self._limits.answer:
                raise AnswerLost(f"status {message.code} with over {self._limits.answer} bytes")
        return httpx.Response(
            message.code, headers=_headers(message), content=bytes(body), request=request
        )


def _wire(request: httpx.Request) -> bytes:
    """The request's bytes, as the adapter wrote them and in its order."""
    headers = request.headers.raw
    names = {name.lower() for name, _ in headers}
    headers += [header for header in _OURS if header[0].lower() not in names]
    lines = [b"%s %s HTTP/1.1" % (request.method.encode(), request.url.raw_path)]
    lines += [b"%s: %s" % header for header in headers]
    head = b"\r\n".join(lines)
    if not head.count(b"\r") == head.count(b"\n") == len(headers) or b"\0" in head:
        raise NotWritten("a header holds a line break or a NUL; mend the provider's options")
    return b"%s\r\n\r\n%s" % (head, request.read())


def _headers(message: RawResponseMessage) -> list[tuple[bytes, bytes]]:
    """Without the encoding that aiohttp has undone: httpx would undo it again."""
    return [header for header in message.raw_headers if header[0].lower() != b"content-encoding"]


def _is_stale(connection: Connection, *, used: bool) -> bool:
    """Has it ended or said something while nothing was asked?

    What the loop has not read yet is seen by polling the socket. That is not done on a new
    connection, where TLS may still have session tickets under way.
    """
    protocol, transport = connection.protocol, connection.transport
    if protocol is None or transport is None or transport.is_closing() or protocol.should_close:
        return True
    return used and _is_readable(transport.get_extra_info("socket").fileno())


def _is_readable(descriptor: int) -> bool:
    if not hasattr(select, "poll"):  # Windows
        return bool(select.select([descriptor], [], [], 0)[0])
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))
