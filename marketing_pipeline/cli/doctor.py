"""Examines every part of an installation; each finding says how to mend it."""

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import redis

from marketing_pipeline import embedded, settings
from marketing_pipeline.campaigns.document import ConfigError
from marketing_pipeline.delivery.assembly import assemble
from marketing_pipeline.event_log import schema
from marketing_pipeline.event_log.location import SchemaError, locate
from marketing_pipeline.settings import Settings, SettingsError


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What was found of one part."""

    part: str
    passed: bool
    finding: str
    remedy: str = ""


def examine(env: Mapping[str, str]) -> list[Finding]:
    """Look at everything that can be looked at; later parts need the earlier ones."""
    try:
        used = settings.read(env)
    except SettingsError as error:
        return [Finding(part="environment", passed=False, finding=str(error))]
    parts: list[Callable[[Settings], list[Finding]]] = [
        _python,
        _state,
        _servers,
        _file,
        _dagster_home,
    ]
    return [one for part in parts for one in part(used)]


def _python(_: Settings) -> list[Finding]:
    version = ".".join(str(part) for part in sys.version_info[:3])
    fits = sys.version_info >= (3, 11)
    remedy = "install Python 3.11 or later"
    return [Finding(part="python", passed=fits, finding=version, remedy=remedy)]


def _state(used: Settings) -> list[Finding]:
    near = used.state_dir if used.state_dir.exists() else used.state_dir.parent
    return [
        Finding(
            part="state folder",
            passed=os.access(near, os.W_OK),
            finding=str(used.state_dir),
            remedy=f"make {near} writable, or name another folder in MARKETING_STATE",
        )
    ]


def _servers(used: Settings) -> list[Finding]:
    try:
        servers = locate(used)
    except (embedded.EmbeddedError, SchemaError) as error:
        return [Finding(part="servers", passed=False, finding=str(error))]
    except Exception as error:  # any driver's complaint: told, not raised
        remedy = "start the server, or unset its URL to use the embedded one"
        return [Finding(part="servers", passed=False, finding=str(error).strip(), remedy=remedy)]
    revision = schema.present(servers.database_url)
    found = [Finding(part="postgresql", passed=True, finding=f"schema at revision {revision}")]
    return [*found, _valkey(servers.redis_url)]


def _valkey(url: str) -> Finding:
    try:
        with redis.Redis.from_url(url, socket_timeout=2) as client:
            policy = str(client.info("memory")["maxmemory_policy"])
    except redis.RedisError as error:
        remedy = "start Redis or Valkey, or unset MARKETING_REDIS_URL; until then nothing is called"
        return Finding(part="valkey", passed=False, finding=str(error), remedy=remedy)
    return Finding(
        part="valkey",
        passed=policy == "noeviction",
        finding=f"maxmemory-policy {policy}",
        remedy="set maxmemory-policy noeviction: an evicted limit is a limit exceeded",
    )


def _file(used: Settings) -> list[Finding]:
    try:
        assembly = assemble(used)
    except ConfigError as error:
        return [Finding(part="pipeline.yaml", passed=False, finding=str(error))]
    found = [Finding(part="pipeline.yaml", passed=True, finding=str(used.campaigns_file))]
    for name, destination in assembly.destinations.items():
        missing = ", ".join(destination.missing)
        found.append(
            Finding(
                part=f"provider {name}",
                passed=not missing,
                finding=f"{missing} is not set" if missing else "ready",
                remedy="set it in the environment; until then its effects wait",
            )
        )
    return found


def _dagster_home(used: Settings) -> list[Finding]:
    home = used.environment.get("DAGSTER_HOME", "")
    return [
        Finding(
            part="DAGSTER_HOME",
            passed=bool(home) and (Path(home) / "dagster.yaml").is_file(),
            finding=home or "is not set",
            remedy=f"export DAGSTER_HOME={used.home}",
        )
    ]
