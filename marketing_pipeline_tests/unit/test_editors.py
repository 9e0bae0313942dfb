"""The JSON Schema that editors check the operator's file by."""

import copy
import json
from collections.abc import Mapping
from typing import Any

import pytest
from jsonschema import Draft7Validator

from marketing_pipeline.campaigns import document
from marketing_pipeline.cli import editors
from marketing_pipeline.domain.event import EventType
from marketing_pipeline.providers import registry
from marketing_pipeline_tests.pipeline import CHECKOUT

FOLDER = CHECKOUT / "campaigns"
LINE = "# yaml-language-server: $schema=pipeline.schema.json"


@pytest.fixture(scope="module")
def validator() -> Draft7Validator:
    return Draft7Validator(json.loads((FOLDER / "pipeline.schema.json").read_text()))


@pytest.fixture
def said() -> dict[str, Any]:
    """The shipped file, to be spoiled."""
    return copy.deepcopy(document.read(FOLDER / "pipeline.yaml").value)


def test_the_committed_schema_is_what_the_code_says() -> None:
    """If it is not: marketing-pipeline check --schema > campaigns/pipeline.schema.json."""
    committed = (FOLDER / "pipeline.schema.json").read_text()
    assert committed == json.dumps(editors.schema(), indent=2) + "\n"


def test_it_is_a_schema(validator: Draft7Validator) -> None:
    Draft7Validator.check_schema(validator.schema)


@pytest.mark.parametrize("name", ["pipeline.yaml", "demo.yaml"])
def test_a_shipped_file_names_it_and_is_as_it_says(name: str, validator: Draft7Validator) -> None:
    assert (FOLDER / name).read_text().splitlines()[0] == LINE
    assert not list(validator.iter_errors(document.read(FOLDER / name).value))


SPOILED: Mapping[str, Any] = {
    "version": 2,
    "deliveries": {},
    "sender": {"email": "a@example.com", "nme": "A"},
    "providers": {},
    "providers.resend.api_key": "re_in_the_clear",
    "providers.resend.api_key.env": "re-in-the-clear",
    "providers.resend.adapter": "resned",
    "providers.resend.domain": "mg.example.com",  # of another adapter
    "providers.resend.limits": [],
    "providers.resend.call_timeout": 15,
    "providers.mailgun.region": "su",
    "providers.mailgun.price.currency": "euro",
    "providers.site.deduplicates": "never",
    "routes.LEAD_CAPTURED": [],
    "routes.LEAD_CAPTURE.0.priority": "soon",
    "routes.LEAD_CAPTURE.0.once": "person",
    "routes.LEAD_CAPTURE.0.max_age": "1 day",
    "templates.Welcome Mail": {"subject": "s", "html": "f"},
    "templates.welcome.subject": "",
    "audiences.readers.consnt": "newsletter",
    "audiences.readers.did": {"opend": "3d"},
    "audiences.readers.did_not.mailed": "lately",
    "audiences.readers.newest": 0,
    "campaigns.monthly.split.holdout": "110",
    "campaigns.monthly.split.variants": {"A": {"template": "news"}},
    "campaigns.monthly.schedule.dst": "sometimes",
    "campaigns.monthly.approve": "yes please",
    "campaigns.spring.schedule.at": "2030-03-20T08:30+01:00",
    "campaigns.spring.throttle": "5/s",
    "sequences.first_steps.steps": [],
    "sequences.first_steps.steps.0.after": "soon",
}


@pytest.mark.parametrize("place", SPOILED)
def test_what_the_file_must_not_say_is_found(
    place: str, said: dict[str, Any], validator: Draft7Validator
) -> None:
    *around, last = [int(part) if part.isdigit() else part for part in place.split(".")]
    inner: Any = said
    for part in around:
        inner = inner[part]
    inner[last] = SPOILED[place]
    assert list(validator.iter_errors(said))


@pytest.mark.parametrize(
    "place", ["version", "routes.CONTENT_PUBLISH", "providers.hubspot.token", "sender.email"]
)
def test_what_the_file_must_say_is_missed(
    place: str, said: dict[str, Any], validator: Draft7Validator
) -> None:
    *around, last = place.split(".")
    inner: Any = said
    for part in around:
        inner = inner[part]
    del inner[last]
    assert list(validator.iter_errors(said))


def test_it_knows_each_adapter_and_each_event() -> None:
    made = editors.schema()
    provider = made["$defs"]["ProviderEntry"]
    assert provider["properties"]["adapter"] == {"enum": sorted(registry.ADAPTERS)}
    assert len(provider["allOf"]) == len(registry.ADAPTERS)
    assert set(made["properties"]["routes"]["required"]) == {str(type) for type in EventType}


def test_durations_are_shown_as_people_write_them() -> None:
    entries = editors.schema()["$defs"]
    assert entries["BreakerEntry"]["properties"]["over"]["default"] == "5m"
    assert entries["CampaignEntry"]["properties"]["approval_life"]["default"] == "1d"
    assert '"PT' not in json.dumps(entries)
