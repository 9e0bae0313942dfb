"""What a process says to the supervisor and what it answers: one JSON line each way."""

import json
import socket
from collections.abc import Mapping
from contextlib import closing
from datetime import timedelta
from typing import Any

from marketing_pipeline.embedded.failure import EmbeddedError, from_os
from marketing_pipeline.embedded.layout import Layout

# Longer than ending an earlier server and recovering from a crash can take together.
ANSWER_LIMIT = timedelta(seconds=180)
_QUESTION_LIMIT = 2.0  # seconds; a process that connects and says nothing must not block the rest
BACKLOG = 512  # starters that may wait while PostgreSQL makes its data folder


def ask(where: Layout, **question: Any) -> Mapping[str, Any] | None:
    """Ask the supervisor; None if there is none.

    Raises:
        EmbeddedError: it answers with an error, not at all, or not in time.
    """
    with closing(socket.socket(socket.AF_UNIX)) as link:
        link.settimeout(ANSWER_LIMIT.total_seconds())
        try:
            link.connect(str(where.control))
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        except OSError as error:
            raise from_os(f"{where.control} cannot be reached", error) from error
        try:
            link.sendall(json.dumps(question).encode() + b"\n")
            answer = _line(link)
        except ConnectionError:
            answer = b""
        except TimeoutError as error:
            raise EmbeddedError(
                f"the supervisor of {where.root} has not answered within "
                f"{ANSWER_LIMIT.total_seconds():.0f} s: see {where.logs}"
            ) from error
    if not answer:
        return None  # it was just leaving, or it failed; who asked to start looks further
    told: Mapping[str, Any] = json.loads(answer)
    if "error" in told:
        raise EmbeddedError(str(told["error"]))
    return told


def hear(link: socket.socket) -> Mapping[str, Any]:
    """The question that a process asks, on the supervisor's side."""
    link.settimeout(_QUESTION_LIMIT)
    question: Mapping[str, Any] = json.loads(_line(link) or b"{}")
    return question


def answer(link: socket.socket, **told: Any) -> None:
    link.sendall(json.dumps(told).encode() + b"\n")


def _line(link: socket.socket) -> bytes:
    with link.makefile("rb") as file:
        return file.readline()
