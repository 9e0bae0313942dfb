"""Who a webhook is of, by known vectors, and what it says."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from marketing_pipeline.providers import notices, registry
from marketing_pipeline.providers.mailgun_notices import REPEATED_FOR, MailgunNotices
from marketing_pipeline.providers.notices import (
    BadSecret,
    Ignored,
    Notice,
    NoticeKind,
    Reading,
    Unreadable,
    Unverified,
)
from marketing_pipeline.providers.resend_notices import ResendNotices
from marketing_pipeline_tests import webhooks

AT = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
EFFECT = UUID("0b8e3a56-9d0f-5a51-8d6c-0f3f1f2b7c11")
# The example of https://github.com/standard-webhooks/standard-webhooks, in its libraries' tests.
STANDARD = {
    "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "webhook-timestamp": "1614265330",
    "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}
PAYLOAD = b'{"test": 2432232314}'
THEN = datetime.fromtimestamp(1614265330, UTC)


def standard(
    headers: Mapping[str, str] = STANDARD,
    body: bytes = PAYLOAD,
    now: datetime = THEN,
    secret: str = webhooks.SVIX_SECRET,
) -> Reading:
    return ResendNotices(secret).read(headers.get, body, now)


def of_resend(type: str, **more: Any) -> Reading:
    body = webhooks.resend(type, "re_1", "ada@example.com", AT, **more)
    return standard(webhooks.svix(body, "msg_1", AT), body, AT)


def of_mailgun(event: str, now: datetime = AT, **more: Any) -> Reading:
    body = webhooks.mailgun(event, EFFECT, "ada@example.com", AT, **more)
    return MailgunNotices(webhooks.MAILGUN_KEY).read({}.get, body, now)


def notice(reading: Reading) -> Notice:
    assert isinstance(reading, Notice), reading
    return reading


def test_the_published_example_is_verified() -> None:
    """It goes on to be read, and has no type: only its own sender gets that far."""
    assert isinstance(standard(), Unreadable)


def test_svix_names_its_headers_otherwise_and_means_the_same() -> None:
    headers = {name.replace("webhook-", "svix-"): value for name, value in STANDARD.items()}
    assert isinstance(standard(headers), Unreadable)


def test_one_good_signature_among_several_is_enough() -> None:
    both = f"v1,{'A' * 44} {STANDARD['webhook-signature']} v1a,not-ours"
    assert isinstance(standard(STANDARD | {"webhook-signature": both}), Unreadable)


@pytest.mark.parametrize(
    "changed",
    [
        {"body": PAYLOAD + b" "},
        {"body": PAYLOAD.replace(b"4}", b"5}")},
        {"secret": "whsec_AAAAr8GKYqrTwjUPD8ILPZIo2LaLaSw="},
        {"headers": STANDARD | {"webhook-id": "msg_another"}},
        {"headers": STANDARD | {"webhook-timestamp": "1614265331"}},
        {"headers": STANDARD | {"webhook-timestamp": "1614265330.0"}},
        {"headers": STANDARD | {"webhook-timestamp": "9" * 400}},
        {"headers": STANDARD | {"webhook-signature": STANDARD["webhook-signature"][3:]}},
        {
            "headers": STANDARD
            | {"webhook-signature": "v2" + STANDARD["webhook-signature"].removeprefix("v1")}
        },
        {"headers": STANDARD | {"webhook-signature": "v1,é"}},
        {"headers": {}},
        {"headers": {name: value for name, value in STANDARD.items() if "id" not in name}},
        {"now": THEN + timedelta(minutes=5, seconds=1)},
        {"now": THEN - timedelta(minutes=5, seconds=1)},
    ],
)
def test_what_was_tampered_with_or_kept_too_long_is_not_verified(changed: dict[str, Any]) -> None:
    assert isinstance(standard(**changed), Unverified)


def test_clocks_may_differ_by_five_minutes() -> None:
    for apart in (timedelta(minutes=5), -timedelta(minutes=5)):
        assert isinstance(standard(now=THEN + apart), Unreadable)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_%%%", webhooks.SVIX_SECRET[6:], "not-set"])
def test_what_cannot_be_a_signing_secret_is_refused_without_being_shown(secret: str) -> None:
    with pytest.raises(BadSecret, match="copy the one of this endpoint") as raised:
        ResendNotices(secret)
    assert len(secret) < 7 or secret not in str(raised.value)


def test_nobody_sees_a_secret_in_a_reader() -> None:
    shown = f"{ResendNotices(webhooks.SVIX_SECRET)}{MailgunNotices(webhooks.MAILGUN_KEY)}"
    assert webhooks.SVIX_SECRET not in shown
    assert webhooks.MAILGUN_KEY not in shown


def test_mailgun_signs_timestamp_and_token() -> None:
    """The value is what `openssl dgst -sha256 -hmac` says of "1772357400" and 50 times "a"."""
    signed = webhooks.signature("a" * 50, AT)
    assert signed["timestamp"] == "1772357400"
    assert signed["signature"] == (
        "862da00538389b9535d51ea86b01c05c0d9fea989fa486e02814abc3b08002b4"
    )
    assert notice(of_mailgun("delivered")).effect_id == EFFECT


@pytest.mark.parametrize(
    "changed",
    [
        {"key": "another"},
        {"token": ""},
        {"now": AT + REPEATED_FOR + timedelta(seconds=1)},
        {"now": AT - timedelta(minutes=5, seconds=1)},
    ],
)
def test_mailgun_s_signature_counts_for_its_key_and_its_time(changed: dict[str, Any]) -> None:
    assert isinstance(of_mailgun("delivered", **changed), Unverified)


@pytest.mark.parametrize(
    "signature",
    [
        None,
        {},
        {"timestamp": "1772357400", "token": "aaaa", "signature": "0" * 64},
        {"timestamp": "1772357400", "token": "aaaa", "signature": "é\ud800"},
        {"timestamp": None, "token": 1, "signature": True},
    ],
)
def test_a_body_that_mailgun_did_not_sign_is_not_read(signature: object) -> None:
    body = json.dumps({"signature": signature, "event-data": {"event": "delivered"}}).encode()
    reader = MailgunNotices(webhooks.MAILGUN_KEY)
    assert isinstance(reader.read({}.get, body, AT), Unverified)


def test_mailgun_may_repeat_what_it_signed_for_eight_hours() -> None:
    assert notice(of_mailgun("complained", now=AT + timedelta(hours=8)))


RESEND = [
    ("email.delivered", {}, NoticeKind.DELIVERED, False, None),
    ("email.delivery_delayed", {}, NoticeKind.DELAYED, False, None),
    ("email.opened", {}, NoticeKind.OPENED, False, None),
    ("email.complained", {}, NoticeKind.COMPLAINED, True, None),
    (
        "email.clicked",
        {"click": {"link": "https://example.com/offer?u=ada@example.com&t=secret#x"}},
        NoticeKind.CLICKED,
        False,
        "https://example.com/offer",
    ),
    (
        "email.bounced",
        {"bounce": {"type": "Permanent", "subType": "General", "message": "no ada@example.com"}},
        NoticeKind.BOUNCED,
        True,
        "Permanent General no [address]",
    ),
    ("email.bounced", {"bounce": {"message": "gone"}}, NoticeKind.BOUNCED, True, "gone"),
    (
        "email.bounced",
        {"bounce": {"type": "Transient", "subType": "MailboxFull", "message": "full"}},
        NoticeKind.FAILED,
        False,
        "Transient MailboxFull full",
    ),
    ("email.failed", {"failed": {"reason": "quota"}}, NoticeKind.FAILED, False, "quota"),
    (
        "email.suppressed",
        {"suppressed": {"type": "Suppressed", "reason": "previous_bounce", "message": "m"}},
        NoticeKind.FAILED,
        True,
        "Suppressed previous_bounce m",
    ),
]


@pytest.mark.parametrize(("type", "more", "kind", "excludes", "detail"), RESEND)
def test_each_of_resend_s_events_is_told_in_our_words(
    type: str, more: dict[str, Any], kind: NoticeKind, excludes: bool, detail: str | None
) -> None:
    assert of_resend(type, **more) == Notice(
        kind=kind,
        id="msg_1",
        occurred_at=AT,
        effect_id=None,
        reference="re_1",
        address="ada@example.com",
        excludes=excludes,
        detail=detail,
    )


def test_a_contact_who_left_resend_s_list_has_unsubscribed() -> None:
    said = {"email": "ada@example.com", "unsubscribed": True}
    body = json.dumps({"type": "contact.updated", "created_at": AT.isoformat(), "data": said})
    told = notice(standard(webhooks.svix(body.encode(), "msg_2", AT), body.encode(), AT))
    assert (told.kind, told.excludes) == (NoticeKind.UNSUBSCRIBED, True)
    assert (told.address, told.reference) == ("ada@example.com", None)
    said["unsubscribed"] = False
    body = json.dumps({"type": "contact.updated", "created_at": AT.isoformat(), "data": said})
    stays = standard(webhooks.svix(body.encode(), "msg_2", AT), body.encode(), AT)
    assert stays == Ignored("contact.updated")


MAILGUN = [
    ("delivered", {}, NoticeKind.DELIVERED, False, None),
    ("opened", {"ip": "192.0.2.1"}, NoticeKind.OPENED, False, None),
    ("clicked", {"url": "https://example.com/x?y"}, NoticeKind.CLICKED, False, "https://example.com/x"),
    ("complained", {}, NoticeKind.COMPLAINED, True, None),
    ("unsubscribed", {}, NoticeKind.UNSUBSCRIBED, True, None),
    ("rejected", {"reject": {"reason": "virus"}}, NoticeKind.FAILED, False, "virus"),
    (
        "failed",
        {
            "severity": "permanent",
            "reason": "bounce",
            "delivery-status": {"code": 550, "message": "5.1.1 no mailbox ada@example.com"},
        },
        NoticeKind.BOUNCED,
        True,
        "permanent bounce 550 5.1.1 no mailbox [address]",
    ),
    (
        "failed",
        {"severity": "temporary", "reason": "generic", "delivery-status": {"code": 452}},
        NoticeKind.DELAYED,
        False,
        "temporary generic 452",
    ),
    (
        "failed",
        {"severity": "permanent", "reason": "old"},
        NoticeKind.FAILED,
        False,
        "permanent old",
    ),
    (
        "failed",
        {"severity": "permanent", "reason": "suppress-complaint"},
        NoticeKind.FAILED,
        True,
        "permanent suppress-complaint",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("event", "more", "kind", "excludes", "detail"), MAILGUN)
def test_each_of_mailgun_s_events_is_told_in_our_words(
    event: str, more: dict[str, Any], kind: NoticeKind, excludes: bool, detail: str | None
) -> None:
    assert of_mailgun(event, **more) == Notice(
        kind=kind,
        id=f"CCXMjJ7nQi2N3BPigGOdgQ {AT.isoformat()}",
        occurred_at=AT,
        effect_id=EFFECT,
        reference=f"{EFFECT}@mg.example.com",
        address="ada@example.com",
        excludes=excludes,
        detail=detail,
        token="a" * 50,
    )


def test_mailgun_s_message_id_names_the_effect_where_the_variable_is_gone() -> None:
    assert notice(of_mailgun("opened", **{"user-variables": []})).effect_id == EFFECT
    foreign = {"user-variables": {}, "message": {"headers": {"message-id": "x@y.org"}}}
    told = notice(of_mailgun("opened", **foreign))
    assert (told.effect_id, told.reference) == (None, "x@y.org")


def test_what_is_not_kept_is_named_and_ignored() -> None:
    assert of_resend("email.sent") == Ignored("email.sent")
    assert of_mailgun("accepted") == Ignored("accepted")


@pytest.mark.parametrize("stamp", [None, "now", True, float("nan"), 1e300, {}])
def test_a_signed_body_of_another_form_is_said_to_be_so(stamp: object) -> None:
    assert of_mailgun("delivered", timestamp=stamp) == Unreadable(
        "id or timestamp is missing or is none", 406
    )


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'{"type": 1}'])
def test_resend_hears_400_of_a_body_that_says_nothing(body: bytes) -> None:
    reading = standard(webhooks.svix(body, "msg_1", AT), body, AT)
    assert isinstance(reading, Unreadable)
    assert reading.status == 400


@pytest.mark.parametrize("at", [None, "yesterday", "2026-03-01T09:30:00", 5])
def test_an_instant_without_its_offset_is_none(at: object) -> None:
    document = {"type": "email.delivered", "created_at": at, "data": {"email_id": "re_1"}}
    body = json.dumps(document).encode()
    assert isinstance(standard(webhooks.svix(body, "msg_1", AT), body, AT), Unreadable)


def test_of_several_recipients_nobody_says_which_it_was() -> None:
    assert notice(of_resend("email.bounced", to=["a@example.com", "b@example.com"])).address is None
    assert notice(of_resend("email.bounced", to="a@example.com")).address == "a@example.com"


def test_text_that_the_log_cannot_hold_is_made_fit() -> None:
    assert notices.text("a\0\ud800b") == "ab"
    assert notices.text("\0") is None
    assert notices.words("x" * 400) == "x" * 300
    assert notices.place("https://[bad") is None
    assert notices.place("mailto:ada@example.com") == "mailto://[address]"


def test_every_secret_for_notices_is_an_option_that_may_be_left_out() -> None:
    for adapter, (option, _) in registry.READERS.items():
        assert not registry.ADAPTERS[adapter].model_fields[option].is_required()
