"""What commands ask the log."""

import asyncio
import os
from collections.abc import Callable, Coroutine
from typing import Annotated, TypeVar

import psycopg
import typer

from marketing_pipeline import settings
from marketing_pipeline.event_log.location import locate
from marketing_pipeline.settings import Settings

T = TypeVar("T")
AsJson = Annotated[bool, typer.Option("--json", help="for programs")]


def used() -> Settings:
    """The settings of this installation, as the environment has them."""
    return settings.read(os.environ)


def ask(question: Callable[[psycopg.AsyncConnection], Coroutine[None, None, T]]) -> T:
    """Run a query function on the installation's log."""
    return ask_at(locate(used()).database_url, question)


def ask_at(url: str, question: Callable[[psycopg.AsyncConnection], Coroutine[None, None, T]]) -> T:
    """Run a query function on a connection of its own, in autocommit mode."""

    async def asked() -> T:
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as conn:
            return await question(conn)

    return asyncio.run(asked())
