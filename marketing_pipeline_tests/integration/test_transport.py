"""The transport against a raw socket server that counts what it has read."""

import asyncio
import contextlib
import gzip
import select
import socket
import ssl
import struct
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import aiohttp
import httpx
import pytest
from aiohttp.client_proto import ResponseHandler

from marketing_pipeline.providers.transport import AnswerLost, Limits, NotWritten, Transport

pytestmark = pytest.mark.anyio
QUICK = Limits(call=timedelta(seconds=0.6), connect=timedelta(seconds=0.4))
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass(kw_only=True)
class Server:
    """Answers each request it has read in full by the next behaviour, then by "ok"."""

    script: list[str] = field(default_factory=list)
    answer: bytes = ANSWER
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    open: int = 0
    most_open: int = 0
    port: int = 0
    tls: ssl.SSLContext | None = None
    read: asyncio.Event = field(default_factory=asyncio.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Server"]:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0, ssl=self.tls)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            self.released.set()
            for writer in self.writers:
                writer.transport.abort()
            server.close()
            await asyncio.sleep(0.01)

    def url(self, path: str = "/") -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}{path}"

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        self.writers.append(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            while await self._one(reader, writer):
                pass
        self.open -= 1
        writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        if self.script[:1] == ["unread"]:
            await self.released.wait()
            return False
        head = await reader.readuntil(b"\r\n\r\n")
        length = [line for line in head.lower().split(b"\r\n") if line[:15] == b"content-length:"]
        body = await reader.readexactly(int(length[0][15:]) if length else 0)
        self.requests.append(head + body)
        self.read.set()
        return await self._behave(self.script.pop(0) if self.script else "ok", writer)

    async def _behave(self, behaviour: str, writer: asyncio.StreamWriter) -> bool:
        match behaviour:
            case "ok":
                writer.write(self.answer)
                await writer.drain()
                return True
            case "late":
                await asyncio.sleep(0.05)
                return await self._behave("ok", writer)
            case "hang":
                await self.released.wait()
            case "half a body":
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + b"x" * 50)
            case "drip":
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
                while not self.released.is_set():
                    writer.write(b"x")
                    await writer.drain()
                    await asyncio.sleep(0.02)
            case "RST":
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, linger
                )
                writer.transport.abort()
            case "FIN":
                pass
        return False


def request(method: str, url: str) -> httpx.Request:
    return httpx.Request(method, url, content=b'{"a":1}' if method != "GET" else None)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with Server().running() as running:
        yield running


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    async with Transport(QUICK) as made:
        yield made


# --- the table -----------------------------------------------------------------------------------

FAULTS = ("refused", "FIN", "RST", "hang", "half a body")
METHODS = ("POST", "GET", "PUT")
Send = Callable[[httpx.Request], Awaitable[str]]  # "answered", "not written" or "lost"
Row = tuple[str, str, str]


async def verdict(send: Send, fault: str, connection: str, method: str) -> tuple[str, int]:
    """What a client says of a fault, and how many requests the server had read of it."""
    async with Server().running() as server:
        url = server.url()
        if connection == "reused":
            assert await send(request("POST", url)) == "answered"
            server.requests.clear()
        if fault != "refused":
            server.script = [fault]
            return await send(request(method, url)), len(server.requests)
    said = await send(request(method, url))  # the server, its port and its connections are gone
    return said, len(server.requests)


async def wrong_rows(send: Send) -> set[Row]:
    wrong = set()
    for fault in FAULTS:
        expected = ("not written", 0) if fault == "refused" else ("lost", 1)
        for connection in ("new", "reused"):
            for method in METHODS:
                if await verdict(send, fault, connection, method) != expected:
                    wrong.add((fault, connection, method))
    return wrong


async def said_by(transport: Transport, call: httpx.Request) -> str:
    try:
        await transport.send(call)
    except NotWritten:
        return "not written"
    except AnswerLost:
        return "lost"
    return "answered"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("connection", ["new", "reused"])
@pytest.mark.parametrize("fault", FAULTS)
async def test_only_a_refused_connection_counts_as_not_written_and_nothing_is_sent_twice(
    transport: Transport, fault: str, connection: str, method: str
) -> None:
    said, seen = await verdict(lambda call: said_by(transport, call), fault, connection, method)
    assert (said, seen) == (("not written", 0) if fault == "refused" else ("lost", 1))


async def test_a_client_that_believes_exception_families_fails_the_table() -> None:
    timeout = aiohttp.ClientTimeout(total=0.6)
    async with aiohttp.ClientSession(timeout=timeout) as session:

        async def naive(call: httpx.Request) -> str:
            data = call.read() or None
            try:
                async with session.request(call.method, str(call.url), data=data) as response:
                    await response.read()
            except aiohttp.ClientConnectionError:  # "the connection failed, so nothing was sent"
                return "not written"
            except (aiohttp.ClientError, TimeoutError):
                return "lost"
            return "answered"

        wrong = await wrong_rows(naive)
    assert ("FIN", "new", "POST") in wrong  # read, and called unsent: a duplicate
    assert ("FIN", "reused", "GET") in wrong  # sent twice by aiohttp itself
    assert ("RST", "reused", "PUT") in wrong


# --- before the write ----------------------------------------------------------------------------


async def test_a_name_that_does_not_resolve_is_not_written(transport: Transport) -> None:
    with pytest.raises(NotWritten, match=r"nowhere\.invalid"):
        await transport.send(request("POST", "http://nowhere.invalid/"))


@pytest.mark.parametrize("host", ["a..b", "a" * 64, "127.1"], ids=["dots", "long", "short"])
async def test_a_name_that_nobody_can_look_up_is_not_written(
    transport: Transport, host: str
) -> None:
    with pytest.raises(NotWritten):
        await transport.send(request("POST", f"http://{host}/"))


@contextlib.contextmanager
def unaccepting() -> Iterator[int]:
    """A port whose queue of connections is full: the kernel lets further ones wait."""
    with contextlib.ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = sockets.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


async def test_a_connection_that_is_not_accepted_in_time_is_not_written(
    transport: Transport,
) -> None:
    with unaccepting() as port, pytest.raises(NotWritten, match="no connection"):
        await transport.send(request("POST", f"http://127.0.0.1:{port}/"))


async def test_waiting_for_a_free_connection_counts_against_the_call(server: Server) -> None:
    server.script = ["hang"]
    async with Transport(Limits(connections=1)) as transport:
        held = asyncio.create_task(transport.send(request("POST", server.url())))
        await server.read.wait()
        with pytest.raises(NotWritten, match="turn"):
            await transport.send(request("POST", server.url()), within=timedelta(seconds=0.2))
        held.cancel()
        with pytest.raises(asyncio.CancelledError):
            await held
        assert len(server.requests) == 1
        response = await transport.send(request("POST", server.url()))
        assert response.status_code == 200  # the cancelled call gave its place back


@pytest.mark.parametrize("within", [timedelta(0), timedelta(seconds=-1)])
@pytest.mark.parametrize("connection", ["new", "reused"])
async def test_a_call_whose_time_is_up_is_not_written(
    server: Server, transport: Transport, connection: str, within: timedelta
) -> None:
    if connection == "reused":
        await transport.send(request("POST", server.url()))
        server.requests.clear()
    with pytest.raises(NotWritten):
        await transport.send(request("POST", server.url()), within=within)
    await asyncio.sleep(0.05)
    assert server.requests == []


@pytest.mark.parametrize("connection", ["new", "reused"])
async def test_a_check_that_refuses_lets_nothing_reach_the_server(
    server: Server, connection: str
) -> None:
    def lapsed() -> None:
        raise NotWritten("the lease ran out")

    async with Transport(Limits(connections=1)) as transport:
        if connection == "reused":
            await transport.send(request("POST", server.url()))
            server.requests.clear()
        for _ in range(3):
            with pytest.raises(NotWritten, match="lease"):
                await transport.send(request("POST", server.url()), before_write=lapsed)
        assert server.requests == []
        response = await transport.send(request("POST", server.url()))
        assert (response.status_code, server.connections) == (200, 1)  # kept, and not leaked


async def test_the_check_is_for_calls_that_can_be_written(transport: Transport) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        call = request("POST", f"http://127.0.0.1:{closed.getsockname()[1]}/")
        with pytest.raises(NotWritten, match="Cannot connect"):
            await transport.send(call, before_write=lambda: pytest.fail("called"))


async def test_nothing_comes_between_the_check_and_the_write(
    server: Server, transport: Transport
) -> None:
    """Not even a turn of the event loop, which may take long in a busy process."""
    await transport.send(request("POST", server.url()))
    loop = asyncio.get_running_loop()
    arrived: list[bool] = []

    def look() -> None:
        poll = select.poll()
        poll.register(server.writers[0].get_extra_info("socket").fileno(), select.POLLIN)
        arrived.append(bool(poll.poll(0)))

    def check() -> None:
        look()
        loop.call_soon(look)

    await transport.send(request("POST", server.url()), before_write=check)
    assert arrived == [False, True]


async def test_a_check_that_breaks_frees_its_connection(server: Server) -> None:
    async with Transport(Limits(connections=1)) as transport:
        with pytest.raises(ZeroDivisionError):
            await transport.send(request("POST", server.url()), before_write=lambda: print(1 // 0))
        await transport.send(request("POST", server.url()))
    assert len(server.requests) == 1


async def test_a_header_that_would_begin_another_one_is_not_written(
    server: Server, transport: Transport
) -> None:
    headers = [(b"Authorization", b"Bearer x\r\nX-Other: y")]
    with pytest.raises(NotWritten, match="line break"):
        await transport.send(httpx.Request("POST", server.url(), headers=headers))
    assert server.connections == 0


async def test_a_closed_transport_writes_nothing(server: Server, transport: Transport) -> None:
    await transport.aclose()
    with pytest.raises(NotWritten, match="closed"):
        await transport.send(request("POST", server.url()))


# --- TLS -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Key and certificate of 127.0.0.1, in one file, signed by itself."""
    path = tmp_path_factory.mktemp("tls") / "self.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-days", "2", "-nodes"]
    subprocess.run(
        ["openssl", "req", "-x509", *kind, *subject, "-keyout", str(path), "-out", f"{path}.crt"],
        check=True,
        capture_output=True,
    )
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path


def serving(certificate: Path, *, asks_for_a_certificate: bool = False) -> Server:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    if asks_for_a_certificate:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(certificate)
    return Server(tls=context)


async def test_a_server_nobody_vouches_for_is_not_written_to(
    certificate: Path, transport: Transport
) -> None:
    async with serving(certificate).running() as server:
        with pytest.raises(NotWritten, match="Certificate"):
            await transport.send(request("POST", server.url()))
        assert server.requests == []


async def test_a_server_that_does_not_speak_tls_is_not_written_to(transport: Transport) -> None:
    async def babble(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        writer.close()

    async with await asyncio.start_server(babble, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(NotWritten):
            await transport.send(request("POST", f"https://127.0.0.1:{port}/"))


async def test_a_handshake_that_hangs_is_not_written(transport: Transport) -> None:
    async with Server(script=["unread"]).running() as server:
        with pytest.raises(NotWritten, match="no connection"):
            await transport.send(request("POST", f"https://127.0.0.1:{server.port}/"))


async def test_a_tls_alert_after_the_write_loses_the_answer(certificate: Path) -> None:
    """With TLS 1.3 a server refuses a missing client certificate after we could already write."""
    trusted = ssl.create_default_context(cafile=str(certificate))
    refusing = serving(certificate, asks_for_a_certificate=True)
    async with refusing.running() as server, Transport(QUICK, tls=trusted) as transport:
        with pytest.raises(AnswerLost):
            await transport.send(request("POST", server.url()))


async def test_tls_connections_are_reused(certificate: Path) -> None:
    trusted = ssl.create_default_context(cafile=str(certificate))
    async with serving(certificate).running() as server:
        async with Transport(QUICK, tls=trusted) as transport:
            for _ in range(3):
                await transport.send(request("POST", server.url()))
        assert (server.connections, len(server.requests)) == (1, 3)


# --- after the write -----------------------------------------------------------------------------


async def test_a_slow_drip_ends_with_the_call(server: Server, transport: Transport) -> None:
    server.script = ["drip"]
    started = time.monotonic()
    with pytest.raises(AnswerLost, match="time was up while reading"):
        await transport.send(request("POST", server.url()))
    assert time.monotonic() - started < 1.5


async def test_reading_has_a_limit_of_its_own(server: Server) -> None:
    server.script = ["hang"]
    async with Transport(Limits(read=timedelta(seconds=0.2))) as transport:
        started = time.monotonic()
        with pytest.raises(AnswerLost, match="while reading"):
            await transport.send(request("POST", server.url()))
    assert time.monotonic() - started < 1.5


async def test_a_server_that_does_not_read_is_told_apart_from_one_that_does_not_answer(
    server: Server,
) -> None:
    server.script = ["unread"]
    large = httpx.Request("POST", server.url(), content=b"x" * 30_000_000)
    async with Transport(Limits(write=timedelta(seconds=0.3))) as transport:
        with pytest.raises(AnswerLost, match="while writing"):
            await transport.send(large)


def keep_writing(_: ResponseHandler) -> None:
    """Known bad: a connection that is closed first writes what it has."""


@pytest.mark.parametrize("careful", [True, False], ids=["careful", "known-bad"])
async def test_of_a_request_that_was_given_up_the_rest_is_never_written(
    monkeypatch: pytest.MonkeyPatch, careful: bool
) -> None:
    """A server that thaws would do it after a person, or a repeat, has seen to it."""
    if not careful:
        monkeypatch.setattr(ResponseHandler, "abort", keep_writing)
    thawed, read = asyncio.Event(), 0
    ended = asyncio.Event()

    async def thaw(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal read
        await thawed.wait()
        with contextlib.suppress(ConnectionError):
            while piece := await reader.read(1_000_000):
                read += len(piece)
        writer.close()
        ended.set()

    size = 30_000_000
    async with await asyncio.start_server(thaw, "127.0.0.1", 0) as frozen:
        port = frozen.sockets[0].getsockname()[1]
        large = httpx.Request("POST", f"http://127.0.0.1:{port}/", content=b"x" * size)
        async with Transport(Limits(write=timedelta(seconds=0.3))) as transport:
            with pytest.raises(AnswerLost, match="while writing"):
                await transport.send(large)
            thawed.set()
            async with asyncio.timeout(10):
                await ended.wait()
    assert (read < size) == careful


async def test_an_answer_without_end_is_cut(server: Server) -> None:
    server.answer = b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 200_000
    async with Transport(Limits(answer=100_000)) as transport:
        with pytest.raises(AnswerLost, match="over 100000 bytes"):
            await transport.send(request("POST", server.url()))


def zipped(body: bytes) -> bytes:
    packed = gzip.compress(body)
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(packed)}\r\n\r\n"
    return head.encode() + packed


async def test_a_packed_answer_that_nobody_asked_for_is_read(
    server: Server, transport: Transport
) -> None:
    server.answer = zipped(b'{"id":"1"}')
    response = await transport.send(request("POST", server.url()))
    assert response.json() == {"id": "1"}
    assert b"Accept-Encoding: identity" in server.requests[0]


async def test_a_packed_answer_is_bounded_by_what_it_unpacks_to(server: Server) -> None:
    server.answer = zipped(bytes(50_000_000))
    async with Transport(Limits(answer=2**20)) as transport:
        with pytest.raises(AnswerLost, match="over"):
            await transport.send(request("POST", server.url()))


async def test_an_answer_that_is_no_http_is_lost(server: Server, transport: Transport) -> None:
    server.answer = b"SSH-2.0-OpenSSH_9.6\r\n\r\n"
    with pytest.raises(AnswerLost):
        await transport.send(request("POST", server.url()))


async def test_an_interim_answer_is_not_the_answer(server: Server, transport: Transport) -> None:
    server.answer = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + ANSWER
    response = await transport.send(request("POST", server.url()))
    assert (response.status_code, response.content) == (200, b"ok")


@pytest.mark.parametrize("fault", ["FIN", "RST", "hang", "half a body", "drip"])
async def test_a_lost_answer_frees_its_connection(server: Server, fault: str) -> None:
    limits = Limits(connections=1, read=timedelta(seconds=0.2))
    async with Transport(limits) as transport:
        for _ in range(3):
            server.script = [fault]
            with pytest.raises(AnswerLost):
                await transport.send(request("POST", server.url()))
        assert (await transport.send(request("POST", server.url()))).status_code == 200


# --- the pool ------------------------------------------------------------------------------------


async def test_a_provider_gets_no_more_connections_than_allowed(server: Server) -> None:
    server.script = ["late"] * 20
    async with Transport(Limits(connections=3)) as transport:
        calls = [transport.send(request("POST", server.url())) for _ in range(20)]
        responses = await asyncio.gather(*calls)
    assert {response.status_code for response in responses} == {200}
    assert (server.most_open, len(server.requests)) == (3, 20)


@pytest.mark.parametrize(("pause", "connections"), [(0.0, 1), (0.4, 2)])
async def test_an_idle_connection_expires(server: Server, pause: float, connections: int) -> None:
    async with Transport(Limits(keep_alive=timedelta(seconds=0.2))) as transport:
        await transport.send(request("POST", server.url()))
        await asyncio.sleep(pause)
        await transport.send(request("POST", server.url()))
    assert server.connections == connections


@pytest.mark.parametrize("noticed", [False, True], ids=["unread", "read"])
@pytest.mark.parametrize("event", ["an end", "an answer to nothing"])
async def test_a_connection_on_which_something_came_while_idle_is_not_used(
    server: Server, transport: Transport, event: str, noticed: bool
) -> None:
    await transport.send(request("POST", server.url()))
    raw = server.writers[0].get_extra_info("socket")
    if event == "an end":
        raw.shutdown(socket.SHUT_WR)
    else:
        server.writers[0].write(b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n")
    if noticed:
        await asyncio.sleep(0.05)
    response = await transport.send(request("POST", server.url()))
    assert (response.status_code, server.connections, len(server.requests)) == (200, 2, 2)


# --- what goes out -------------------------------------------------------------------------------


async def test_the_bytes_are_the_adapters_own(server: Server, transport: Transport) -> None:
    headers = {"Authorization": "Bearer k", "Idempotency-Key": "e"}
    call = httpx.Request("POST", server.url("/a%20b?x=1%40y"), headers=headers, content=b"{}")
    await transport.send(call)
    assert server.requests == [
        f"POST /a%20b?x=1%40y HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
        "Authorization: Bearer k\r\nIdempotency-Key: e\r\nContent-Length: 2\r\n"
        "Accept-Encoding: identity\r\nUser-Agent: marketing-pipeline\r\n\r\n{}".encode()
    ]


async def test_neither_redirects_nor_cookies_nor_proxies_of_the_environment_are_followed(
    server: Server, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    server.answer = (
        b"HTTP/1.1 302 Found\r\nLocation: /other\r\nSet-Cookie: a=1\r\nContent-Length: 0\r\n\r\n"
    )
    for _ in range(2):
        response = await transport.send(request("POST", server.url()))
        assert response.status_code == 302
    assert len(server.requests) == 2
    assert not any(b"Cookie" in seen for seen in server.requests)


def repeated(response: httpx.Response, name: str) -> Sequence[str]:
    return response.headers.get_list(name)


async def test_headers_that_come_twice_arrive_twice(server: Server, transport: Transport) -> None:
    server.answer = b"HTTP/1.1 200 OK\r\nX-A: 1\r\nX-A: 2\r\nContent-Length: 0\r\n\r\n"
    response = await transport.send(request("GET", server.url()))
    assert repeated(response, "x-a") == ["1", "2"]


async def test_a_failure_nobody_thought_of_is_no_proof_that_nothing_was_written(
    transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only listed causes count as unwritten."""

    async def fail(*_: object) -> None:
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(aiohttp.TCPConnector, "connect", fail)
    with pytest.raises(AnswerLost, match="unforeseen"):
        await transport.send(request("POST", "http://127.0.0.1/"))
