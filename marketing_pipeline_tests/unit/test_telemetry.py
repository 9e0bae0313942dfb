"""Log lines: one JSON object each, and nobody's address in any of them."""

import io
import json
import logging
import time
from collections.abc import Iterator
from uuid import UUID

import pytest

from marketing_pipeline import telemetry


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What is logged while a test runs."""
    logger = logging.getLogger("marketing_pipeline")
    before = (logger.handlers[:], logger.level, logger.propagate)
    stream = io.StringIO()
    telemetry.configure_logging(stream)
    yield stream
    logger.handlers[:], logger.level, logger.propagate = before


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("to anna@example.com now", "to [address] now"),
        ("<anna+x@mail.example.com>,bob@b.de", "<[address]>,[address]"),
        ('{"to":["anna@example.com"]}', '{"to":["[address]"]}'),
        ("/u?e=anna%40example.com&x=1", "/u?e=[address]&x=1"),
        ("mailto:anna@example.com", "mailto:[address]"),
        ("Änne.Müller@käse.example", "[address]"),
        ("o'neil@example.com", "o'[address]"),
        ("anna@localhost", "[address]"),
        ("nobody here, 5 @ 3", "nobody here, 5 @ 3"),
        ("", ""),
    ],
)
def test_every_address_is_replaced(text: str, expected: str) -> None:
    assert telemetry.redact(text) == expected


def test_a_long_text_without_an_address_takes_no_longer_than_it_is_long() -> None:
    started = time.perf_counter()
    telemetry.redact("x" * 1_000_000)
    assert time.perf_counter() - started < 1


def test_a_line_is_json_without_addresses_at_any_depth(lines: io.StringIO) -> None:
    telemetry.emit(
        "effect_unknown",
        effect=UUID(int=1),
        reason="550 anna@example.com unknown",
        more={"anna@example.com": ["anna@example.com", 1, None, True]},
    )
    line = json.loads(lines.getvalue())
    assert line.pop("at").endswith("+00:00")
    assert line == {
        "level": "info",
        "event": "effect_unknown",
        "effect": "00000000-0000-0000-0000-000000000001",
        "reason": "550 [address] unknown",
        "more": {"[address]": ["[address]", 1, None, True]},
    }


def test_a_traceback_is_redacted_too(lines: io.StringIO) -> None:
    try:
        raise ValueError("anna@example.com")
    except ValueError:
        logging.getLogger("marketing_pipeline.delivery").exception("it broke")
    line = json.loads(lines.getvalue())
    assert "ValueError: [address]" in line["exception"]


def test_configuring_twice_does_not_log_twice(lines: io.StringIO) -> None:
    telemetry.configure_logging(lines)
    telemetry.emit("gate_restored")
    assert len(lines.getvalue().splitlines()) == 1
