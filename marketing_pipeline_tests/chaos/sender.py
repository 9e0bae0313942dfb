"""A client of ingest that does not give up: each event again with its key, until it is taken."""

import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import httpx

from marketing_pipeline_tests.chaos.installation import SOURCE, Installation

AT_ONCE = 4  # connections
RATE = 12.0  # events a second, of all together
AUDIENCE = 10  # of a campaign: the newest leads
TAKEN = (200, 201)  # it had been taken before, or is now


def bodies() -> Iterator[tuple[int, dict[str, Any]]]:
    """Events and how many effects each comes to; every campaign has enough leads before it."""
    for number in count():
        if number % 40 == 39:
            yield AUDIENCE, _body("CAMPAIGN_TRIGGER", {"campaign": "news", "issue": number})
        elif number % 2:
            yield 1, _body("CONTENT_PUBLISH", {"text": f"news {number}"})
        else:
            payload = {"email": f"p{number}@example.com", "first_name": f"P{number}"}
            yield 2, _body("LEAD_CAPTURE", payload)


def _body(type: str, payload: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": type,
        "source": SOURCE,
        "idempotencyKey": str(uuid.uuid4()),
        "payload": dict(payload),
    }


@dataclass(slots=True)
class Sender:
    """Posts leads, posts and campaigns until told to stop."""

    where: Installation
    effects: int = 0  # that the acknowledged events come to
    acknowledged: dict[str, str] = field(default_factory=dict)  # key -> the event's id
    refused: list[str] = field(default_factory=list)  # answers that no repeat would change
    again: int = 0  # posts that were repeats
    _bodies: Iterator[tuple[int, dict[str, Any]]] = field(default_factory=bodies)
    _turn: threading.Lock = field(default_factory=threading.Lock)
    _ends: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def begin(self) -> None:
        for number in range(AT_ONCE):
            thread = threading.Thread(target=self._post_all, name=f"sender {number}")
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """Take on nothing new, and stay until what was begun is acknowledged."""
        self._ends.set()
        for thread in self._threads:
            thread.join()

    def _post_all(self) -> None:
        headers = {"Authorization": f"Bearer {self.where.key}"}
        with httpx.Client(base_url=self.where.ingest, headers=headers, timeout=10) as client:
            while not self._ends.is_set():
                with self._turn:
                    effects, body = next(self._bodies)
                self._post(client, effects, body)
                time.sleep(AT_ONCE / RATE)

    def _post(self, client: httpx.Client, effects: int, body: Mapping[str, Any]) -> None:
        while (answer := self._answer(client, body)) is None:
            self.again += 1
            time.sleep(0.2)
        with self._turn:
            if answer.status_code in TAKEN:
                self.effects += effects
                self.acknowledged[body["idempotencyKey"]] = answer.json()["eventId"]
            else:
                self.refused.append(f"{answer.status_code} {answer.text}")

    def _answer(self, client: httpx.Client, body: Mapping[str, Any]) -> httpx.Response | None:
        """None where it has to be asked again: nobody there, no answer, or "not now"."""
        try:
            answer = client.post("/events", json=body)
        except httpx.TransportError:
            return None
        return None if answer.status_code == 503 else answer
