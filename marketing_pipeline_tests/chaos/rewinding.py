"""Puts a database back to how it was: a copy for each trial would take longer than the trial."""

import time

import psycopg
from psycopg import sql

_TABLES = """
select tablename from pg_tables where schemaname = 'public' and tablename <> 'alembic_version'
"""
_COLUMNS = """
select column_name from information_schema.columns
where table_schema = 'public' and table_name = %s and is_generated = 'NEVER'
order by ordinal_position
"""
_SEQUENCES = """
select sequencename, coalesce(last_value, start_value), last_value is not null
from pg_sequences where schemaname = 'public'
"""
_OTHERS = """
select count(pg_terminate_backend(pid)) from pg_stat_activity
where datname = current_database() and pid <> pg_backend_pid()
"""


class Rewind:
    """A database's state at the moment of making this, kept beside it in a schema of its own."""

    def __init__(self, database_url: str) -> None:
        self._url = database_url
        with psycopg.connect(database_url, autocommit=True) as conn:
            conn.execute("create schema before")
            tables = [row[0] for row in conn.execute(_TABLES).fetchall()]
            self._script = sql.SQL(";\n").join(
                [
                    # Facts refuse to be changed, and references their order: neither is asked here.
                    sql.SQL("set local session_replication_role = replica"),
                    *(self._keep(conn, table) for table in tables),
                    *self._sequences(conn),
                    # What has the same identity would be taken for a log that lost its memory.
                    sql.SQL("update public.installation set identity = gen_random_uuid()"),
                ]
            )

    def back(self) -> None:
        """As it was, but another installation; whoever is connected is cut off first."""
        with psycopg.connect(self._url, autocommit=True) as conn:
            while conn.execute(_OTHERS).fetchone() != (0,):
                time.sleep(0.002)
            with conn.transaction():
                conn.execute(self._script)

    def _keep(self, conn: psycopg.Connection, table: str) -> sql.Composable:
        now, before = sql.Identifier("public", table), sql.Identifier("before", table)
        names = [sql.Identifier(row[0]) for row in conn.execute(_COLUMNS, (table,)).fetchall()]
        columns = sql.SQL(", ").join(names)
        conn.execute(sql.SQL("create table {} as select {} from {}").format(before, columns, now))
        return sql.SQL(
            "delete from {now}; insert into {now} ({columns}) select {columns} from {before}"
        ).format(now=now, before=before, columns=columns)

    def _sequences(self, conn: psycopg.Connection) -> list[sql.Composable]:
        return [
            sql.SQL("select setval({}, {}, {})").format(
                sql.Literal(f"public.{name}"), sql.Literal(value), sql.Literal(called)
            )
            for name, value, called in conn.execute(_SEQUENCES).fetchall()
        ]
