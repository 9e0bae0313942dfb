"""Another environment for Dagster's resources in the middle of a process."""

from marketing_pipeline.defs import resources


def forget_settings() -> None:
    """Resources read the environment once a process."""
    resources._settings.cache_clear()
    resources._servers.cache_clear()
