"""What must not be sent, what a person settles, and what tells a restored log from the one that sent."""

from marketing_pipeline.event_log import schema

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    schema.execute("0002_once_and_again.sql")
