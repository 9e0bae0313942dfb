"""Where Dagster keeps its records and files; `dagster.yaml` names these classes."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dagster._config.config_schema import UserConfigSchema
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
from dagster._core.storage.root import LocalArtifactStorage
from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage
from dagster_postgres.auth import PgTokenProvider

from marketing_pipeline import embedded, settings


class EmbeddedPostgresStorage(DagsterPostgresStorage):
    """Dagster's records in DAGSTER_POSTGRES_URL where that is set, else in the embedded server.

    Each Dagster process (webserver, daemon, code server, run worker, one-off command) makes this
    object by itself from `dagster.yaml` and so attaches by itself: nothing has to be started
    before, and the server lives as long as any of them.
    """

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        return {}

    @classmethod
    def from_config_value(
        cls,
        inst_data: ConfigurableClassData | None,
        config_value: Mapping[str, Any],  # noqa: ARG003 (empty: the environment says it all)
    ) -> "EmbeddedPostgresStorage":
        # Not the parent's: it makes a DagsterPostgresStorage whatever `cls` is.
        found = settings.read(os.environ)
        if found.dagster_postgres_url is not None:
            return cls(postgres_url=found.dagster_postgres_url, inst_data=inst_data)
        servers = embedded.attach(found.state_dir, valkey=False)
        return cls(
            postgres_url=servers.dagster_url,
            inst_data=inst_data,
            token_provider=_Attachment(found.state_dir),
        )


class _Attachment(PgTokenProvider):
    """Attaches again before each new connection, which costs a millisecond.

    A daemon lives for weeks. If the supervisor is killed meanwhile (out of memory), the next
    connection of any Dagster process starts the server anew instead of failing until someone
    restarts Dagster. Token providers are the one hook the storages keep across their engines.
    """

    def __init__(self, state_dir: Path) -> None:
        super().__init__()
        self._state_dir = state_dir

    def _fetch_token(self) -> tuple[str, float]:
        embedded.attach(self._state_dir, valkey=False)
        return "", 0.0  # no password, and expired at once: asked for at every connection


class StateArtifactStorage(LocalArtifactStorage):
    """Dagster's files under the state folder, so that a checkout stays clean."""

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        return {}

    @classmethod
    def from_config_value(
        cls,
        inst_data: ConfigurableClassData | None,
        config_value: Mapping[str, Any],  # noqa: ARG003 (empty)
    ) -> "StateArtifactStorage":
        return cls(base_dir=str(_files()), inst_data=inst_data)


class StateComputeLogManager(LocalComputeLogManager):
    """What ops print, under the state folder."""

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        return {}

    @classmethod
    def from_config_value(
        cls,
        inst_data: ConfigurableClassData | None,
        config_value: Mapping[str, Any],  # noqa: ARG003 (empty)
    ) -> "StateComputeLogManager":
        return cls(base_dir=str(_files() / "printed"), inst_data=inst_data)


def _files() -> Path:
    return settings.read(os.environ).state_dir / "dagster"
