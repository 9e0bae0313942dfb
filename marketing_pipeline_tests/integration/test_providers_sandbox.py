"""Every adapter against the stand-in, over real HTTP; the stand-in's record is the judge."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import anyio
import httpx
import pytest

from marketing_pipeline.domain.effect import Contact, Content, Email, Post
from marketing_pipeline.domain.outcome import (
    Absent,
    Accepted,
    Ambiguous,
    Blocked,
    Finding,
    Found,
    Inconclusive,
    Outcome,
    Refused,
    Throttled,
)
from marketing_pipeline.providers import http, registry
from marketing_pipeline.providers.protocol import Provider
from marketing_pipeline.providers.transport import Limits, Transport
from marketing_pipeline.sandbox import serve

pytestmark = pytest.mark.anyio
EFFECT = UUID("5b0ef1c5-5f3b-5d43-9a58-0c6f3d8f5b11")
ADAPTERS = ("hubspot", "mailgun", "resend", "webhook")
OPTIONS: dict[str, dict[str, Any]] = {
    "hubspot": {"token": "good"},
    "mailgun": {"api_key": "good", "domain": "mg.shop.example", "region": "us"},
    "resend": {"api_key": "good"},
    "webhook": {"url": "https://hooks.example/x", "secret": "good"},
}
MAIL = Email(
    sender="Käthe <kaethe@shop.example>",
    to="anna@example.com",
    subject="Grüße",
    html="<p>Hallo</p>",
    text="Hallo",
    headers=(("List-Unsubscribe", "<https://shop.example/u/1>"),),
)
CONTENT: dict[str, Content] = {
    "hubspot": Contact(email="anna@example.com", properties={"city": "Köln"}),
    "mailgun": MAIL,
    "resend": MAIL,
    "webhook": Post(body={"title": "Grüße"}),
}


@dataclass(kw_only=True)
class Stand:
    """The sandbox, its clock and its controls."""

    url: str = ""
    now: datetime = field(default_factory=lambda: datetime(2026, 3, 1, 12, 0, tzinfo=UTC))

    def provider(self, adapter: str) -> Provider:
        return registry.build("mine", adapter, OPTIONS[adapter], base_url=f"{self.url}/{adapter}")

    def put(self, what: str, wish: object) -> None:
        httpx.put(f"{self.url}/_sandbox/{what}", json=wish).raise_for_status()

    def fault(self, adapter: str, kind: str, **more: object) -> None:
        self.put("faults", [{"provider": adapter, "kind": kind, "times": 1, **more}])

    def acts(self) -> list[dict[str, Any]]:
        """What was really done, without upserts that changed nothing."""
        record: list[dict[str, Any]] = httpx.get(f"{self.url}/_sandbox/record").json()
        return [act for act in record if not act["repeat"]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    made = Stand()
    with serve.running(tmp_path / "record.sqlite", clock=lambda: made.now) as made.url:
        yield made


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    async with Transport(Limits(read=timedelta(seconds=0.4))) as made:
        yield made


async def send(transport: Transport, provider: Provider, content: Content) -> Outcome:
    request = provider.request(EFFECT, content)
    done = await http.call(transport, provider, request, now=datetime.now(UTC))
    return done.outcome


async def find(transport: Transport, provider: Provider, since: datetime) -> Finding:
    request = provider.look_up(EFFECT, MAIL.to, since)
    assert request is not None
    asked = await http.look_up(transport, provider, request, effect_id=EFFECT, now=since)
    return asked.finding


@pytest.mark.parametrize("adapter", ADAPTERS)
async def test_a_call_is_accepted_and_done_once(
    stand: Stand, transport: Transport, adapter: str
) -> None:
    outcome = await send(transport, stand.provider(adapter), CONTENT[adapter])
    assert isinstance(outcome, Accepted)
    [act] = stand.acts()
    assert (act["provider"], act["key"]) == (adapter, str(EFFECT))
    if act["ref"] is not None:
        assert outcome.reference == act["ref"].strip("<>")


@pytest.mark.parametrize("adapter", ["hubspot", "resend", "webhook"])
async def test_the_stored_bytes_under_the_same_key_are_answered_again_and_not_done_again(
    stand: Stand, transport: Transport, adapter: str
) -> None:
    provider = stand.provider(adapter)
    first = await send(transport, provider, CONTENT[adapter])
    body = provider.request(EFFECT, CONTENT[adapter]).content
    again = await http.call(transport, provider, provider.repeat(EFFECT, body), now=stand.now)
    assert again.outcome == first
    assert len(stand.acts()) == 1


async def test_mailgun_repeats_what_is_sent_again(stand: Stand, transport: Transport) -> None:
    """The reason why it is looked up instead."""
    provider = stand.provider("mailgun")
    for _ in range(2):
        assert isinstance(await send(transport, provider, MAIL), Accepted)
    assert len(stand.acts()) == 2


AFTER = ("error_after", "hang_after", "reset_after", "close_after", "half_body_after")
BEFORE = ("error_before", "hang_before", "reset_before")


@pytest.mark.parametrize("kind", [*AFTER, *BEFORE])
@pytest.mark.parametrize("adapter", ADAPTERS)
async def test_a_fault_is_ambiguous_whether_it_came_before_or_after_the_deed(
    stand: Stand, transport: Transport, adapter: str, kind: str
) -> None:
    stand.fault(adapter, kind, seconds=2)
    outcome = await send(transport, stand.provider(adapter), CONTENT[adapter])
    assert isinstance(outcome, Ambiguous)
    assert len(stand.acts()) == (1 if kind in AFTER else 0)


@pytest.mark.parametrize("kind", [*AFTER, *BEFORE])
@pytest.mark.parametrize("adapter", ["hubspot", "resend", "webhook"])
async def test_after_a_fault_a_repeat_settles_it_with_one_deed(
    stand: Stand, transport: Transport, adapter: str, kind: str
) -> None:
    stand.fault(adapter, kind, seconds=2)
    provider = stand.provider(adapter)
    await send(transport, provider, CONTENT[adapter])
    assert isinstance(await send(transport, provider, CONTENT[adapter]), Accepted)
    assert len(stand.acts()) == 1


@pytest.mark.parametrize("adapter", ADAPTERS)
async def test_a_limit_is_throttled_and_nothing_is_done(
    stand: Stand, transport: Transport, adapter: str
) -> None:
    stand.fault(adapter, "throttle", seconds=7)
    outcome = await send(transport, stand.provider(adapter), CONTENT[adapter])
    assert isinstance(outcome, Throttled)
    told = timedelta(seconds=10 if adapter == "hubspot" else 7)  # HubSpot tells its window
    assert outcome.retry_after == told
    assert stand.acts() == []


@pytest.mark.parametrize("adapter", ["hubspot", "resend"])
async def test_a_used_up_quota_blocks(stand: Stand, transport: Transport, adapter: str) -> None:
    stand.fault(adapter, "quota")
    outcome = await send(transport, stand.provider(adapter), CONTENT[adapter])
    assert isinstance(outcome, Blocked)
    assert stand.acts() == []


@pytest.mark.parametrize("adapter", ADAPTERS)
async def test_a_key_that_was_revoked_blocks(
    stand: Stand, transport: Transport, adapter: str
) -> None:
    stand.put("settings", {"keys": {adapter: "another"}})
    outcome = await send(transport, stand.provider(adapter), CONTENT[adapter])
    assert isinstance(outcome, Blocked)
    assert "good" not in outcome.reason
    assert stand.acts() == []


@pytest.mark.parametrize("adapter", ["hubspot", "mailgun", "resend"])
async def test_an_address_that_is_none_is_refused_without_being_repeated(
    stand: Stand, transport: Transport, adapter: str
) -> None:
    wrong: dict[str, Content] = {
        "hubspot": Contact(email="anna@nowhere"),
        "mailgun": Email(sender=MAIL.sender, to="anna@nowhere", subject="s", html="h", text="t"),
        "resend": Email(sender=MAIL.sender, to="anna@nowhere", subject="s", html="h", text="t"),
    }
    outcome = await send(transport, stand.provider(adapter), wrong[adapter])
    assert isinstance(outcome, Refused)
    assert "anna" not in outcome.reason
    assert stand.acts() == []


async def test_resend_compares_the_payload(stand: Stand, transport: Transport) -> None:
    provider = stand.provider("resend")
    assert provider.compares_payload
    await send(transport, provider, MAIL)
    body = provider.request(EFFECT, MAIL).content.replace(b"Hallo", b"Adieu")
    other = await http.call(transport, provider, provider.repeat(EFFECT, body), now=stand.now)
    assert isinstance(other.outcome, Ambiguous)
    assert "invalid_idempotent_request" in other.outcome.reason


async def test_resend_is_waited_for_while_the_first_call_is_under_way(
    stand: Stand, transport: Transport
) -> None:
    provider = stand.provider("resend")
    stand.fault("resend", "slow", seconds=0.8)
    first = await send(transport, provider, MAIL)  # our patience ends before the answer comes
    assert isinstance(first, Ambiguous)
    second = await send(transport, provider, MAIL)
    if isinstance(second, Throttled):  # it noticed that we hung up, or it did not
        assert "concurrent_idempotent_requests" in second.reason
        await anyio.sleep(0.8)
        second = await send(transport, provider, MAIL)
    assert isinstance(second, Accepted)
    assert len(stand.acts()) == 1


async def test_a_mail_in_doubt_is_found_once_the_index_has_it(
    stand: Stand, transport: Transport
) -> None:
    provider = stand.provider("mailgun")
    began = stand.now
    stand.put("settings", {"mailgun_index_delay": 600})
    stand.fault("mailgun", "close_after")
    assert isinstance(await send(transport, provider, MAIL), Ambiguous)
    assert await find(transport, provider, began) == Absent()  # too early to be believed
    stand.now += provider.contract.settle_delay
    assert await find(transport, provider, began) == Found(f"{EFFECT}@mg.shop.example")


async def test_a_mail_that_was_not_taken_is_absent(stand: Stand, transport: Transport) -> None:
    provider = stand.provider("mailgun")
    began = stand.now
    stand.fault("mailgun", "reset_before")
    assert isinstance(await send(transport, provider, MAIL), Ambiguous)
    stand.now += provider.contract.settle_delay
    assert await find(transport, provider, began) == Absent()


@pytest.mark.parametrize("kind", ["throttle", "error_before", "hang_before", "half_body_after"])
async def test_a_look_up_that_is_hit_says_nothing(
    stand: Stand, transport: Transport, kind: str
) -> None:
    provider = stand.provider("mailgun")
    await send(transport, provider, MAIL)
    stand.now += provider.contract.settle_delay
    stand.fault("mailgun", kind, operation="events", seconds=2)
    assert isinstance(await find(transport, provider, stand.now), Inconclusive)
