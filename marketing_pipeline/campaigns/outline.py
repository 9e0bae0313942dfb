"""Looks over the tags of an MJML file before the compiler does, which says no line."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html.parser import HTMLParser

_TAG = re.compile(  # MJML's own
    "mj-(accordion(-element|-text|-title)?|all|attributes|body|breakpoint|button|carousel(-image)?"
    "|class|column|divider|font|group|head|hero|image|include|navbar(-link)?|preview|raw|section"
    "|social(-element)?|spacer|style|table|text|title|wrapper)"
)
_VOID = re.compile(  # HTML's own
    "area|base|br|col|embed|hr|img|input|link|meta|param|source|track|wbr"
)
_ATTRIBUTE = r"""\s+[^\s"'<>/=]+\s*=\s*(?:"[^"]*"|'[^']*')"""
_START = re.compile(rf"<[a-z][\w:-]*(?:{_ATTRIBUTE})*\s*/?>", re.IGNORECASE)


class Fault(ValueError):
    """A tag is wrong; says why, and `line` where."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(problem)
        self.line = line


@dataclass(frozen=True, slots=True, kw_only=True)
class Include:
    """An `mj-include` and where it stands."""

    path: str
    type: str | None
    line: int


def check(source: str) -> Sequence[Include]:
    """What a whole MJML file includes.

    Raises:
        Fault: a tag is unknown, never closed, or not written as MJML wants it.
    """
    tags = _read(source)
    if tags.first != "mjml":
        raise Fault(1, "is not MJML: it has to start with <mjml>; or name it with `html:`")
    return tags.includes


def check_part(source: str) -> None:
    """As `check`, of a file that is included.

    Raises:
        Fault: as `check`; or it includes another one, which could go round in circles.
    """
    for one in _read(source).includes:
        raise Fault(one.line, "is included and includes another file; include that one above it")


def _read(source: str) -> "_Tags":
    tags = _Tags()
    tags.feed(source)
    tags.close()
    if tags.open:
        name, line = tags.open[-1]
        raise Fault(line, f"<{name}> is never closed; write </{name}>")
    return tags


class _Tags(HTMLParser):
    """Keeps the tags that are open, and fails at the first that is wrong."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)
        self.first: str | None = None
        self.open: list[tuple[str, int]] = []
        self.includes: list[Include] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._seen(tag, dict(attrs))
        if not _VOID.fullmatch(tag):
            self.open.append((tag, self._line))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._seen(tag, dict(attrs))

    def handle_endtag(self, tag: str) -> None:
        if not self.open:
            raise Fault(self._line, f"</{tag}> closes nothing; take it out")
        name, line = self.open.pop()
        if name != tag:
            raise Fault(
                line, f"<{name}> is closed by </{tag}> in line {self._line}; close it first"
            )

    def handle_data(self, data: str) -> None:
        if "<" in data:
            raise Fault(self._line + data[: data.index("<")].count("\n"), "has a < ; write &lt;")

    def _seen(self, tag: str, attributes: dict[str, str | None]) -> None:
        self.first = self.first or tag
        written = self.get_starttag_text() or ""
        if tag.startswith("mj-") and not _TAG.fullmatch(tag):
            raise Fault(self._line, f"there is no <{tag}>; see documentation.mjml.io")
        if tag.startswith("mj") and not written.startswith(f"<{tag}"):
            raise Fault(self._line, f"<{tag}> has capitals; write it in small letters")
        if not _START.fullmatch(written):
            raise Fault(self._line, f'<{tag}> has an attribute that is not written as name="value"')
        if tag == "mj-include":
            self._include(attributes)

    def _include(self, attributes: dict[str, str | None]) -> None:
        path, type = attributes.get("path"), attributes.get("type")
        if not path:
            raise Fault(self._line, '<mj-include> names no file; write path="FILE"')
        in_head = any(name == "mj-head" for name, _ in self.open)
        if type not in {None, "css" if in_head else "html"}:
            raise Fault(self._line, f'<mj-include type="{type}"> cannot stand here; leave type out')
        self.includes.append(Include(path=path, type=type, line=self._line))

    @property
    def _line(self) -> int:
        return self.getpos()[0]
