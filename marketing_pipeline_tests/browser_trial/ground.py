"""An installation as a person starts it, with a week behind it, and what its log says."""

import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg

from marketing_pipeline import embedded
from marketing_pipeline.cli.processes import LOOPBACK, UI_PORT, free_port
from marketing_pipeline.embedded.layout import layout
from marketing_pipeline_tests.patience import until
from marketing_pipeline_tests.pipeline import CHECKOUT

BIN = Path(sys.executable).parent  # the console scripts beside the interpreter
DAYS = 7
PEOPLE = 6  # a day
PATIENCE = 120.0  # seconds; a cold Dagster on a busy small machine takes 20
SOURCE = "site"
CAMPAIGN = "news"
# A campaign for each minute, and a week that is not too old to be sent.
_CHANGES = {
    f"{CAMPAIGN}: {{audience: everybody, template: news": (
        ', schedule: {cron: "* * * * *", timezone: Europe/Berlin}'
    ),
    "{step: welcome, provider: resend, template: welcome": ", max_age: 30d",
    "{step: post, provider: site": ", max_age: 30d",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """A running installation."""

    ui: str
    database_url: str
    days: tuple[date, ...]  # oldest first

    def ask(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.database_url, autocommit=True) as conn:
            return conn.execute(query.encode(), values).fetchall()

    def number(self, query: str, *values: object) -> int:
        [[found]] = self.ask(query, *values)
        return int(found)

    @property
    def calls(self) -> int:
        return self.number("select count(*) from attempts")

    @property
    def delivered(self) -> bool:
        """All that was posted."""
        status = "select count(*) from marketing_events where source = %s and status = 'COMPLETED'"
        return self.number(status, SOURCE) == DAYS * PEOPLE * 2

    @property
    def triggers(self) -> int:
        """Occurrences of the campaign."""
        query = "select count(*) from marketing_events where payload ->> 'campaign' = %s"
        return self.number(query, CAMPAIGN)

    @property
    def mails(self) -> int:
        """Sent for these."""
        query = """select count(*) from effects e join marketing_events m on m.id = e.event_id
                   where m.payload ->> 'campaign' = %s and e.state = 'SENT'"""
        return self.number(query, CAMPAIGN)


@contextmanager
def ground(folder: Path) -> Iterator[Ground]:
    """`marketing-pipeline up --sandbox` in that folder, after a week of leads and posts."""
    _furnish(folder)
    port = free_port()
    env = {
        "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "HOME": os.environ.get("HOME", str(folder)),
        "DAGSTER_HOME": str(folder),
        "MARKETING_HOME": str(folder),
        "MARKETING_INGEST_PORT": str(port),
        **{name: "secret" for name in ("HUBSPOT_TOKEN", "RESEND_API_KEY", "MAILGUN_API_KEY")},
    }
    state = folder / ".marketing"
    with _up(folder, env):
        ingest = f"http://{LOOPBACK}:{port}"
        key = _run(folder, env, "keys", "create", SOURCE).strip()
        today = datetime.now(UTC)
        days = tuple((today - timedelta(days=back)).date() for back in reversed(range(DAYS)))
        _post(ingest, key, today)
        stage = Ground(
            ui=f"http://{LOOPBACK}:{UI_PORT}",
            database_url=layout(state).servers.database_url,
            days=days,
        )
        until(lambda: stage.delivered, "a week's events are not delivered", seconds=PATIENCE)
        yield stage
    embedded.stop(state, force=True)


def _furnish(folder: Path) -> None:
    for name in ("dagster.yaml", "workspace.yaml"):
        shutil.copy(CHECKOUT / name, folder)
    shutil.copytree(CHECKOUT / "campaigns", folder / "campaigns")
    file = folder / "campaigns" / "pipeline.yaml"
    text = file.read_text()
    for place, addition in _CHANGES.items():
        assert text.count(place) == 1, f"{place!r} is not in {file} any more: mend this trial"
        text = text.replace(place, place + addition)
    file.write_text(text)


@contextmanager
def _up(folder: Path, env: Mapping[str, str]) -> Iterator[None]:
    log = folder / "up.log"
    with (
        log.open("w") as output,
        subprocess.Popen(
            [BIN / "marketing-pipeline", "up", "--sandbox"],
            cwd=folder,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        ) as process,
    ):
        try:
            until(
                lambda: "Ctrl-C" in log.read_text() or process.poll() is not None,
                "nothing runs",
                seconds=PATIENCE,
            )
            assert process.poll() is None, log.read_text()
            yield
        finally:
            process.terminate()
            process.wait(PATIENCE)


def _run(folder: Path, env: Mapping[str, str], *command: str) -> str:
    done = subprocess.run(
        [BIN / "marketing-pipeline", *command],
        cwd=folder,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _post(ingest: str, key: str, today: datetime) -> None:
    """A lead and a post, some times a day."""
    events = [
        {
            "type": kind,
            "source": SOURCE,
            "payload": payload,
            "idempotencyKey": str(uuid.uuid4()),
            "scheduledAt": (today - timedelta(days=back, seconds=n)).isoformat(),
        }
        for back in range(DAYS)
        for n in range(PEOPLE)
        for kind, payload in (
            ("LEAD_CAPTURE", _lead(f"ada{back}.{n}@example.com", agreed=n > 0)),
            ("CONTENT_PUBLISH", {"title": "News", "url": f"https://example.com/{back}/{n}"}),
        )
    ]
    answer = httpx.post(
        f"{ingest}/events/batch", headers={"Authorization": f"Bearer {key}"}, json=events
    )
    refused = [one for one in answer.json()["results"] if not one.get("success")]
    assert not refused, refused


def _lead(address: str, *, agreed: bool) -> dict[str, Any]:
    return {"email": address, "first_name": "Ada", "consent": {"newsletter": agreed}}
