"""Brings a database to the present schema, and makes a refusal to work with another one."""

from importlib import resources

import sqlalchemy
from alembic import command, op
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

_ROOM = resources.files("marketing_pipeline.event_log")
_LOCK = 0x6D61726B  # "mark": migrations of one database happen one at a time


def migrate(database_url: str) -> str:
    """Upgrade to the newest revision and return it; several processes may do so at once."""
    engine = _engine(database_url)
    with engine.connect() as connection:
        connection.exec_driver_sql(f"select pg_advisory_lock({_LOCK})")
        connection.commit()
        try:
            config = _config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            connection.commit()
        finally:
            connection.rollback()
            connection.exec_driver_sql(f"select pg_advisory_unlock({_LOCK})")
            connection.commit()
    engine.dispose()
    return newest()


def newest() -> str:
    """The revision that this code is written for."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None
    return head


def present(database_url: str) -> str | None:
    """The revision that the database is at; None where it was never migrated."""
    engine = _engine(database_url)
    with engine.connect() as connection:
        revision = MigrationContext.configure(connection).get_current_revision()
    engine.dispose()
    return revision


def execute(script: str) -> None:
    """Run an SQL file that stands beside its migration."""
    text = (_ROOM / "migrations" / "versions" / script).read_text(encoding="utf-8")
    connection = op.get_bind().connection.driver_connection
    assert connection is not None
    connection.execute(text)  # straight to psycopg, where ':' and '%' mean nothing


def _engine(database_url: str) -> sqlalchemy.Engine:
    scheme, rest = database_url.split("://", 1)
    assert scheme in {"postgresql", "postgres"}, "settings checked the scheme"
    return sqlalchemy.create_engine(f"postgresql+psycopg://{rest}", poolclass=sqlalchemy.NullPool)


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_ROOM / "migrations"))
    return config
