"""Renders a mail as a person would get it, and shows it; nothing is sent."""

import difflib
import json
import os
import webbrowser
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from marketing_pipeline.campaigns import configuration, rendering
from marketing_pipeline.campaigns.rendering import Parts
from marketing_pipeline.cli import asking, preview_page
from marketing_pipeline.cli.refusal import refuse
from marketing_pipeline.domain.template import Template
from marketing_pipeline.event_log import portrait
from marketing_pipeline.event_log.location import locate
from marketing_pipeline.providers import registry
from marketing_pipeline.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """A mail to look at, and what it was made of."""

    template: str
    sender: str
    variables: Mapping[str, Any]  # only those that the template reads
    mail: Parts


def preview(used: Settings, name: str, address: str, given: Sequence[str]) -> Preview:
    """Render a template of the file as it stands now, for a person as the log knows them now.

    `given` are `name=value`; they override what the log says.

    Raises:
        ConfigError: the operator's file cannot be used.
        SystemExit: there is no such template, or a variable is missing, misspelt or not written so.
    """
    loaded = configuration.load(used.campaigns_file, registry.KINDS)
    template = _named(name, {one.name: one for one in loaded.templates.values()})
    reads = rendering.reads(template)
    own = dict(_assigned(one) for one in given)
    if unread := sorted(own.keys() - set(reads)):
        refuse(f"template {name!r} does not read {unread[0]!r}; it reads: {_listed(reads)}")
    known = asking.ask_at(
        locate(used).database_url, lambda conn: portrait.attributes(conn, address)
    )
    if known is None:
        typer.echo("nobody in the log has this address; only --with counts", err=True)
    every = {**(known or {}), **own}
    variables = {name: every[name] for name in reads if name in every}
    mail = _rendered(template, variables)
    sender = loaded.meaning.sender.header()
    return Preview(template=name, sender=sender, variables=variables, mail=mail)


def document(shown: Preview) -> dict[str, Any]:
    """As JSON takes it."""
    return asdict(shown.mail) | {"variables": shown.variables, "template": shown.template}


def show(console: Console, used: Settings, shown: Preview, *, in_browser: bool) -> None:
    """Write the page, and open it where there is a browser."""
    file = _written(used.state_dir / "previews", shown)
    if in_browser and not webbrowser.open(file.as_uri()):
        console.print("there is no browser here; copy the file to where there is one")
    console.print(str(file), soft_wrap=True, highlight=False, markup=False)


def _written(folder: Path, shown: Preview) -> Path:
    """For its owner's eyes only: it holds what is known of a person."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = folder / f"{shown.template}.html"
    text = preview_page.page(shown.template, shown.sender, shown.mail)
    with open(file, "w", encoding="utf-8", opener=lambda path, how: os.open(path, how, 0o600)) as f:
        f.write(text)
    return file


def _named(name: str, known: Mapping[str, Template]) -> Template:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        meant = f"did you mean {near[0]!r}? " if near else ""
        refuse(f"no template {name!r}; {meant}the file has: {_listed(sorted(known))}")
    return known[name]


def _assigned(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        refuse(f"--with {text!r} gives no variable; write --with name=value")
    return name, _value(value)


def _value(text: str) -> Any:
    """JSON where it looks the same again, such as 17, true or ["a", "b"]; or else a text.

    1.50 remains a text: as a number it would be shown as 1.5.
    """
    try:
        value = json.loads(text)
    except ValueError:
        return text
    plain = isinstance(value, dict | list) or json.dumps(value) == text
    return value if plain and text not in {"NaN", "Infinity", "-Infinity"} else text


def _rendered(template: Template, variables: Mapping[str, Any]) -> Parts:
    try:
        return rendering.parts(template, variables)
    except rendering.MissingVariable as error:
        if (name := error.variable) is None:
            refuse(f"{error}; give it with --with, or a default in the template")
        refuse(
            f"template {template.name!r} needs {name!r}, which is not known of this person; "
            f"add --with {name}=VALUE, or a default in the template: {name} | default('')"
        )
    except rendering.TemplateError as error:
        refuse(f"{error}; mend the template, or give other values with --with")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
