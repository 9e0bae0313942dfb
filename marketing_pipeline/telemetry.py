"""The names of what is logged, one line of JSON each, without anybody's address."""

import json
import logging
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal, TextIO

LogEvent = Literal[
    "delivery_started",  # a delivery run is awake: run
    "delivery_stopped",  # it went to sleep or was cancelled: run, planned, calls
    "planning_failed",  # a plan raised; its event is FAILED, others go on: event_id or reason
    "effect_unknown",  # only a person can say now: effect, of (its event)
    "provider_paused",  # it asked us to wait: provider, until, reason
    "provider_blocked",  # it refuses us as a whole; a person is needed: provider, until, reason
    "breaker_opened",  # too many unreached or ambiguous calls in a row: provider, until
    "breaker_closed",  # a probe got through: provider
    "limit_ignored",  # its headers tell of a limit that cannot be meant: provider, window, reason
    "database_lost",  # it cannot be asked; work waits and is taken up by itself: reason, sqlstate
    "database_restored",  # ingest can ask it again
    "gate_lost",  # the shared gate cannot be asked, so nothing is called: reason
    "gate_restored",  # it can be asked again, its state rebuilt
    "event_recorded",  # ingest took a fact: event_id, source
    "event_repeated",  # the same key came again and changed nothing: event_id, source
    "event_rejected",  # ingest refused: source, reason; event_id where the key is another's
    "event_not_storable",  # PostgreSQL refuses what ingest took for an event: event_id, sqlstate
    "feedback_recorded",  # a provider told what became of an effect: effect_id, provider, kind
    "feedback_ignored",  # it told of something that is not kept: provider, type
    "feedback_refused",  # a webhook was not taken; a person may be needed: provider, reason
    "restore_detected",  # the log was restored or copied; nothing is sent from it: reason
    "schedules_lost",  # the operator's file cannot be read, so no campaign has a schedule: reason
]
"""Every name a log line may have, and the fields it carries."""

_LOGGER = logging.getLogger("marketing_pipeline")
# An address stands free or in a URL (%40). It is found by its shape and not by its validity: what
# is cut too much costs a word, what is cut too little is somebody's address in a log.
_ADDRESS = re.compile(
    r"""(?<![^\s<>"'`(),;:=&?/\\\[\]{}@%])"""
    r"""[^\s<>"'`(),;:=&?/\\\[\]{}@%]++(?:@|%40)[^\s<>"'`(),;:=&?/\\\[\]{}@%]++"""
)


def redact(text: str) -> str:
    """The text with every e-mail address replaced; takes time linear in its length."""
    return _ADDRESS.sub("[address]", text)


def emit(event: LogEvent, *, level: int = logging.INFO, **fields: object) -> None:
    """Log what has happened: after it was settled, never before."""
    _LOGGER.log(level, event, extra={"fields": fields})


def configure_logging(stream: TextIO | None = None, level: int = logging.INFO) -> None:
    """Send this package's log to the stream (stderr), a JSON object a line; safe to call again."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_Json())
    _LOGGER.handlers[:] = [handler]
    _LOGGER.setLevel(level)
    _LOGGER.propagate = False  # else a host's own root handler prints every line again


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, object] = {"at": at, "level": record.levelname.lower()}
        line["event"] = record.getMessage()
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(_clean(line), ensure_ascii=False)


def _clean(value: object) -> object:
    """A JSON value in which no string holds an address."""
    match value:
        case None | bool() | int() | float():
            return value
        case Mapping():
            return {redact(str(key)): _clean(item) for key, item in value.items()}
        case Sequence() if not isinstance(value, str | bytes):
            return [_clean(item) for item in value]
        case _:
            return redact(str(value))
