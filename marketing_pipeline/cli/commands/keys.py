"""`marketing-pipeline keys`: who may send events."""

import json
from dataclasses import asdict
from datetime import UTC, datetime

import typer
from rich.console import Console

from marketing_pipeline.cli.asking import AsJson, ask
from marketing_pipeline.cli.refusal import refuse
from marketing_pipeline.event_log import intake

app = typer.Typer(no_args_is_help=True, help="Ingest keys, one or more for each source.")
console = Console()


@app.command("create")
def create_key(source: str, as_json: AsJson = False) -> None:
    """Make a key for a source; it is shown this once."""
    key = ask(lambda conn: intake.create_key(conn, source, datetime.now(UTC)))
    print(json.dumps({"source": source, "key": key}) if as_json else key)


@app.command("list")
def list_keys(as_json: AsJson = False) -> None:
    """Which keys there are; never their secrets."""
    found = ask(intake.list_keys)
    if as_json:
        print(json.dumps([asdict(one) for one in found], default=str))
        return
    for one in found:
        console.print(one, highlight=False)


@app.command("revoke")
def revoke_key(key_id: str) -> None:
    """End a key; ingest notices within ten seconds."""
    if not ask(lambda conn: intake.revoke_key(conn, key_id, datetime.now(UTC))):
        refuse(f"there is no active key {key_id!r}; see `keys list`")
