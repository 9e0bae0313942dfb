"""Adapters made of what the operator wrote, and the errors where that cannot be."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from pydantic import ValidationError

from marketing_pipeline.domain.effect import EffectKind, Post
from marketing_pipeline.providers import registry

GOOD: dict[str, dict[str, Any]] = {
    "hubspot": {"token": "pat"},
    "mailgun": {"api_key": "key", "domain": "mg.shop.example", "region": "us"},
    "resend": {"api_key": "re"},
    "webhook": {"url": "https://hooks.example/x"},
}
PLAIN = GOOD["webhook"] | {"deduplicates": False}
HOUR = timedelta(hours=1)


@pytest.mark.parametrize("adapter", sorted(registry.ADAPTERS))
def test_every_adapter_can_be_made_and_says_what_it_takes(adapter: str) -> None:
    provider = registry.build("mine", adapter, GOOD[adapter])
    assert (provider.name, provider.kind) == ("mine", registry.KINDS[adapter])


def test_the_kinds_are_the_adapters_own() -> None:
    assert registry.KINDS == {
        "hubspot": EffectKind.CONTACT,
        "mailgun": EffectKind.EMAIL,
        "resend": EffectKind.EMAIL,
        "webhook": EffectKind.POST,
    }


@pytest.mark.parametrize(
    ("adapter", "change", "field"),
    [
        ("hubspot", {"token": ""}, "token"),
        ("hubspot", {"token": "SECRET\n"}, "token"),
        ("hubspot", {"token": "SECRET value"}, "token"),
        ("hubspot", {"token": 12345}, "token"),
        ("hubspot", {"tokn": "SECRET"}, "tokn"),
        ("resend", {"api_key": None}, "api_key"),
        ("mailgun", {"domain": "https://mg.shop.example"}, "domain"),
        ("mailgun", {"domain": "mg.shop.example/v3"}, "domain"),
        ("mailgun", {"domain": "localhost"}, "domain"),
        ("mailgun", {"region": "asia"}, "region"),
        ("webhook", {"url": "hooks.example/SECRET"}, "url"),
        ("webhook", {"url": "ftp://hooks.example/SECRET"}, "url"),
        ("webhook", {"url": "https://user:SECRET@hooks.example/"}, "url"),
        ("webhook", {"url": "https://hooks.example:99999/SECRET"}, "url"),
        ("webhook", {"url": "https://hooks..example/SECRET"}, "url"),
        ("webhook", {"url": "https://xn--zzzz999999/SECRET"}, "url"),
        ("webhook", {"secret": "SECRET\r\nX: y"}, "secret"),
        ("webhook", {"deduplicates": "SECRET"}, "deduplicates"),
        ("resend", {"deduplicates": False}, "deduplicates"),
    ],
)
def test_an_option_that_cannot_be_used_is_named_and_not_repeated(
    adapter: str, change: dict[str, Any], field: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        registry.build("mine", adapter, GOOD[adapter] | change)
    assert caught.value.errors()[0]["loc"] == (field,)
    assert "SECRET" not in str(caught.value)
    assert "12345" not in str(caught.value)


@pytest.mark.parametrize(
    ("adapter", "spans", "field"),
    [
        ("resend", {"settle_delay": timedelta(seconds=-1)}, "settle_delay"),
        ("resend", {"key_life": timedelta(hours=25)}, "key_life"),
        ("resend", {"key_life": timedelta(seconds=30)}, "key_life"),
        ("resend", {"key_life": -HOUR}, "key_life"),
        ("resend", {"horizon": HOUR}, "horizon"),
        ("hubspot", {"key_life": HOUR}, "key_life"),
        ("mailgun", {"key_life": HOUR}, "key_life"),
        ("mailgun", {"horizon": timedelta(minutes=30)}, "horizon"),
        ("mailgun", {"settle_delay": timedelta(days=2)}, "horizon"),
    ],
)
def test_a_span_that_cannot_be_kept_is_named(
    adapter: str, spans: dict[str, timedelta], field: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        registry.build("mine", adapter, GOOD[adapter], **spans)  # type: ignore[arg-type]
    assert caught.value.errors()[0]["loc"] == (field,)


def test_a_key_that_nobody_keeps_has_no_life() -> None:
    with pytest.raises(ValidationError, match="is for providers that keep a key; leave it out"):
        registry.build("mine", "webhook", PLAIN, key_life=HOUR)


@pytest.mark.parametrize("adapter", sorted(registry.ADAPTERS))
def test_who_deduplicates_or_can_be_asked_gets_nothing_twice(adapter: str) -> None:
    with pytest.raises(ValidationError, match="can neither deduplicate nor be asked") as caught:
        registry.build("mine", adapter, GOOD[adapter], at_least_once=True)
    assert caught.value.errors()[0]["loc"] == ("at_least_once",)


def test_a_plain_hook_may_be_declared_at_least_once() -> None:
    assert registry.build("mine", "webhook", PLAIN, at_least_once=True).contract.at_least_once
    assert not registry.build("mine", "webhook", PLAIN).contract.at_least_once


def test_spans_of_the_contract_can_be_overridden() -> None:
    mailgun = registry.build(
        "mine",
        "mailgun",
        GOOD["mailgun"],
        settle_delay=timedelta(minutes=5),
        horizon=timedelta(days=30),
    )
    assert mailgun.contract.settle_delay == timedelta(minutes=5)
    assert mailgun.contract.horizon == timedelta(days=30)
    hook = registry.build("mine", "webhook", GOOD["webhook"], key_life=timedelta(days=7))
    assert hook.contract.key_life == timedelta(days=7)


def test_another_address_replaces_the_providers_own() -> None:
    hook = registry.build(
        "blog", "webhook", GOOD["webhook"], base_url="http://127.0.0.1:9/webhook/"
    )
    assert str(hook.request(UUID(int=1), Post()).url) == "http://127.0.0.1:9/webhook/blog"


def test_an_adapter_that_does_not_exist_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="telegraph"):
        registry.build("mine", "telegraph", {})
