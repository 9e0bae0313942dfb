"""Puts the operator's file, the adapters and the gate together: the composition of delivery."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

from pydantic import SecretStr, ValidationError

from marketing_pipeline.campaigns import complaints, configuration, stored
from marketing_pipeline.campaigns.configuration import Configuration
from marketing_pipeline.campaigns.document import ConfigError, Document, Problem
from marketing_pipeline.campaigns.schema import ProviderEntry
from marketing_pipeline.domain import digest
from marketing_pipeline.providers import registry
from marketing_pipeline.providers.protocol import Provider
from marketing_pipeline.settings import Settings

NOT_SET = "not-set"  # stands in for a secret where no call will be made
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """A provider as this installation uses it."""

    provider: Provider
    entry: ProviderEntry
    missing: tuple[str, ...]  # environment variables without which it cannot be called
    setup: str  # digest of adapter and public options: who is asked about a doubt must be the same
    lease: timedelta  # longer than any call: nobody takes over while one is under way


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembly:
    """All that delivery is made of, except what is connected to."""

    configuration: Configuration
    destinations: Mapping[str, Destination]
    marks: Path  # the folder in which high-water marks are kept


def assemble(settings: Settings) -> Assembly:
    """Read the operator's file and build its providers.

    Raises:
        ConfigError: the file names file, line, the value's problem and the remedy.
    """
    examined = configuration.examine(settings.campaigns_file, registry.KINDS)
    providers: dict[str, Provider] = {}
    problems: list[Problem] = []
    for name, entry in examined.providers.items():
        try:
            providers[name] = _provider(examined.document, name, entry, settings)
        except ConfigError as error:
            problems += error.problems
    loaded = examined.configuration(problems)
    return Assembly(
        configuration=loaded,
        destinations={
            name: _destination(loaded, name, provider, settings)
            for name, provider in providers.items()
        },
        marks=marks(settings),
    )


def marks(settings: Settings) -> Path:
    """Where this machine keeps high-water marks: beside the embedded servers, never in them."""
    return settings.state_dir / "high-water"


def for_rendering(body: Mapping[str, Any]) -> Mapping[str, Provider]:
    """The providers of a stored configuration, able to make requests and unable to sign them."""
    return {
        name: registry.build(name, entry["adapter"], _unsigned(entry), base_url=None)
        for name, entry in body["providers"].items()
    }


def _unsigned(entry: Mapping[str, Any]) -> dict[str, Any]:
    wanted = registry.ADAPTERS[entry["adapter"]].model_fields
    secrets = [name for name, field in wanted.items() if field.annotation is SecretStr]
    return {**dict.fromkeys(secrets, NOT_SET), **entry["options"]}


def _provider(source: Document, name: str, entry: ProviderEntry, settings: Settings) -> Provider:
    exposed = list(_exposed(source, name, entry))
    options, _ = _resolve(entry.options, settings)
    base_url = f"{settings.sandbox_url}/{entry.adapter}" if settings.sandbox_url else None
    try:
        provider = registry.build(
            name,
            entry.adapter,
            options | {problem.where.rpartition(".")[2]: NOT_SET for problem in exposed},
            settle_delay=entry.settle_delay,
            horizon=entry.horizon,
            key_life=entry.key_life,
            at_least_once=entry.at_least_once,
            base_url=base_url,
        )
    except ValidationError as error:
        adapter, at = registry.ADAPTERS[entry.adapter], ("providers", name)
        found = complaints.explained(source, adapter, error, at, ProviderEntry.model_fields)
        raise ConfigError(*exposed, *found) from error
    if exposed:
        raise ConfigError(*exposed)
    return provider


def _exposed(source: Document, name: str, entry: ProviderEntry) -> Iterator[Problem]:
    """Secrets that stand in the file: they would be copied with it, and kept in the log."""
    for option in sorted(secrets(entry.adapter) & entry.options.keys()):
        value = entry.options[option]
        if not stored.is_secret(value) or not _VARIABLE.fullmatch(str(value["env"])):
            yield source.problem(
                ("providers", name, option),
                "is a secret, which must not stand in the file; write {env: NAME}, "
                "and set NAME in the environment",
            )


def secrets(adapter: str) -> frozenset[str]:
    """The options of an adapter that are secrets."""
    fields = registry.ADAPTERS[adapter].model_fields
    return frozenset(name for name, field in fields.items() if _is_secret(field.annotation))


def _is_secret(annotation: Any) -> bool:
    return annotation is SecretStr or any(map(_is_secret, get_args(annotation)))


def _destination(
    loaded: Configuration, name: str, provider: Provider, settings: Settings
) -> Destination:
    entry = loaded.file.providers[name]
    _, missing = _resolve(entry.options, settings)
    lease = entry.call_timeout + loaded.file.delivery.lease_margin
    setup = digest.fingerprint(loaded.meaning.body["providers"][name])
    return Destination(provider=provider, entry=entry, missing=missing, setup=setup, lease=lease)


def _resolve(
    options: Mapping[str, Any], settings: Settings
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Options with their secrets; against the sandbox any value will do."""
    resolved: dict[str, Any] = {}
    missing: list[str] = []
    for name, value in options.items():
        if not stored.is_secret(value):
            resolved[name] = value
            continue
        variable = str(value["env"])
        resolved[name] = settings.environment.get(variable) or NOT_SET
        is_called_with = name not in registry.FOR_NOTICES
        if resolved[name] == NOT_SET and is_called_with and not settings.sandbox_url:
            missing.append(variable)
    return resolved, tuple(missing)
