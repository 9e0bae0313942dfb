"""Reads the templates that the operator's file names."""

from collections.abc import Mapping

from marketing_pipeline.campaigns import compiling, rendering
from marketing_pipeline.campaigns.document import Document
from marketing_pipeline.campaigns.schema import TemplateEntry
from marketing_pipeline.domain.template import Template


def load(source: Document, entries: Mapping[str, TemplateEntry]) -> dict[str, Template]:
    """Templates by name, MJML compiled.

    Raises:
        ConfigError: a file is not there, or is not what it should be; names file, line and remedy.
    """
    return {name: _template(source, name, entry) for name, entry in entries.items()}


def _template(source: Document, name: str, entry: TemplateEntry) -> Template:
    try:
        html = _html(source, name, entry)
        template = rendering.template(name, entry.subject, html, entry.preheader)
        rendering.reads(template)
    except rendering.TemplateError as error:
        raise source.error(("templates", name), f"is not a Jinja template: {error}") from error
    return template


def _html(source: Document, name: str, entry: TemplateEntry) -> str:
    folder = source.path.parent
    at = ("templates", name, "html" if entry.mjml is None else "mjml")
    try:
        if entry.mjml is not None:
            return compiling.compiled(folder / entry.mjml, folder)
        assert entry.html is not None, "the schema wants one of them"
        return (folder / entry.html).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise source.error(
            at, f"there is no file {error.filename}; paths are relative to {source.path.name}"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise source.error(at, f"the file cannot be read: {error}; it has to be UTF-8") from error
