"""Finds the servers this installation uses, and sees that the log has the present schema."""

from marketing_pipeline import embedded
from marketing_pipeline.embedded import Servers
from marketing_pipeline.event_log import schema
from marketing_pipeline.settings import Settings


class SchemaError(RuntimeError):
    """The database is at another schema than this code; says what to run."""


def locate(settings: Settings) -> Servers:
    """The servers by their URLs, embedded ones started where none are given.

    An embedded database is migrated on the way. One that was given is not: whoever runs it decides
    when it changes.

    Raises:
        SchemaError: a given database is at another revision.
    """
    servers = embedded.resolve(
        settings.state_dir,
        database_url=settings.database_url,
        redis_url=settings.redis_url,
        dagster_url=settings.dagster_postgres_url,
    )
    revision = schema.present(servers.database_url)
    if revision == schema.newest():
        return servers
    if settings.database_url is None:
        schema.migrate(servers.database_url)
        return servers
    raise SchemaError(
        f"the database of MARKETING_DATABASE_URL is at revision {revision or 'none'}, and this "
        f"code needs {schema.newest()}; run `marketing-pipeline migrate`"
    )
