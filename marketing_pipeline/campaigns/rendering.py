"""Templates by content, and the mails they make: the same inputs, the same bytes."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.utils import formataddr
from functools import lru_cache
from html import escape
from typing import Any

import css_inline
import inscriptis
import jinja2
from inscriptis.css_profiles import CSS_PROFILES
from inscriptis.model.config import ParserConfig
from inscriptis.model.css import CssParse
from jinja2 import meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from marketing_pipeline.domain import digest
from marketing_pipeline.domain.effect import Email
from marketing_pipeline.domain.template import Template

# The first thing in the HTML of a template whose media queries and the like stay, and whose tables
# are for the layout. It says so in what is kept and hashed: a template without it, however old, is
# rendered to the same bytes for ever.
KEEPS_RULES = "{# keeps the rules that cannot be inlined #}"


class TemplateError(ValueError):
    """A template cannot be read, or not be rendered with these variables; says why."""


class MissingVariable(TemplateError):
    """A template needs a variable that it was not given.

    `variable` names it; it is None where a part of another's value is missing.
    """

    def __init__(self, template: str, problem: str) -> None:
        super().__init__(f"template {template!r}: {problem}")
        found = re.fullmatch(r"'(\w+)' is undefined", problem)
        self.variable = found[1] if found else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """A mail without anybody it goes to."""

    subject: str
    preheader: str | None
    html: str  # with the preheader in it
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """Who a mail comes from."""

    email: str
    name: str | None

    def header(self) -> str:
        return formataddr((self.name or "", self.email))


def template(name: str, subject: str, html: str, preheader: str | None = None) -> Template:
    """Name a template by what it says."""
    said = [name, subject, html]
    if preheader is not None:  # one without it is named as it was before there were any
        said.append(preheader)
    return Template(
        hash=digest.fingerprint(said), name=name, subject=subject, html=html, preheader=preheader
    )


def tokens(source: str) -> Iterator[tuple[int, str, str]]:
    """The line, kind and text of each piece of a Jinja source.

    Raises:
        TemplateSyntaxError: it is not Jinja; its blocks have to end where they began.
    """
    _HTML.parse(source)
    return _HTML.lex(source)


def reads(template: Template) -> tuple[str, ...]:
    """The variables that a template may look at, sorted.

    Raises:
        TemplateError: it is not Jinja.
    """
    names: set[str] = set()
    for part in (template.subject, template.html, template.preheader or ""):
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
    mail = parts(template, variables)
    return Email(
        sender=sender.header(), to=to, subject=mail.subject, html=mail.html, text=mail.text
    )


def parts(template: Template, variables: Mapping[str, Any]) -> Parts:
    """The same without a sender and a recipient.

    Raises:
        TemplateError: as `render`.
    """
    return _rendered(template, json.dumps(variables))


@lru_cache(maxsize=1024)  # some 20 MB where mails are large
def _rendered(template: Template, variables: str) -> Parts:
    """People of whom a template reads the same get the same."""
    known: dict[str, Any] = json.loads(variables)
    try:
        subject = _line(template.subject, known)
        preheader = None if template.preheader is None else _line(template.preheader, known)
        page = _compiled(template.html, markup=True).render(known)
    except jinja2.UndefinedError as error:
        raise MissingVariable(template.name, str(error)) from error
    except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, KeyError) as error:
        raise TemplateError(f"template {template.name!r}: {error}") from error
    keeps_rules = template.html.startswith(KEEPS_RULES)
    inlined = (_KEEPING_INLINER if keeps_rules else _INLINER).inline(page)
    return Parts(
        subject=subject,
        preheader=preheader,
        html=_with_preheader(inlined, preheader) if preheader else inlined,
        text=_laid_out(page) if keeps_rules else inscriptis.get_text(page, _TEXT).strip() + "\n",
    )


def _line(source: str, known: Mapping[str, Any]) -> str:
    """On one line: a break in a subject would start a new header."""
    return " ".join(_compiled(source, markup=False).render(known).split())


def _with_preheader(page: str, preheader: str) -> str:
    """Hidden where the body begins, and padded so that inboxes show nothing of what follows."""
    hidden = f'<div style="{_HIDDEN}">{escape(preheader)}{_PADDING}</div>'
    for found in _BODY.finditer(page):
        if found["body"]:
            return page[: found.end()] + hidden + page[found.end() :]
    raise AssertionError("the inliner writes whole documents")


def _laid_out(page: str) -> str:
    """Plain text of tables that are there for the layout: not padded to the table's width."""
    text = inscriptis.get_text(page, _LAYOUT_TEXT)
    text = _ICON_LINK.sub("", _IMAGE_LINK.sub(r"[\1](", text))
    lines = "\n".join(line.rstrip() for line in text.splitlines())
    return re.sub(r"\n{3,}", "\n\n", lines).strip() + "\n"


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
_KEEPING_INLINER = css_inline.CSSInliner(
    load_remote_stylesheets=False,
    keep_style_tags=True,  # among their rules @media, :hover and what one mail client alone reads
    remove_inlined_selectors=True,
)
_TEXT = ParserConfig(display_links=True)


def _layout_text() -> ParserConfig:
    config = ParserConfig(display_links=True, display_images=True, css=CSS_PROFILES["strict"])
    # Without `align`: what is centred on a screen would be far to the right in a text.
    config.attribute_handler.attribute_mapping = {"style": CssParse.attr_style}
    return config


_LAYOUT_TEXT = _layout_text()
_IMAGE_LINK = re.compile(r"\[\[([^\]]+)\]\s*\]\(")  # [[a logo] ](https://...)
_ICON_LINK = re.compile(r"\[\s*\]\([^)\s]*\)")  # [ ](https://...): its image says nothing
_BODY = re.compile(
    r"""<!--.*?-->|<(style|title|script|noscript)\b.*?</\1>|(?P<body><body\b(?:"[^"]*"|[^">])*>)""",
    re.DOTALL,
)
_HIDDEN = (
    "display:none;font-size:1px;line-height:1px;max-height:0;max-width:0;opacity:0;overflow:hidden;"
    "mso-hide:all"
)
_PADDING = "&#847;&zwnj;&nbsp;" * 90
