"""Reads the templates that the operator's file names."""

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path

from jinja2 import TemplateSyntaxError

from marketing_pipeline.campaigns import compiling, rendering
from marketing_pipeline.campaigns.document import ConfigError, Document, Problem
from marketing_pipeline.campaigns.schema import TemplateEntry
from marketing_pipeline.domain.template import Template


def load(source: Document, entries: Mapping[str, TemplateEntry]) -> dict[str, Template]:
    """Templates by name, MJML compiled.

    Raises:
        ConfigError: files are not there, or are not what they should be.
    """
    read: dict[str, Template] = {}
    problems: list[Problem] = []
    for name, entry in entries.items():
        try:
            read[name] = _template(source, name, entry)
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(*problems)
    return read


def _template(source: Document, name: str, entry: TemplateEntry) -> Template:
    try:
        html = _html(source, name, entry)
        template = rendering.template(name, entry.subject, html, entry.preheader)
        rendering.reads(template)
    except rendering.TemplateError as error:
        problem = f"is not a Jinja template: {error}; mend it"
        raise source.error(("templates", name), problem) from error
    return template


def _html(source: Document, name: str, entry: TemplateEntry) -> str:
    folder = source.path.parent
    at = ("templates", name, "html" if entry.mjml is None else "mjml")
    try:
        if entry.mjml is not None:
            return compiling.compiled(folder / entry.mjml, folder)
        assert entry.html is not None, "the schema wants one of them"
        return _jinja(folder / entry.html)
    except FileNotFoundError as error:
        near = _near(Path(error.filename))
        raise source.error(
            at,
            f"there is no file {error.filename}; {near}paths are relative to {source.path.name}",
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise source.error(at, f"the file cannot be read: {error}; it has to be UTF-8") from error


def _jinja(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    try:
        rendering.tokens(text)
    except TemplateSyntaxError as error:
        problem = f"is not Jinja: {error.message}; mend it"
        raise ConfigError(Problem(path=path, line=error.lineno, text=problem)) from error
    return text


def _near(path: Path) -> str:
    beside = [one.name for one in path.parent.iterdir()] if path.parent.is_dir() else []
    found = get_close_matches(path.name, sorted(beside), n=1)
    return f"did you mean {found[0]!r}? " if found else ""
