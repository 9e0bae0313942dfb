"""What docker-compose.yml starts, started as it says: its commands, its environment, its checks."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx
import psycopg
import pytest
import yaml

from marketing_pipeline import embedded
from marketing_pipeline_tests.patience import until
from marketing_pipeline_tests.pipeline import CHECKOUT, Sandbox

BIN = Path(sys.executable).parent
PATIENCE = 90.0  # seconds
STATE, HOME, WORKSPACE = "/var/lib/marketing", "/app", "/etc/marketing/workspace.yaml"


@dataclass(frozen=True)
class Machine:
    """This machine in the place of the containers: what their names and paths are here."""

    document: Mapping[str, Any]
    folder: Path
    ports: Mapping[str, str]  # in the file -> here
    servers: Mapping[str, str]  # environment variable -> URL
    sandbox: Sandbox

    def word(self, word: str) -> str:
        word = word.replace("0.0.0.0", "127.0.0.1").replace(WORKSPACE, str(self.folder / "w.yaml"))  # noqa: S104
        return re.sub(r"\b(8025|4000|3000)\b", lambda port: self.ports[port[0]], word)

    def command(self, words: Sequence[str]) -> list[str]:
        return [str(BIN / words[0]), *(self.word(word) for word in words[1:])]

    def env(self, service: str) -> dict[str, str]:
        """The image's, then the service's; the sandbox for the one that is to call providers."""
        env = {"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": os.environ.get("HOME", "/")}
        for name, value in image_environment().items():
            at_home = value.replace(HOME, str(self.folder / "app"))
            env[name] = at_home.replace(STATE, str(self.folder / "state"))
        for name in self.document["services"][service]["environment"]:
            env[name] = self.servers.get(name, "any")
        if "HUBSPOT_TOKEN" in env:
            env["MARKETING_SANDBOX_URL"] = self.sandbox.url
        return env

    @contextmanager
    def started(self, service: str) -> Iterator[None]:
        with (self.folder / f"{service}.log").open("wb") as log:
            process = subprocess.Popen(
                self.command(self.document["services"][service]["command"]),
                env=self.env(service),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder / "app",
                start_new_session=True,
            )
        try:
            yield
            assert process.poll() is None, self.said(service)
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def said(self, service: str) -> str:
        return f"{service}: " + (self.folder / f"{service}.log").read_text()[-3000:]

    def is_healthy(self, service: str) -> bool:
        """By the healthcheck of the file."""
        kind, *words = self.document["services"][service]["healthcheck"]["test"]
        assert kind == "CMD"
        return not self.run(service, words).returncode

    def run(self, service: str, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(words),
            env=self.env(service),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            cwd=self.folder / "app",
        )

    def await_health(self, service: str) -> None:
        until(
            lambda: self.is_healthy(service),
            lambda: self.said(service),
            seconds=PATIENCE,
            every=0.5,
        )


def image_environment() -> dict[str, str]:
    text = (CHECKOUT / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.startswith("ENV ")]
    return dict(pair.split("=", 1) for line in lines for pair in line.split()[1:])


@pytest.fixture
def machine(tmp_path: Path, servers: embedded.Servers, sandbox: Sandbox) -> Iterator[Machine]:
    document = yaml.safe_load((CHECKOUT / "docker-compose.yml").read_text())
    with ExitStack() as stack:
        ports = dict(zip(("8025", "4000", "3000"), free_ports(3), strict=True))
        log, dagster = (stack.enter_context(empty_database(servers)) for _ in range(2))
        place = Machine(
            document=document,
            folder=tmp_path,
            ports=ports,
            servers={
                "MARKETING_DATABASE_URL": log,
                "DAGSTER_POSTGRES_URL": dagster,
                "MARKETING_REDIS_URL": servers.redis_url,
            },
            sandbox=sandbox,
        )
        (tmp_path / "state").mkdir()
        copy_home(tmp_path / "app")
        content = document["configs"]["workspace"]["content"].replace(
            "host: code", "host: 127.0.0.1"
        )
        (tmp_path / "w.yaml").write_text(place.word(content))
        yield place


def free_ports(count: int) -> list[str]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [str(probe.getsockname()[1]) for probe in probes]


@contextmanager
def empty_database(servers: embedded.Servers) -> Iterator[str]:
    name = f"compose_{uuid.uuid4().hex}"
    with psycopg.connect(servers.database_url, autocommit=True) as admin:
        admin.execute(f'create database "{name}"')
        yield urlunsplit(urlsplit(servers.database_url)._replace(path=f"/{name}"))
        admin.execute(f'drop database "{name}" with (force)')


def copy_home(app: Path) -> None:
    """What the image has; providers under names of their own, for the gate is shared here."""
    app.mkdir()
    for file in ("dagster.yaml", "workspace.yaml"):
        shutil.copy(CHECKOUT / file, app)
    shutil.copytree(CHECKOUT / "campaigns", app / "campaigns")
    pipeline, suffix = app / "campaigns" / "pipeline.yaml", uuid.uuid4().hex[:8]
    text = pipeline.read_text()
    for name in ("hubspot", "resend", "mailgun", "site"):
        text = re.sub(rf"^  {name}:", f"  {name}_{suffix}:", text, flags=re.MULTILINE)
        text = re.sub(rf"provider: {name}\b", f"provider: {name}_{suffix}", text)
    plain = "    adapter: mailgun\n"
    assert plain in text
    hooked = f"{plain}    webhook_signing_key: {{env: MAILGUN_SIGNING_KEY}}\n"
    pipeline.write_text(text.replace(plain, hooked))


def locations(machine: Machine) -> dict[str, str]:
    query = "{workspaceOrError {... on Workspace {locationEntries {name loadStatus}}}}"
    answer = httpx.post(
        f"http://127.0.0.1:{machine.ports['3000']}/graphql", json={"query": query}, timeout=10
    ).raise_for_status()
    entries = answer.json()["data"]["workspaceOrError"]["locationEntries"]
    return {entry["name"]: entry["loadStatus"] for entry in entries}


def post_lead(machine: Machine, key: str) -> httpx.Response:
    return httpx.post(
        f"http://127.0.0.1:{machine.ports['8025']}/events",
        headers={"Authorization": f"Bearer {key}"},
        json={
            "type": "LEAD_CAPTURE",
            "source": "site",
            "idempotencyKey": str(uuid.uuid4()),
            "payload": {"email": "ada@example.com", "first_name": "Ada"},
        },
    )


def post_notice(machine: Machine) -> httpx.Response:
    """A notice that nobody signed."""
    text = (machine.folder / "app" / "campaigns" / "pipeline.yaml").read_text()
    found = re.search(r"^  (mailgun_\w+):", text, re.MULTILINE)
    assert found is not None
    return httpx.post(f"http://127.0.0.1:{machine.ports['8025']}/webhooks/{found[1]}", json={})


def await_acts(machine: Machine, wanted: int) -> None:
    until(
        lambda: len(machine.sandbox.acts()) >= wanted,
        lambda: machine.said("daemon") + machine.said("code"),
        seconds=PATIENCE,
        every=0.25,
    )


def test_an_event_posted_to_the_services_of_the_compose_file_is_delivered(machine: Machine) -> None:
    before = {path.name for path in (machine.folder / "app").iterdir()}
    migrated = machine.run("migrate", machine.document["services"]["migrate"]["command"])
    assert migrated.returncode == 0, migrated.stderr
    assert not machine.is_healthy("ingest"), "known bad: nobody listens yet"
    with machine.started("ingest"), machine.started("code"):
        machine.await_health("ingest")
        machine.await_health("code")
        with machine.started("webserver"), machine.started("daemon"):
            key = machine.run("ingest", ["marketing-pipeline", "keys", "create", "site"])
            assert post_lead(machine, key.stdout.strip()).status_code == 201
            assert post_notice(machine).status_code == 401, "404 without file or secret"
            machine.await_health("webserver")
            assert locations(machine) == {"marketing_pipeline": "LOADED"}
            await_acts(machine, 2)  # the contact, the welcome mail
            machine.await_health("daemon")
    # Only what Dagster leaves out where it may not write: the image's home belongs to root.
    assert {path.name for path in (machine.folder / "app").iterdir()} - before <= {
        ".logs_queue",
        "logs",
    }
    assert list((machine.folder / "state" / "dagster" / "printed").rglob("*.err"))
    assert not (machine.folder / "state" / "run").exists(), "nothing embedded was started"
