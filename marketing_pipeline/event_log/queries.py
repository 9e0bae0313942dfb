"""Reads the named blocks of an .sql file that stands beside its module."""

import re
from importlib import resources
from typing import LiteralString, cast

_NAME = re.compile(r"^-- ([a-z_ ]+) --$", re.MULTILINE)


def load(file: str) -> dict[str, LiteralString]:
    """Blocks by name: each starts at a line `-- name --`, then one sentence, then the query."""
    text = resources.files("marketing_pipeline.event_log").joinpath(file).read_text("utf-8")
    parts = _NAME.split(text)[1:]
    return {
        name: cast(LiteralString, query.strip())  # our own file, not anybody's input
        for name, query in zip(parts[::2], parts[1::2], strict=True)
    }
