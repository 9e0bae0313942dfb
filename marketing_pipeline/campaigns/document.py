"""YAML whose every value knows its line, so that errors can point at it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Never

import yaml

from marketing_pipeline.domain.payload import UNSTORABLE

Location = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What is wrong in one place."""

    path: Path
    line: int
    where: str = ""  # campaigns.news.template; empty where the line says it all
    text: str  # what is wrong; what to do

    def __str__(self) -> str:
        where = f"{self.where}: " if self.where else ""
        return f"{self.path}:{self.line}: {where}{self.text}"


class ConfigError(ValueError):
    """The operator's file cannot be used: `FILE:LINE: where: what is wrong; what to do`.

    It carries all `problems` that were found. Its message is the first, which is the whole story
    where there is one, and says how to see the others.
    """

    def __init__(self, *problems: Problem) -> None:
        super().__init__(*problems)
        self.problems = problems

    def __str__(self) -> str:
        first, *more = self.problems
        told = f" ({len(more)} more: see `marketing-pipeline check`)" if more else ""
        return f"{first}{told}"


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed file, where each of its values stands, and what is wrong with it as YAML."""

    path: Path
    value: Any
    lines: dict[Location, int]
    problems: tuple[Problem, ...] = ()

    def problem(self, location: Location, text: str) -> Problem:
        """One that points at a value, or at the nearest one around it that exists."""
        around = location
        while around and around not in self.lines:
            around = around[:-1]
        where = ".".join(str(part) for part in location)
        return Problem(path=self.path, line=self.lines.get(around, 1), where=where, text=text)

    def error(self, location: Location, text: str) -> ConfigError:
        """The same, to be raised."""
        return ConfigError(self.problem(location, text))

    def names(self, at: Location) -> frozenset[str]:
        """The keys that stand in a place, be it right or wrong."""
        found = self.value
        for part in at:
            try:
                found = found[part]
            except (KeyError, IndexError, TypeError):
                return frozenset()
        return frozenset(found) if isinstance(found, dict) else frozenset()


def read(path: Path) -> Document:
    """Parse a YAML file.

    Raises:
        ConfigError: it is not there, or is not YAML.
    """
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except FileNotFoundError as error:
        text = "there is no such file; write one, or name another in MARKETING_CAMPAIGNS"
        raise ConfigError(Problem(path=path, line=1, text=text)) from error
    except (OSError, UnicodeDecodeError) as error:
        text = f"the file cannot be read: {error}; it has to be a text in UTF-8"
        raise ConfigError(Problem(path=path, line=1, text=text)) from error
    except yaml.YAMLError as error:
        _refuse(path, error)
    reading = _Reading(path)
    value = reading.value(node, ()) if node else {}
    return Document(path, value, reading.lines, tuple(reading.problems))


def _refuse(path: Path, error: yaml.YAMLError) -> Never:
    line, said = 1, str(error)
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        line, said = error.problem_mark.line + 1, str(error.problem)
    text = f"not YAML: {said}; mend the indentation, a bracket or a quote near it"
    raise ConfigError(Problem(path=path, line=line, text=text)) from error


@dataclass(slots=True)
class _Reading:
    """Goes through a file and notes where its values stand; what is wrong stops nobody."""

    path: Path
    lines: dict[Location, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    _around: list[yaml.Node] = field(default_factory=list)

    def value(self, node: yaml.Node, at: Location) -> Any:
        self.lines.setdefault(at, node.start_mark.line + 1)  # a key's line is known before
        if any(one is node for one in self._around):
            return self._wrong(node, at, "is part of itself; write it out")
        self._around.append(node)
        try:
            match node:
                case yaml.MappingNode():
                    return self._mapping(node, at)
                case yaml.SequenceNode():
                    return [self.value(item, (*at, n)) for n, item in enumerate(node.value)]
                case _:
                    return self._scalar(node, at)
        finally:
            self._around.pop()

    def _mapping(self, node: yaml.MappingNode, at: Location) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            if key in mapping:
                self._wrong(key_node, (*at, key), "stands twice; keep one of them")
                continue
            self.lines[(*at, key)] = key_node.start_mark.line + 1
            mapping[key] = self.value(value_node, (*at, key))
        return mapping

    def _scalar(self, node: yaml.Node, at: Location) -> Any:
        try:
            value = yaml.SafeLoader("").construct_object(node)
        except (ValueError, yaml.YAMLError):
            return self._wrong(node, at, f"is no {node.tag.rpartition(':')[2]}; put it in quotes")
        if isinstance(value, str) and UNSTORABLE.search(value):
            return self._wrong(node, at, "holds U+0000, which cannot be stored; leave it out")
        return value

    def _wrong(self, node: yaml.Node, at: Location, text: str) -> None:
        where = ".".join(str(part) for part in at)
        line = node.start_mark.line + 1
        self.problems.append(Problem(path=self.path, line=line, where=where, text=text))
