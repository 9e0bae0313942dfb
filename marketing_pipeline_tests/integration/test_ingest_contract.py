"""The service against its own OpenAPI document, with data that nobody thought of."""

import json
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.core.failures import FailureGroup

from marketing_pipeline import embedded
from marketing_pipeline.ingest import app
from marketing_pipeline_tests import ingest_service
from marketing_pipeline_tests.ingest_service import Service


def narrowed() -> dict[str, Any]:
    """The document, with the three things said that JSON Schema cannot say."""
    document: dict[str, Any] = json.loads(app.document())
    schemas = document["components"]["schemas"]
    schemas["Source"] = {"const": "web"}  # the key's own source
    soon = datetime.now(UTC) + timedelta(days=1)
    schemas["ScheduledAt"] = {"enum": [None, soon.isoformat()]}  # within the partitions
    post = document["paths"]["/events"]["post"]  # the key is required in one of two places
    post["parameters"] = [p for p in post["parameters"] if "IdempotencyKey" not in p["$ref"]]
    for kind in ("LeadCapture", "ContentPublish", "CampaignTrigger"):
        schemas[kind]["required"].append("idempotencyKey")
        del schemas[kind]["properties"]["idempotency_key"]
    return document


schema = schemathesis.openapi.from_dict(narrowed())


@pytest.fixture(scope="module")
def service(servers: embedded.Servers, template: str) -> Iterator[Service]:
    with (
        ingest_service.fresh_database(servers.database_url, template) as database,
        ingest_service.in_thread(database, ingest_service.new_key(database)) as service,
    ):
        yield service


@schema.parametrize()
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_answer_is_as_the_document_says(
    case: schemathesis.Case[Any], service: Service
) -> None:
    case.call_and_validate(
        base_url=str(service.client.base_url),
        headers={"Authorization": f"Bearer {service.key}"},
    )


def test_the_document_is_served_as_it_is_written(service: Service) -> None:
    assert service.client.get("/openapi.json").content == app.document()


def _undocumented(document: dict[str, Any]) -> None:
    del document["paths"]["/events"]["post"]["responses"]["201"]


def _another_type(document: dict[str, Any]) -> None:
    document["components"]["schemas"]["Accepted"]["properties"]["eventId"] = {"type": "integer"}


def _another_header(document: dict[str, Any]) -> None:
    answer = document["paths"]["/events"]["post"]["responses"]["201"]
    answer["headers"]["X-Event-Status"]["schema"] = {"const": "WRONG"}


def _nothing(_: dict[str, Any]) -> None:
    """The document as it is."""


@pytest.mark.parametrize("lie", [_undocumented, _another_type, _another_header, _nothing])
def test_a_document_that_lies_is_found_out(
    service: Service, lie: Callable[[dict[str, Any]], None]
) -> None:
    """Known bad, and one known good."""
    document = narrowed()
    lie(document)
    operation = schemathesis.openapi.from_dict(document)["/events"]["POST"]
    case = operation.Case(body=ingest_service.lead(), media_type="application/json")
    headers = {"Authorization": f"Bearer {service.key}"}
    found = nullcontext() if lie is _nothing else pytest.raises(FailureGroup)
    with found:
        case.call_and_validate(base_url=str(service.client.base_url), headers=headers)
