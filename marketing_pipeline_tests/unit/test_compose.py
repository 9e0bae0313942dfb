"""What must hold of docker-compose.yml, and what each check refuses."""

import copy
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from marketing_pipeline_tests.pipeline import CHECKOUT

Document = dict[str, Any]
SERVICES = {"postgres", "redis", "migrate", "ingest", "code", "webserver", "daemon"}
SHARED = {"MARKETING_DATABASE_URL", "DAGSTER_POSTGRES_URL", "MARKETING_REDIS_URL"}
OURS = SERVICES - {"postgres", "redis"}
PROVIDERS = {"HUBSPOT_TOKEN", "RESEND_API_KEY", "MAILGUN_API_KEY"}
NOTICES = {"RESEND_WEBHOOK_SECRET", "MAILGUN_SIGNING_KEY"}
SECRETS = {"code": PROVIDERS, "ingest": NOTICES}  # by who needs them
OPERATORS = "./campaigns:/app/campaigns:ro"  # else they would read the file that is in the image


@pytest.fixture
def document() -> Document:
    found: Document = yaml.safe_load((CHECKOUT / "docker-compose.yml").read_text())
    return found


def faults(document: Document) -> list[str]:
    """Everything that is wrong with it."""
    services = document["services"]
    found = [f"{name} is missing" for name in sorted(SERVICES - set(services))]
    for name, service in services.items():
        found += [f"{name}: {fault}" for fault in service_faults(name, service)]
    if "host: code" not in document["configs"]["workspace"]["content"]:
        found.append("the workspace does not lead to the code server")
    return found


def service_faults(name: str, service: Document) -> Iterator[str]:
    yield from exposure(service)
    if name in OURS:
        yield from composition(name, service)
    if not re.fullmatch(r"[a-z-]+:\d+\.\d+(\.\d+)?", service["image"]):
        yield f"image {service['image']} is not pinned"
    if "mem_limit" not in service:
        yield "has no memory limit"
    if name != "migrate" and "healthcheck" not in service:
        yield "has no healthcheck"


def exposure(service: Document) -> Iterator[str]:
    """What others could see or use."""
    for port in service.get("ports", ()):
        if not str(port).startswith("127.0.0.1:"):
            yield f"port {port} is open to the network"
    for key, value in service.get("environment", {}).items():
        written = re.sub(r"\$\{\w+:[^}]*\}", "", value)
        if written and re.search("PASSWORD|TOKEN|KEY|SECRET", key):
            yield f"{key} holds a value"
        if re.search(r"://[^/@:]*:[^/@]+@", written):
            yield f"{key} holds a password"


def composition(name: str, service: Document) -> Iterator[str]:
    """Whether the parts of the app find each other, and know no more than they need."""
    known = set(service["environment"])
    if not known >= SHARED:
        yield "does not use the same servers"
    needed = SECRETS.get(name, set())
    if known & (PROVIDERS | NOTICES) - needed:
        yield "has secrets that it does not need"
    if not known >= needed:
        yield "lacks secrets that it needs"
    if name in SECRETS and OPERATORS not in service["volumes"]:
        yield "does not read the operator's file"
    if name in {"webserver", "daemon"}:
        if "-w" not in service["command"] or "-m" in service["command"]:
            yield "imports the code itself"
        if service["depends_on"].get("code") != {"condition": "service_healthy"}:
            yield "does not wait for the code server"


def test_the_compose_file_is_in_order(document: Document) -> None:
    assert faults(document) == []


def test_ingest_has_half_a_gigabyte_and_is_asked_whether_it_is_ready(document: Document) -> None:
    ingest = document["services"]["ingest"]
    assert ingest["mem_limit"] == "512m"
    assert "/readyz" in ingest["healthcheck"]["test"][-1]


def test_the_secrets_of_webhooks_have_the_names_that_the_documentation_gives_them() -> None:
    told = (CHECKOUT / "docs" / "guarantees.md").read_text()
    assert set(re.findall(r"`webhook_\w+: \{env: (\w+)\}`", told)) == NOTICES


def test_dagsters_files_are_on_one_volume(document: Document) -> None:
    for name in ("code", "webserver", "daemon"):
        assert "state:/var/lib/marketing" in document["services"][name]["volumes"]
    assert "MARKETING_STATE=/var/lib/marketing" in (CHECKOUT / "Dockerfile").read_text()


@pytest.mark.parametrize("name", sorted(OURS))
def test_each_part_of_the_app_waits_for_the_database(document: Document, name: str) -> None:
    waits = document["services"][name]["depends_on"]
    assert waits["postgres"] == {"condition": "service_healthy"}
    assert name == "migrate" or waits["migrate"] == {"condition": "service_completed_successfully"}


BAD: list[tuple[str, Callable[[Document], object]]] = [
    ("daemon is missing", lambda s: s.pop("daemon")),
    (
        "image postgres:latest is not pinned",
        lambda s: s["postgres"].update(image="postgres:latest"),
    ),
    ("image redis is not pinned", lambda s: s["redis"].update(image="redis")),
    ("open to the network", lambda s: s["webserver"].update(ports=["3000:3000"])),
    ("open to the network", lambda s: s["ingest"].update(ports=["0.0.0.0:8025:8025"])),
    (
        "POSTGRES_PASSWORD holds",
        lambda s: s["postgres"]["environment"].update(POSTGRES_PASSWORD="x"),
    ),
    ("HUBSPOT_TOKEN holds", lambda s: s["code"]["environment"].update(HUBSPOT_TOKEN="pat-1")),
    (
        "MARKETING_DATABASE_URL holds a password",
        lambda s: s["ingest"]["environment"].update(MARKETING_DATABASE_URL="postgresql://a:b@c/d"),
    ),
    ("has no memory limit", lambda s: s["ingest"].pop("mem_limit")),
    ("has no healthcheck", lambda s: s["webserver"].pop("healthcheck")),
    ("the same servers", lambda s: s["daemon"]["environment"].pop("DAGSTER_POSTGRES_URL")),
    ("secrets that", lambda s: s["webserver"]["environment"].update(HUBSPOT_TOKEN="${X:-}")),
    ("secrets that", lambda s: s["ingest"]["environment"].update(HUBSPOT_TOKEN="${X:-}")),
    ("secrets that", lambda s: s["code"]["environment"].update(MAILGUN_SIGNING_KEY="${X:-}")),
    ("code: lacks secrets", lambda s: s["code"]["environment"].pop("RESEND_API_KEY")),
    ("ingest: lacks secrets", lambda s: s["ingest"]["environment"].pop("RESEND_WEBHOOK_SECRET")),
    ("code: does not read", lambda s: s["code"].update(volumes=["state:/var/lib/marketing"])),
    ("ingest: does not read", lambda s: s["ingest"].update(volumes=["state:/var/lib/marketing"])),
    (
        "imports the code",
        lambda s: s["daemon"].update(command=["dagster-daemon", "run", "-m", "x"]),
    ),
    ("does not wait", lambda s: s["webserver"]["depends_on"].pop("code")),
]


@pytest.mark.parametrize(("fault", "spoil"), BAD, ids=[fault for fault, _ in BAD])
def test_a_spoilt_compose_file_is_refused(
    document: Document, fault: str, spoil: Callable[[Document], object]
) -> None:
    spoilt = copy.deepcopy(document)  # anchors give services the same dictionaries
    spoilt["services"] = {name: copy.deepcopy(one) for name, one in document["services"].items()}
    spoil(spoilt["services"])
    assert any(fault in one for one in faults(spoilt))
