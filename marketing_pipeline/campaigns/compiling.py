"""MJML to HTML, once, when the file is read: what is kept and hashed is the HTML."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import jinja2
import mjml

from marketing_pipeline.campaigns import outline, rendering
from marketing_pipeline.campaigns.document import ConfigError, Problem
from marketing_pipeline.campaigns.outline import Fault, Include

_POSITION = re.compile(r" in (?:root template|template from .*?)(?: at position (\d+):\d+)?$")
_STAND_IN = re.compile(r"jinja(\d+)z")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Code:
    """A Jinja expression, block or comment of a file."""

    file: Path
    line: int
    text: str

    @property
    def is_comment(self) -> bool:
        return self.text.startswith("{#")


@dataclass(frozen=True, slots=True)
class _Stage:
    """Takes Jinja off the stage while MJML is compiled, and brings it back.

    MJML is XML-like: `{% if age < 18 %}` or quotes in an attribute would break it. A word stands
    in for each piece, and lines stay where they are, so that errors point at the operator's file.
    """

    codes: list[_Code] = field(default_factory=list)

    def masked(self, file: Path, source: str) -> str:
        done: list[str] = []
        lines = 1  # on which `done` ends
        try:
            for line, is_code, text in _pieces(source):
                done.append("\n" * (line - lines))
                done.append(self._stand_in(file, line, text) if is_code else text)
                lines = max(lines, line) + done[-1].count("\n")
        except jinja2.TemplateSyntaxError as error:
            raise _error(file, error.lineno, f"is not Jinja: {error.message}; mend it") from error
        return "".join(done)

    def _stand_in(self, file: Path, line: int, text: str) -> str:
        self.codes.append(_Code(file=file, line=line, text=text))
        return f"jinja{len(self.codes) - 1}z"

    def restored(self, html: str) -> str:
        kept = {int(found) for found in _STAND_IN.findall(html)}
        for number, code in enumerate(self.codes):
            if number not in kept and not code.is_comment:
                raise _error(
                    code.file,
                    code.line,
                    f"{code.text} gets lost: MJML counts with the value there, or does not use it; "
                    "write the value itself",
                )
        return _STAND_IN.sub(lambda found: self.codes[int(found[1])].text, html)


def compiled(path: Path, folder: Path) -> str:
    """The HTML of an MJML file, its Jinja untouched; it may include files of the folder.

    Raises:
        ConfigError: it is not MJML, or includes what it must not.
        FileNotFoundError: there is no such file.
    """
    stage = _Stage()
    source = stage.masked(path, path.read_text(encoding="utf-8"))
    try:
        includes = outline.check(source)
    except Fault as fault:
        raise _error(path, fault.line, str(fault)) from fault
    once = {one.path: one for one in includes}
    included = {name: _included(stage, one, path, folder) for name, one in once.items()}
    return rendering.KEEPS_RULES + stage.restored(_html(path, source, included))


def _html(path: Path, source: str, included: Mapping[str, str]) -> str:
    def include(path: str) -> str:
        return included[path]

    try:
        return mjml.mjml2html(source, include_loader=include)
    except ValueError as error:
        found = _POSITION.search(str(error))
        position = int(found[1]) if found and found[1] and "root" in found[0] else 0
        line = source.encode()[:position].count(b"\n") + 1
        problem = _POSITION.sub("", str(error))
        raise _error(path, line, f"is not MJML: {problem}; see documentation.mjml.io") from error


def _included(stage: _Stage, one: Include, path: Path, folder: Path) -> str:
    """What a file includes, from the operator's folder and from nowhere else."""
    if re.match(r"[a-z][a-z0-9+.-]*:|//", one.path, re.IGNORECASE):
        raise _error(
            path, one.line, f"includes {one.path}, which is not here; keep a copy beside this file"
        )
    target = (path.parent / one.path).resolve()
    if not target.is_relative_to(folder.resolve()):
        raise _error(
            path, one.line, f"includes {one.path}, which is outside {folder}; keep a copy in it"
        )
    try:
        source = stage.masked(target, target.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise _error(
            path, one.line, f"includes {one.path}, which cannot be read: {error}; mend it"
        ) from error
    if one.type != "css":
        try:
            outline.check_part(source)
        except Fault as fault:
            raise _error(target, fault.line, str(fault)) from fault
    return source


def _pieces(source: str) -> Iterator[tuple[int, bool, str]]:
    """The line, whether it is Jinja, and the text of each piece of a file in turn."""
    held: list[str] = []  # of an expression, block or comment that has not ended yet
    start = 1
    for line, kind, text in rendering.tokens(source):
        if not held and kind.endswith("_begin") and kind != "raw_begin":
            start = line
            held.append(text)
        elif held:
            held.append(text)
            if kind in {"variable_end", "block_end", "comment_end"}:
                yield start, True, "".join(held)
                held.clear()
        else:
            yield line, kind in {"raw_begin", "raw_end"}, text


def _error(path: Path, line: int, problem: str) -> ConfigError:
    return ConfigError(Problem(path=path, line=line, text=problem))
