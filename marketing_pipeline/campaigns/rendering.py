"""Templates by content, and the mails they make: the same inputs, the same bytes."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import formataddr
from functools import lru_cache
from typing import Any

import css_inline
import inscriptis
import jinja2
from inscriptis.model.config import ParserConfig
from jinja2 import meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from marketing_pipeline.domain import digest
from marketing_pipeline.domain.effect import Email
from marketing_pipeline.domain.template import Template


class TemplateError(ValueError):
    """A template cannot be read, or not be rendered with these variables; says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """Who a mail comes from."""

    email: str
    name: str | None

    def header(self) -> str:
        return formataddr((self.name or "", self.email))


def template(name: str, subject: str, html: str) -> Template:
    """Name a template by what it says."""
    return Template(
        hash=digest.fingerprint([name, subject, html]), name=name, subject=subject, html=html
    )


def reads(template: Template) -> tuple[str, ...]:
    """The variables that a template may look at, sorted.

    Raises:
        TemplateError: it is not Jinja.
    """
    names: set[str] = set()
    for part in (template.subject, template.html):
        try:
            names |= meta.find_undeclared_variables(_HTML.parse(part))
        except jinja2.TemplateSyntaxError as error:
            raise TemplateError(f"line {error.lineno}: {error.message}") from error
    return tuple(sorted(names))


def render(template: Template, variables: Mapping[str, Any], sender: Sender, to: str) -> Email:
    """One person's mail, its CSS inlined and its plain text derived from the HTML.

    Raises:
        TemplateError: a variable is missing, or the template fails on its value.
    """
    subject, html, text = _rendered(template, json.dumps(variables))
    return Email(sender=sender.header(), to=to, subject=subject, html=html, text=text)


@lru_cache(maxsize=1024)  # some 20 MB where mails are large
def _rendered(template: Template, variables: str) -> tuple[str, str, str]:
    """Subject, HTML and text: people of whom a template reads the same get the same."""
    known: dict[str, Any] = json.loads(variables)
    try:
        subject = _compiled(template.subject, markup=False).render(known)
        html = _compiled(template.html, markup=True).render(known)
    except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, KeyError) as error:
        raise TemplateError(f"template {template.name!r}: {error}") from error
    return (
        " ".join(subject.split()),  # a line break in a subject would start a new header
        _INLINER.inline(html),
        inscriptis.get_text(html, _TEXT).strip() + "\n",
    )


@lru_cache(maxsize=256)
def _compiled(source: str, *, markup: bool) -> jinja2.Template:
    return (_HTML if markup else _PLAIN).from_string(source)


def _environment(*, autoescape: bool) -> jinja2.Environment:
    environment = ImmutableSandboxedEnvironment(
        undefined=jinja2.StrictUndefined, autoescape=autoescape
    )
    del environment.filters["random"]  # chance would make a replay differ
    environment.globals = {"range": environment.globals["range"]}
    return environment


_HTML = _environment(autoescape=True)
_PLAIN = _environment(autoescape=False)
_INLINER = css_inline.CSSInliner(load_remote_stylesheets=False)
_TEXT = ParserConfig(display_links=True)
