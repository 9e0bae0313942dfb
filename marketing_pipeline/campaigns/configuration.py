"""The operator's file, checked as a whole and named by its digest."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from marketing_pipeline.campaigns import checking, document, meaning, stored, templates
from marketing_pipeline.campaigns.document import Document
from marketing_pipeline.campaigns.meaning import Meaning
from marketing_pipeline.campaigns.schema import PipelineFile
from marketing_pipeline.domain.effect import EffectKind
from marketing_pipeline.domain.template import Template


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """The file as it stands now."""

    document: Document
    file: PipelineFile
    meaning: Meaning
    templates: Mapping[str, Template]  # by hash


def load(path: Path, kinds: Mapping[str, EffectKind]) -> Configuration:
    """Read and check the file; `kinds` says what each adapter can do.

    Raises:
        ConfigError: it names file, line, the value's problem and the remedy.
    """
    source = document.read(path)
    try:
        file = PipelineFile.model_validate(source.value)
    except ValidationError as error:
        raise _first(source, error) from error
    checking.references(source, file, kinds)
    read = templates.load(source, file.templates)
    body = stored.body(file, read, kinds)
    return Configuration(
        document=source,
        file=file,
        meaning=meaning.of(body),
        templates={template.hash: template for template in read.values()},
    )


def _first(source: Document, error: ValidationError) -> document.ConfigError:
    """The first of pydantic's complaints, where the file has it."""
    complaint = error.errors()[0]
    location = tuple(part for part in complaint["loc"] if part != "[key]")
    remedies = {
        "extra_forbidden": "is not known here; check its spelling",
        "missing": "is missing; write it",
    }
    text = remedies.get(complaint["type"], complaint["msg"].removeprefix("Value error, "))
    return source.error(location, text)
