"""Every way an exchange can end becomes an outcome, over real sockets."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import httpx
import pytest

from marketing_pipeline.domain.effect import Content, Contract, Post
from marketing_pipeline.domain.outcome import (
    Accepted,
    Ambiguous,
    Blocked,
    Finding,
    Inconclusive,
    Outcome,
    Unreached,
)
from marketing_pipeline.providers import http, registry
from marketing_pipeline.providers.observed import Observed
from marketing_pipeline.providers.protocol import Provider, Unsearchable
from marketing_pipeline.providers.transport import Limits, NotWritten, Transport

pytestmark = pytest.mark.anyio
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
EFFECT = UUID(int=7)
MAILGUN = registry.build(
    "bulk", "mailgun", {"api_key": "k", "domain": "mg.shop.example", "region": "us"}
)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    async with Transport(Limits(call=timedelta(seconds=0.5))) as made:
        yield made


class Origin:
    """Answers every request with the same bytes; None: it closes without a word."""

    def __init__(self, answer: bytes | None) -> None:
        self.answer = answer
        self.requests = 0

    async def __aenter__(self) -> str:
        self.server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"

    async def __aexit__(self, *_: object) -> None:
        self.server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):  # nothing was written to it
            await reader.readuntil(b"\r\n\r\n")
            self.requests += 1
            writer.write(self.answer or b"")
        writer.close()


def hook(base_url: str) -> Provider:
    return registry.build("hook", "webhook", {"url": "https://x.example"}, base_url=base_url)


def reply(status: int, body: bytes = b"{}") -> bytes:
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


async def test_an_answer_is_what_the_adapter_makes_of_it(transport: Transport) -> None:
    async with Origin(reply(401, b"who are you")) as url:
        provider = hook(url)
        done = await http.call(transport, provider, provider.request(EFFECT, Post()), now=NOW)
    assert done.outcome == Blocked(None, "401 who are you")
    assert done.status_code == 401
    assert timedelta(0) < done.latency < timedelta(seconds=0.5)


async def test_a_closed_port_is_unreached(transport: Transport) -> None:
    async with Origin(None) as url:
        provider = hook(url)
    done = await http.call(transport, provider, provider.request(EFFECT, Post()), now=NOW)
    assert isinstance(done.outcome, Unreached)
    assert done.status_code is None


async def test_a_call_that_is_read_and_dropped_is_ambiguous(transport: Transport) -> None:
    async with Origin(None) as url:
        provider = hook(url)
        done = await http.call(transport, provider, provider.request(EFFECT, Post()), now=NOW)
    assert isinstance(done.outcome, Ambiguous)
    assert done.status_code is None


async def test_a_check_before_the_write_leaves_it_unreached(transport: Transport) -> None:
    def lapsed() -> None:
        raise NotWritten("the grant is over")

    origin = Origin(reply(200))
    async with origin as url:
        provider = hook(url)
        request = provider.request(EFFECT, Post())
        done = await http.call(transport, provider, request, now=NOW, before_write=lapsed)
    assert done.outcome == Unreached("the grant is over")
    assert origin.requests == 0


class Stumbling(Unsearchable):
    """An adapter with a bug in its reading; its arguments are those of Provider."""

    name = "stumbling"
    kind = MAILGUN.kind
    contract: Contract = MAILGUN.contract
    compares_payload = False

    def __init__(self, url: str) -> None:
        self.url = url

    def request(self, effect_id: UUID, content: Content) -> httpx.Request:
        raise NotImplementedError

    def repeat(self, effect_id: UUID, body: bytes) -> httpx.Request:  # noqa: ARG002
        return httpx.Request("POST", self.url, content=body)

    def outcome(self, response: httpx.Response, now: datetime) -> Outcome:  # noqa: ARG002
        return Accepted(response.json()["id"]["of"][0])

    def finding(self, response: httpx.Response, effect_id: UUID) -> Finding:  # noqa: ARG002
        raise RuntimeError("not thought of")

    def observed(self, response: httpx.Response, now: datetime) -> tuple[Observed, ...]:  # noqa: ARG002
        raise RuntimeError("not thought of")


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"id":null}', b"\xff", b'{"id":{"of":[]}}'])
async def test_a_success_that_the_adapter_stumbles_over_is_ambiguous(
    transport: Transport, body: bytes
) -> None:
    async with Origin(reply(200, body)) as url:
        provider = Stumbling(url)
        done = await http.call(transport, provider, provider.repeat(EFFECT, b""), now=NOW)
    assert isinstance(done.outcome, Ambiguous)
    assert done.outcome.reason.startswith("200 unreadable: ")
    assert done.status_code == 200


async def test_a_look_up_that_fails_in_any_way_says_nothing(transport: Transport) -> None:
    answers = [None, reply(500), reply(200, b"<html>"), b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n"]
    for answer in answers:
        async with Origin(answer) as url:
            request = httpx.Request("GET", f"{url}/v3/mg.shop.example/events")
            asked = await http.look_up(transport, MAILGUN, request, effect_id=EFFECT, now=NOW)
        assert isinstance(asked.finding, Inconclusive), answer
    asked = await http.look_up(
        transport, MAILGUN, request, effect_id=EFFECT, now=NOW
    )  # nobody is there
    assert isinstance(asked.finding, Inconclusive)
    async with Origin(reply(200)) as url:
        stumbling = httpx.Request("GET", url)
        asked = await http.look_up(transport, Stumbling(url), stumbling, effect_id=EFFECT, now=NOW)
    assert asked.finding == Inconclusive("200 unreadable: RuntimeError")
    assert asked.status_code == 200
