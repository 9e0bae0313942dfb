"""What each provider's headers say is left of its limits, in its own names and units."""

from datetime import UTC, datetime, timedelta

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketing_pipeline.providers import registry
from marketing_pipeline.providers.observed import LONGEST, MOST, Observed
from marketing_pipeline.providers.protocol import Provider

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
IN_A_MINUTE = str(int((NOW + MINUTE).timestamp()))
PROVIDERS = {
    "hubspot": registry.build("crm", "hubspot", {"token": "t"}),
    "resend": registry.build("mail", "resend", {"api_key": "k"}),
    "mailgun": registry.build(
        "bulk", "mailgun", {"api_key": "k", "domain": "mg.shop.example", "region": "eu"}
    ),
    "webhook": registry.build("site", "webhook", {"url": "https://hooks.example/in"}),
}


def observed(
    provider: Provider, headers: dict[str, str], method: str = "POST"
) -> tuple[Observed, ...]:
    request = httpx.Request(method, "https://api.example/")
    return provider.observed(httpx.Response(200, headers=headers, request=request), NOW)


def of(name: str, remaining: int, resets_in: timedelta) -> Observed:
    return Observed(name=name, remaining=remaining, resets_in=resets_in)


@pytest.mark.parametrize(
    ("name", "headers", "expected"),
    [
        (
            "hubspot",
            {
                "X-HubSpot-RateLimit-Remaining": "99",
                "X-HubSpot-RateLimit-Interval-Milliseconds": "10000",
            },
            of("rolling", 99, timedelta(seconds=10)),
        ),
        (
            "hubspot",
            {"X-HubSpot-RateLimit-Daily-Remaining": "0"},
            of("daily", 0, timedelta(hours=12)),
        ),
        (
            "resend",
            {"ratelimit-remaining": "1", "ratelimit-reset": "60"},
            of("rate", 1, MINUTE),
        ),
        (
            "resend",
            {"ratelimit-remaining": "0", "ratelimit-reset": "0"},  # within this second
            of("rate", 0, timedelta(seconds=1)),
        ),
        (
            "mailgun",
            {"X-RateLimit-Remaining": "7", "X-RateLimit-Reset": IN_A_MINUTE + ".0"},
            of("messages", 7, MINUTE),
        ),
        (
            "webhook",
            {"RateLimit-Remaining": "3", "RateLimit-Reset": "60"},
            of("rate", 3, MINUTE),
        ),
        (
            "webhook",
            {"X-RateLimit-Remaining": "3", "X-RateLimit-Reset": IN_A_MINUTE},
            of("rate", 3, MINUTE),
        ),
        (
            "webhook",
            {"X-RateLimit-Remaining": "0", "Retry-After": "60"},
            of("rate", 0, MINUTE),
        ),
    ],
)
def test_each_provider_is_read_in_its_own_names_and_units(
    name: str, headers: dict[str, str], expected: Observed
) -> None:
    assert observed(PROVIDERS[name], headers) == (expected,)


@pytest.mark.parametrize("provider", PROVIDERS.values(), ids=PROVIDERS)
def test_an_answer_without_headers_says_nothing(provider: Provider) -> None:
    assert observed(provider, {}) == ()


def test_the_search_of_events_has_a_limit_of_its_own() -> None:
    headers = {"X-RateLimit-Remaining": "7", "X-RateLimit-Reset": IN_A_MINUTE}
    assert observed(PROVIDERS["mailgun"], headers, "GET") == (of("events", 7, MINUTE),)


@pytest.mark.parametrize(
    ("remaining", "reset"),
    [
        ("1", "-1"),
        ("1", IN_A_MINUTE),  # an instant where seconds are meant: decades
        ("1", "soon"),
        ("1", "nan"),
        ("1", None),
        ("-1", "60"),
        ("1.5", "60"),
        ("many", "60"),
        ("\N{SUPERSCRIPT TWO}", "60"),
        ("", "60"),
    ],
)
def test_what_cannot_be_meant_is_left_out_and_logged(
    remaining: str, reset: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    headers = [(b"ratelimit-remaining", remaining.encode())]
    if reset is not None:
        headers.append((b"ratelimit-reset", reset.encode()))
    request = httpx.Request("POST", "https://api.example/")
    response = httpx.Response(200, headers=headers, request=request)
    with caplog.at_level("INFO", logger="marketing_pipeline"):
        assert PROVIDERS["resend"].observed(response, NOW) == ()
    assert [record.message for record in caplog.records] == ["limit_ignored"]


@given(
    remaining=st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0"))
    | st.integers().map(str),
    reset=st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0"))
    | st.floats().map(str),
    name=st.sampled_from(sorted(PROVIDERS)),
)
def test_no_header_raises_or_gives_what_the_gate_cannot_count(
    remaining: str, reset: str, name: str
) -> None:
    names = ("x-hubspot-ratelimit-remaining", "x-hubspot-ratelimit-daily-remaining")
    resets = ("x-hubspot-ratelimit-interval-milliseconds", "ratelimit-reset", "x-ratelimit-reset")
    headers = [
        *((one.encode(), remaining.encode("latin-1")) for one in names),
        (b"ratelimit-remaining", remaining.encode("latin-1")),
        (b"x-ratelimit-remaining", remaining.encode("latin-1")),
        *((one.encode(), reset.encode("latin-1")) for one in resets),
    ]
    request = httpx.Request("POST", "https://api.example/")
    response = httpx.Response(200, headers=headers, request=request)
    for one in PROVIDERS[name].observed(response, NOW):
        assert 0 <= one.remaining <= MOST
        assert timedelta(seconds=1) <= one.resets_in <= LONGEST
