"""What the environment says, read once into a frozen value."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit


class SettingsError(ValueError):
    """An environment variable holds what cannot be used; says which, why and what to write."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Where this installation lives and what it talks to.

    A URL that is `None` means: use the embedded server under `state_dir`.
    """

    home: Path  # the checkout, or the folder that holds campaigns/
    state_dir: Path  # embedded servers, logs, the sandbox's record
    campaigns_file: Path  # the operator's pipeline.yaml
    database_url: str | None
    redis_url: str | None
    dagster_postgres_url: str | None
    sandbox_url: str | None  # where set, every provider's address is replaced by the sandbox's
    ingest_host: str
    ingest_port: int
    environment: Mapping[str, str] = field(repr=False)  # secrets are looked up here by name


def read(env: Mapping[str, str]) -> Settings:
    """Read the `MARKETING_*` variables and `DAGSTER_POSTGRES_URL`.

    Raises:
        SettingsError: a variable's value cannot be used.
    """
    home = Path(env.get("MARKETING_HOME") or _checkout() or Path.cwd()).resolve()
    return Settings(
        home=home,
        state_dir=Path(env.get("MARKETING_STATE") or home / ".marketing").resolve(),
        campaigns_file=home / (env.get("MARKETING_CAMPAIGNS") or "campaigns/pipeline.yaml"),
        database_url=_url(env, "MARKETING_DATABASE_URL", {"postgresql", "postgres"}),
        redis_url=_url(env, "MARKETING_REDIS_URL", {"redis", "rediss", "unix"}),
        dagster_postgres_url=_url(env, "DAGSTER_POSTGRES_URL", {"postgresql", "postgres"}),
        sandbox_url=_url(env, "MARKETING_SANDBOX_URL", {"http", "https"}),
        ingest_host=env.get("MARKETING_INGEST_HOST") or "127.0.0.1",
        ingest_port=_port(env, "MARKETING_INGEST_PORT", 8025),
        environment=dict(env),
    )


def _checkout() -> Path | None:
    folder = Path(__file__).resolve().parents[1]
    return folder if (folder / "campaigns").is_dir() else None


def _url(env: Mapping[str, str], name: str, schemes: set[str]) -> str | None:
    value = env.get(name, "").strip()
    if not value:
        return None
    scheme = urlsplit(value).scheme
    if scheme not in schemes:  # the value itself may hold a password: it is not shown
        raise SettingsError(
            f"{name}: scheme {scheme!r} is not one of {', '.join(sorted(schemes))}; "
            f"write {name}={sorted(schemes)[0]}://..., or unset it to use the embedded server"
        )
    try:
        _ = urlsplit(value).port
    except ValueError as error:
        raise SettingsError(
            f"{name}: its port is not a number from 0 to 65535; write host:port"
        ) from error
    return value


def _port(env: Mapping[str, str], name: str, default: int) -> int:
    value = env.get(name) or str(default)
    if not value.isdigit() or not 0 <= int(value) <= 65535:
        raise SettingsError(f"{name}: {value!r} is not a port; write a number from 0 to 65535")
    return int(value)
