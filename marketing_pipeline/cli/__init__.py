"""Durable events, effects that happen once, and a replay that cannot send."""

import psycopg
import redis
import sqlalchemy.exc
import typer

from marketing_pipeline import embedded
from marketing_pipeline.campaigns.document import ConfigError
from marketing_pipeline.cli import exclusion, server_checks
from marketing_pipeline.cli.commands import campaigns, holding, installation, keys, log
from marketing_pipeline.cli.refusal import refuse
from marketing_pipeline.delivery.proposals import CannotPlan
from marketing_pipeline.delivery.replaying import CannotReplay
from marketing_pipeline.domain.event import InvalidEvent
from marketing_pipeline.domain.rules import Unplannable
from marketing_pipeline.event_log.approvals import CannotApprove
from marketing_pipeline.event_log.holding import CannotHold
from marketing_pipeline.event_log.installation import StillAtWork
from marketing_pipeline.event_log.location import SchemaError
from marketing_pipeline.event_log.resolving import CannotResolve
from marketing_pipeline.event_log.story import NoStory
from marketing_pipeline.event_log.travel import NoPast
from marketing_pipeline.settings import SettingsError

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
app.add_typer(installation.app)
app.add_typer(keys.app, name="keys", rich_help_panel="This installation")
app.add_typer(campaigns.app)
app.add_typer(holding.app, name="campaign", rich_help_panel="Campaigns")
app.add_typer(log.app)


def main() -> None:
    """The entry point: what an operator can mend is one line, not a traceback."""
    try:
        app()
    except (
        ConfigError,
        InvalidEvent,
        SettingsError,
        SchemaError,
        embedded.EmbeddedError,
        exclusion.AlreadyRunning,
        CannotHold,
        CannotReplay,
        CannotApprove,
        CannotPlan,
        CannotResolve,
        NoPast,
        NoStory,
        StillAtWork,
        Unplannable,
    ) as error:
        refuse(str(error))
    except redis.RedisError as error:
        refuse(f"Valkey: {error}; start the server, or unset MARKETING_REDIS_URL")
    except (psycopg.OperationalError, sqlalchemy.exc.OperationalError) as error:
        refuse(f"{server_checks.reason(error)}; {server_checks.START_IT}")
