"""What campaigns read and what people say about them: feedback, proposals, approvals, holds."""

from marketing_pipeline.event_log import schema

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    schema.execute("0003_campaigns.sql")
