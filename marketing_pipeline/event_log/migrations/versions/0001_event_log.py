"""The event log, the plans and the ledger."""

from marketing_pipeline.event_log import schema

revision = "0001"
down_revision = None


def upgrade() -> None:
    schema.execute("0001_event_log.sql")
