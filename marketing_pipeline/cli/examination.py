"""Examines every part of an installation; each finding says how to mend it."""

import os
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from marketing_pipeline import settings
from marketing_pipeline.campaigns.document import ConfigError
from marketing_pipeline.cli import exclusion, processes, server_checks, waiting
from marketing_pipeline.cli.finding import Finding
from marketing_pipeline.delivery.assembly import assemble
from marketing_pipeline.settings import Settings, SettingsError

# bytes: PostgreSQL refuses to begin with less than 128 MB, and a day of work wants some more.
ROOM = 512 * 1024 * 1024


def examine(env: Mapping[str, str]) -> list[Finding]:
    """Look at everything that can be looked at; later parts need the earlier ones."""
    try:
        used = settings.read(env)
    except SettingsError as error:
        return [Finding(part="environment", passed=False, finding=str(error))]
    parts: list[Callable[[Settings], list[Finding]]] = [
        _python,
        _state,
        server_checks.examine,
        _ports,
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
    near = next(one for one in (used.state_dir, *used.state_dir.parents) if one.exists())
    writable = Finding(
        part="state folder",
        passed=near.is_dir() and os.access(near, os.W_OK),
        finding=str(used.state_dir),
        remedy=f"make {near} a folder you may write, or name another in MARKETING_STATE",
    )
    return [writable, disk(shutil.disk_usage(near).free, near)]


def disk(free: int, folder: Path) -> Finding:
    """`free` in bytes."""
    return Finding(
        part="disk",
        passed=free >= ROOM,
        finding=f"{free // 1024**2:,} MB are free for {folder}",
        remedy=f"free {ROOM // 1024**2} MB, or point MARKETING_STATE at another disk",
    )


def _ports(used: Settings) -> list[Finding]:
    runs = exclusion.holder(used.state_dir)
    return [
        port("ingest", used.ingest_port, runs, "set MARKETING_INGEST_PORT to another"),
        port("the UI", processes.UI_PORT, runs, "start dagster-webserver with a port of its own"),
    ]


def port(what: str, number: int, runs: str | None, otherwise: str) -> Finding:
    """`runs` names our own command on this state folder, which may well be who listens."""
    free = processes.is_free(number)
    taken = f"taken, and {runs} runs here" if runs else "taken"
    return Finding(
        part=f"port of {what}",
        passed=free or runs is not None,
        finding=f"{number} is {'free' if free else taken}",
        remedy=f"end who listens there, or {otherwise}",
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
    return [*found, *waiting.for_feedback(used, assembly)]


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
