"""What the demo sends: 2,000 events over HTTP, a tenth of them again."""

import asyncio
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from rich.progress import Progress

SOURCE = "demo"
LEADS, POSTS, CAMPAIGNS = 1200, 780, 20
AT_ONCE = 32  # connections that post
_NAMES = ("Ada", "Grace", "Edsger", "Barbara", "Donald", "Tony", "Leslie", "Frances")

Body = dict[str, Any]


@dataclass(slots=True)
class Answers:
    """What ingest answered."""

    statuses: Counter[str] = field(default_factory=Counter)

    @property
    def posted(self) -> int:
        return self.statuses.total()


async def post(ingest: str, key: str, run_id: str, progress: Progress) -> Answers:
    """Send everything to ingest; campaigns last, for their audience is who came before."""
    answers, headers = Answers(), {"Authorization": f"Bearer {key}"}
    leads, posts, campaigns = events(run_id)
    async with aiohttp.ClientSession(
        ingest, headers=headers, connector=aiohttp.TCPConnector(limit=AT_ONCE)
    ) as session:
        for name, batch in (
            ("leads and posts sent", repeated(leads + posts)),
            ("campaigns sent", repeated(campaigns)),
        ):
            task = progress.add_task(name, total=len(batch))
            waiting = asyncio.Semaphore(AT_ONCE)

            async def send(
                body: Body, task: Any = task, waiting: asyncio.Semaphore = waiting
            ) -> None:
                async with waiting, session.post("/events", json=body) as answer:
                    answers.statuses[answer.headers.get("X-Event-Status", str(answer.status))] += 1
                    progress.advance(task)

            await asyncio.gather(*(send(body) for body in batch))
    return answers


def events(run_id: str) -> tuple[list[Body], list[Body], list[Body]]:
    """The leads, posts and campaigns of a run; another run's have other keys and addresses."""
    leads = [
        {
            "email": f"lead{n}.{run_id}@example.com",
            "first_name": _NAMES[n % len(_NAMES)],
            "company": f"Company {n % 97}",
        }
        for n in range(LEADS)
    ]
    posts = [{"text": f"News number {n} of {run_id}"} for n in range(POSTS)]
    campaigns = [{"campaign": "news", "issue": n} for n in range(CAMPAIGNS)]
    return (
        _bodies(run_id, "LEAD_CAPTURE", leads),
        _bodies(run_id, "CONTENT_PUBLISH", posts),
        _bodies(run_id, "CAMPAIGN_TRIGGER", campaigns),
    )


def repeated(events: Sequence[Body]) -> list[Body]:
    """Every event; a tenth again: right beside the first, or later, or with another payload."""
    sent: list[Body] = []
    later: list[Body] = []
    for number, event in enumerate(events):
        sent.append(event)
        match number % 30:
            case 10:
                sent.append(event)  # twice at once
            case 20:
                later.append(event)
            case 29:
                later.append(event | {"payload": event["payload"] | {"changed": True}})
    return sent + later


def _bodies(run_id: str, type: str, payloads: Sequence[Body]) -> list[Body]:
    return [
        {
            "type": type,
            "source": SOURCE,
            "idempotencyKey": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{run_id}/{type}/{number}")),
            "payload": payload,
        }
        for number, payload in enumerate(payloads)
    ]
