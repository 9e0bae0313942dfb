"""What must not be sent, what a person settles, and how a restored log is told from the first."""

from marketing_pipeline.event_log import schema

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    schema.execute("0002_once_and_again.sql")
