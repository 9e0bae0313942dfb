"""YAML whose every value knows its line, so that errors can point at it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

Location = tuple[str | int, ...]


class ConfigError(ValueError):
    """The operator's file cannot be used: `FILE:LINE: where: what is wrong; what to do`."""


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed file and where each of its values stands."""

    path: Path
    value: Any
    lines: dict[Location, int]

    def error(self, location: Location, problem: str) -> ConfigError:
        """An error that points at a value, or at the nearest one around it that exists."""
        around = location
        while around and around not in self.lines:
            around = around[:-1]
        name = ".".join(str(part) for part in location)
        return ConfigError(f"{self.path}:{self.lines.get(around, 1)}: {name}: {problem}")


def read(path: Path) -> Document:
    """Parse a YAML file.

    Raises:
        ConfigError: it is not there, is not YAML, or gives one key twice.
    """
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path}:1: there is no such file; write one, or name another in MARKETING_CAMPAIGNS"
        ) from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{path}:{line}: not YAML: {error.problem}") from error
    lines: dict[Location, int] = {}
    value = _build(path, node, (), lines) if node else {}
    return Document(path, value, lines)


def _build(path: Path, node: yaml.Node, at: Location, lines: dict[Location, int]) -> Any:
    lines[at] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            if key in mapping:
                line = key_node.start_mark.line + 1
                raise ConfigError(f"{path}:{line}: {key}: stands twice; keep one of them")
            mapping[key] = _build(path, value_node, (*at, key), lines)
            lines[(*at, key)] = key_node.start_mark.line + 1
        return mapping
    if isinstance(node, yaml.SequenceNode):
        return [_build(path, item, (*at, n), lines) for n, item in enumerate(node.value)]
    return yaml.SafeLoader("").construct_object(node)
