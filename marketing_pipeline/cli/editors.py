"""The JSON Schema by which editors complete and check the operator's file as it is written."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from marketing_pipeline.campaigns import values
from marketing_pipeline.campaigns.schema import PipelineFile
from marketing_pipeline.delivery import assembly
from marketing_pipeline.providers import registry

_SECRET: Mapping[str, Any] = {
    "type": "object",
    "properties": {"env": {"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$"}},
    "required": ["env"],
    "additionalProperties": False,
    "description": "Of the environment: {env: NAME}.",
}


class _AsWritten(GenerateJsonSchema):
    """Without what tells an editor nothing, and with durations as people write them."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002  # pydantic asks so
        return False

    def dict_schema(self, schema: Any) -> JsonSchemaValue:
        made = super().dict_schema(schema)
        if "patternProperties" in made:  # of names: others are not just left unchecked
            made["additionalProperties"] = False
        return made

    def encode_default(self, dft: Any) -> Any:
        return values.written(dft) if isinstance(dft, timedelta) else super().encode_default(dft)

    def default_schema(self, schema: Any) -> JsonSchemaValue:
        made = super().default_schema(schema)
        if made.get("default") in (None, "", [], {}) or isinstance(made["default"], dict):
            made.pop("default", None)
        return made


def schema() -> dict[str, Any]:
    """What the file may say, adapters' own options included.

    It keeps to draft 7, which editors know, and says what can be said of each place by itself:
    names that stand elsewhere, schedules and templates only `marketing-pipeline check` looks at.
    """
    made = PipelineFile.model_json_schema(schema_generator=_AsWritten)
    made["$defs"]["Secret"] = _SECRET
    provider = made["$defs"]["ProviderEntry"]
    common = list(provider["properties"])
    provider["properties"]["adapter"] = {"enum": sorted(registry.ADAPTERS)}
    provider["allOf"] = [_when(adapter, common) for adapter in sorted(registry.ADAPTERS)]
    return {"$schema": "http://json-schema.org/draft-07/schema#", **made}


def _when(adapter: str, common: list[str]) -> dict[str, Any]:
    """What stands beside the keys that all providers have, where this is the adapter."""
    options = registry.ADAPTERS[adapter].model_json_schema(schema_generator=_AsWritten)
    secret, secrets = {"$ref": "#/$defs/Secret"}, assembly.secrets(adapter)
    own = {
        name: secret if name in secrets else {"anyOf": [option, secret]}
        for name, option in options["properties"].items()
    }
    return {
        "if": {"properties": {"adapter": {"const": adapter}}, "required": ["adapter"]},
        "then": {
            "properties": {name: True for name in common} | own,
            "required": options.get("required", []),
            "additionalProperties": False,
        },
    }
