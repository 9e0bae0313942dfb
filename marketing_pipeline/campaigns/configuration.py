"""The operator's file, checked as a whole and named by its digest."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from marketing_pipeline.campaigns import (
    checking,
    complaints,
    document,
    meaning,
    stored,
    templates,
)
from marketing_pipeline.campaigns.document import ConfigError, Document, Problem
from marketing_pipeline.campaigns.meaning import Meaning
from marketing_pipeline.campaigns.schema import PipelineFile, ProviderEntry
from marketing_pipeline.domain.effect import EffectKind
from marketing_pipeline.domain.template import Template


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """The file as it stands now."""

    document: Document
    file: PipelineFile
    meaning: Meaning
    templates: Mapping[str, Template]  # by hash


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """A file, and all that is wrong with it."""

    document: Document
    file: PipelineFile | None  # without what is wrong in it; None: too much is
    templates: Mapping[str, Template]  # by name
    kinds: Mapping[str, EffectKind]
    problems: tuple[Problem, ...]

    @property
    def providers(self) -> Mapping[str, ProviderEntry]:
        """Those of an adapter that there is."""
        every = self.file.providers if self.file else {}
        return {name: entry for name, entry in every.items() if entry.adapter in self.kinds}

    def configuration(self, others: Iterable[Problem] = ()) -> Configuration:
        """What it comes to; `others` are problems that were found elsewhere.

        Raises:
            ConfigError: there are problems; in the order in which they stand in the file.
        """
        problems = [*self.problems, *others]
        if problems or self.file is None:
            main = self.document.path
            raise ConfigError(*sorted(problems, key=lambda one: (one.path != main, one.line)))
        return Configuration(
            document=self.document,
            file=self.file,
            meaning=meaning.of(stored.body(self.file, self.templates, self.kinds)),
            templates={template.hash: template for template in self.templates.values()},
        )


def load(path: Path, kinds: Mapping[str, EffectKind]) -> Configuration:
    """Read and check the file; `kinds` says what each adapter can do.

    Raises:
        ConfigError: each problem names file, line, what is wrong and the remedy.
    """
    return examine(path, kinds).configuration()


def examine(path: Path, kinds: Mapping[str, EffectKind]) -> Examined:
    """Read the file and find all that is wrong with it.

    Raises:
        ConfigError: there is no file, or it is not YAML: nothing else can be said of it.
    """
    source = document.read(path)
    file, problems = _understood(source)
    read: Mapping[str, Template] = {}
    if file is not None:
        problems += checking.references(source, file, kinds)
        try:
            read = templates.load(source, file.templates)
        except ConfigError as error:
            problems += error.problems
    return Examined(
        document=source, file=file, templates=read, kinds=kinds, problems=tuple(problems)
    )


def _understood(source: Document) -> tuple[PipelineFile | None, list[Problem]]:
    """The file, without the entries that are wrong, so that the others can be looked at."""
    problems = list(source.problems)
    try:
        return PipelineFile.model_validate(source.value), problems
    except ValidationError as error:
        told = {problem.where for problem in problems}
        found = complaints.explained(source, PipelineFile, error)
        problems += (problem for problem in found if problem.where not in told)
        rest = _without(source.value, error.errors())
    try:
        return PipelineFile.model_validate(rest), problems
    except ValidationError:
        return None, problems


# Stand in for what is wrong while the rest is looked at.
_STAND_INS: Mapping[str, Any] = {"version": 1, "sender": {"email": "nobody"}, "routes": {}}


def _without(value: Any, complaints: Iterable[ErrorDetails]) -> dict[str, Any]:
    sections = value if isinstance(value, dict) else {}
    rest = {name: dict(one) if isinstance(one, dict) else one for name, one in sections.items()}
    for section, *place in (one["loc"] for one in complaints if one["loc"]):
        entries = rest.get(str(section))
        if place and isinstance(entries, dict) and section not in {"sender", "delivery"}:
            entries.pop(place[0], None)
        else:
            rest.pop(str(section), None)
    return {**_STAND_INS, **rest}
