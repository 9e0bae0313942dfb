"""What makes an event acceptable, and what two events have in common."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketing_pipeline.domain import digest, event, payload
from marketing_pipeline.domain.event import EventType, InvalidEvent, NewEvent

NOW = datetime(2026, 3, 1, 9, tzinfo=UTC)

texts = st.text(st.characters(exclude_characters="\x00", codec="utf-8"))
numbers = st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(-1e15, 1e15)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
payloads = st.dictionaries(texts, values, min_size=1, max_size=6)


def made(**said: Any) -> NewEvent:
    usual: dict[str, Any] = {
        "type": EventType.CONTENT_PUBLISH,
        "payload": {"text": "hello"},
        "source": "web",
        "key": "k-1",
        "now": NOW,
    }
    return event.new(**(usual | said))


def field_at_fault(**said: Any) -> str | None:
    try:
        made(**said)
    except InvalidEvent as error:
        return error.field
    return None


def refusal(**said: Any) -> InvalidEvent:
    with pytest.raises(InvalidEvent) as caught:
        made(**said)
    return caught.value


@given(payloads)
def test_a_payload_is_kept_as_it_was_sent(content: dict[str, Any]) -> None:
    assert made(payload=content).payload == content


@given(payloads)
def test_the_fingerprint_does_not_depend_on_the_order_of_names(content: dict[str, Any]) -> None:
    turned = dict(reversed(content.items()))
    assert made(payload=turned).fingerprint == made(payload=content).fingerprint


@given(payloads)
def test_the_fingerprint_survives_a_writing_and_a_reading_of_the_json(
    content: dict[str, Any],
) -> None:
    again = json.loads(json.dumps(content, indent=3))
    assert made(payload=again).fingerprint == made(payload=content).fingerprint


@given(payloads, payloads)
def test_only_equal_payloads_have_one_fingerprint(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    same = digest.canonical(one) == digest.canonical(other)
    assert (made(payload=one).fingerprint == made(payload=other).fingerprint) is same


@given(st.uuids())
def test_a_uuid_is_the_key_as_it_is_in_whatever_spelling(key: UUID) -> None:
    spellings = (str(key), str(key).upper(), f"{{{key}}}", key.hex)
    assert {event.idempotency_key("web", spelling) for spelling in spellings} == {str(key)}


@given(texts.filter(str.strip).map(lambda text: "k" + text[:100]), st.sampled_from(["web", "crm"]))
def test_another_key_is_unique_within_its_source_only(key: str, source: str) -> None:
    other = {"web": "crm", "crm": "web"}[source]
    assert event.idempotency_key(source, key) == event.idempotency_key(source, key)
    assert event.idempotency_key(source, key) != event.idempotency_key(other, key)
    UUID(event.idempotency_key(source, key))


def test_an_event_is_named_by_its_key_alone() -> None:
    assert made(payload={"a": 1}).id == made(payload={"a": 2}).id
    assert made(key="k-1").id != made(key="k-2").id


@pytest.mark.parametrize("key", ["", "  ", "k" * 201, "k\x00", "k\ud800"])
def test_a_key_that_cannot_name_an_event_is_refused(key: str) -> None:
    assert refusal(key=key).field == "idempotencyKey"


@pytest.mark.parametrize("source", ["", "  ", "s" * 101, "s\x00", "s\ud800"])
def test_a_source_that_cannot_be_stored_is_refused(source: str) -> None:
    assert refusal(source=source).field == "source"


def test_the_address_of_a_lead_stands_apart_from_its_payload() -> None:
    lead = made(type=EventType.LEAD_CAPTURE, payload={"email": " Ada@Example.COM ", "name": "Ada"})
    assert lead.address == "ada@example.com"
    assert lead.payload == {"name": "Ada"}


def test_an_address_in_another_type_stays_in_the_payload() -> None:
    post = made(payload={"email": "ada@example.com"})
    assert post.address is None
    assert post.payload == {"email": "ada@example.com"}


@pytest.mark.parametrize(
    "address",
    [
        None,
        7,
        "ada",
        "ada@",
        "@example.com",
        "ada@example",
        "a b@example.com",
        "a@b@example.com",
        "ada@example.com\nBcc: all@example.com",
        "a" * 65 + "@example.com",
        "a@" + "b" * 253 + ".c",
    ],
)
def test_what_is_no_address_is_refused_and_not_repeated(address: object) -> None:
    error = refusal(type=EventType.LEAD_CAPTURE, payload={"email": address})
    assert error.field == "payload.email"
    assert "ada" not in str(error)


def test_a_campaign_that_names_no_campaign_is_refused() -> None:
    assert refusal(type=EventType.CAMPAIGN_TRIGGER, payload={}).field == "payload.campaign"


@pytest.mark.parametrize("taken", [event.checked_source, partial(event.idempotency_key, "web")])
def test_what_is_blank_is_told_as_the_openapi_document_tells_it(
    taken: Callable[[str], str],
) -> None:
    """By ECMA-262's `\\s`: schemathesis once sent U+001C, which `str.strip` takes away."""
    for blank in ["", " ", "\t\n\x0b\x0c\r", "\xa0\u2003", "\ufeff"]:
        with pytest.raises(InvalidEvent, match="is empty"):
            taken(blank)
    for text in ["\x1c", "\x85", "\u200b", " a ", "\ufeff0"]:
        assert taken(text)


def test_an_empty_publication_is_refused() -> None:
    assert refusal(payload={}).field == "payload"


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ({"a": {"b": [1, "x\x00"]}}, "payload.a.b[1]"),
        ({"a\x00": 1}, "payload.*"),
        ({"a": "\ud800"}, "payload.a"),
        ({"\udfff": 1}, "payload.*"),
        ({"a": 2**53}, "payload.a"),
        ({"a": -(2**53)}, "payload.a"),
        ({"a": 1e16}, "payload.a"),
        ({"a": float("nan")}, "payload.a"),
        ({"a": float("inf")}, "payload.a"),
        ({"ada@example.com": {"n": 2**60}}, "payload.*.n"),
        ({"a": {7: 1}}, "payload.a"),
        ({"a": NOW}, "payload.a"),
        ({"a": "x" * payload.MAX_SIZE}, "payload"),
    ],
)
def test_what_cannot_be_stored_is_refused_with_its_place(
    content: dict[str, Any], place: str
) -> None:
    error = refusal(payload=content)
    assert error.field == place
    assert "ada" not in str(error)
    assert "9007199254740992" not in str(error)


def test_the_letters_of_an_escaped_nul_are_no_nul() -> None:
    assert made(payload={"a": "\\u0000"}).payload == {"a": "\\u0000"}


def nested(depth: int) -> dict[str, Any]:
    content: dict[str, Any] = {"a": 1}
    for _ in range(depth - 1):
        content = {"a": content}
    return content


def test_a_payload_may_be_nested_this_deep_and_no_deeper() -> None:
    assert made(payload=nested(payload.MAX_DEPTH)).fingerprint
    error = refusal(payload=nested(payload.MAX_DEPTH + 1))
    assert error.field.startswith("payload.a.a.")
    assert "nested" in error.problem


@given(
    st.recursive(
        st.none() | st.floats() | st.integers() | st.text(st.characters()),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters()), inner),
        max_leaves=8,
    )
)
def test_any_value_makes_an_event_or_is_refused_with_a_place_in_the_payload(value: object) -> None:
    assert (field_at_fault(payload={"a": value}) or "payload").startswith("payload")


def test_an_event_without_a_time_is_due_now() -> None:
    assert made().scheduled_at == NOW
    assert not made().time_given
    assert made(scheduled_at=NOW).time_given


def test_a_time_without_an_offset_is_refused() -> None:
    assert refusal(scheduled_at=datetime(2026, 3, 1, 9)).field == "scheduledAt"  # noqa: DTZ001


@pytest.mark.parametrize(
    ("at", "taken"),
    [
        (datetime(2020, 1, 1, tzinfo=UTC), True),
        (datetime(2019, 12, 31, 23, 59, 59, tzinfo=UTC), False),
        (datetime(2020, 1, 1, tzinfo=timezone(timedelta(hours=1))), False),
        (datetime(2027, 4, 5, 23, 59, 59, tzinfo=UTC), True),
        (datetime(2027, 4, 6, tzinfo=UTC), False),
        (datetime.min.replace(tzinfo=timezone(timedelta(hours=23))), False),
        (datetime.max.replace(tzinfo=timezone(timedelta(hours=-23))), False),
    ],
)
def test_a_time_outside_the_partitions_is_refused(at: datetime, taken: bool) -> None:
    if taken:
        assert made(scheduled_at=at).scheduled_at == at
    else:
        assert refusal(scheduled_at=at).field == "scheduledAt"


@given(st.datetimes(timezones=st.timezones()))
def test_any_instant_is_taken_or_refused(at: datetime) -> None:
    assert field_at_fault(scheduled_at=at) in {None, "scheduledAt"}


def test_a_refusal_says_what_is_wrong_and_what_to_send() -> None:
    assert str(refusal(source="")) == f"source: {refusal(source='').problem}; name the sender"
