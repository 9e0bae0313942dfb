"""How long a provider asks us to wait."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketing_pipeline.providers import retry_after

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30", timedelta(seconds=30)),
        (" 1.5 ", timedelta(seconds=1.5)),
        ("0", timedelta(0)),
        ("-3", timedelta(seconds=-3)),
        (None, None),
        ("", None),
        ("soon", None),
        ("nan", None),
        ("inf", None),
        ("1e300", None),
    ],
)
def test_seconds_are_counted_from_now(text: str | None, expected: timedelta | None) -> None:
    assert retry_after.seconds(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Sun, 01 Mar 2026 12:01:00 GMT", MINUTE),
        ("Sun, 01 Mar 2026 12:01:00 UTC", MINUTE),
        ("Sun, 01 Mar 2026 12:01:00 -0000", MINUTE),
        ("Sun, 01 Mar 2026 13:01:00 +0100", MINUTE),
        ("Sun, 01 Mar 2026 11:59:00 GMT", -MINUTE),
        ("Sun, 99 Mar 2026 12:01:00 GMT", None),
        ("tomorrow", None),
        (None, None),
    ],
)
def test_a_date_is_an_instant(text: str | None, expected: timedelta | None) -> None:
    assert retry_after.http_date(text, NOW) == expected


def test_the_same_number_means_another_wait_in_each_unit() -> None:
    text = str(NOW.timestamp() + 60)
    assert retry_after.epoch(text, NOW) == MINUTE
    assert retry_after.milliseconds("60000") == retry_after.seconds("60") == MINUTE
    assert retry_after.seconds(text) != MINUTE  # read in the wrong unit: decades


@pytest.mark.parametrize("text", ["60", "Sun, 01 Mar 2026 12:01:00 GMT"])
def test_a_retry_after_is_seconds_or_a_date(text: str) -> None:
    assert retry_after.retry_after(text, NOW) == MINUTE


@pytest.mark.parametrize(
    ("waits", "expected"),
    [
        ([None, timedelta(seconds=5)], 5),
        ([timedelta(seconds=3), timedelta(seconds=5)], 3),
        ([timedelta(seconds=-1), timedelta(seconds=5)], 5),  # over: not a hint
        ([timedelta(days=900)], 10),  # absurd
        ([timedelta(0)], 1),  # never a busy loop
        ([], 10),
    ],
)
def test_only_a_wait_that_can_be_meant_is_believed(
    waits: list[timedelta | None], expected: int
) -> None:
    wait = retry_after.first(waits, default=timedelta(seconds=10), longest=timedelta(hours=1))
    assert wait == timedelta(seconds=expected)


@given(st.one_of(st.none(), st.text(), st.floats().map(str), st.integers().map(str)))
def test_no_text_breaks_it_or_makes_an_endless_wait(text: str | None) -> None:
    waits = [
        retry_after.retry_after(text, NOW),
        retry_after.epoch(text, NOW),
        retry_after.milliseconds(text),
    ]
    wait = retry_after.first(waits, default=MINUTE, longest=timedelta(hours=1))
    assert retry_after.SHORTEST <= wait <= timedelta(hours=1)


@given(
    st.from_regex(
        r"[A-Z][a-z]{2}, \d{1,12} (Jan|Feb|Dec) \d{1,12} \d{1,3}:\d{2}:\d{2} ([+-]\d{4,8}|GMT)",
        fullmatch=True,
    )
)
def test_no_date_breaks_it(text: str) -> None:
    wait = retry_after.http_date(text, NOW)
    assert wait is None or isinstance(wait, timedelta)
