"""The operator's file, checked as a whole and named by its digest."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from marketing_pipeline.campaigns import document, rendering, templates
from marketing_pipeline.campaigns.document import Document
from marketing_pipeline.campaigns.rendering import Sender
from marketing_pipeline.campaigns.schema import PipelineFile, Step
from marketing_pipeline.domain import digest
from marketing_pipeline.domain.audience import Audience
from marketing_pipeline.domain.effect import EffectKind
from marketing_pipeline.domain.event import EventType
from marketing_pipeline.domain.plan import Campaign, Once, Priority, Route, Rules, TemplateRef
from marketing_pipeline.domain.template import Template


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """What a version of the file means for plans and renderings.

    `body` is its JSON form without secrets: what the log keeps under `rules.digest`, and what
    `meaning` makes the same value of again, years later.
    """

    body: Mapping[str, Any]
    rules: Rules
    sender: Sender


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
    _check_references(source, file, kinds)
    read = templates.load(source, file.templates)
    body = _body(file, read, kinds)
    return Configuration(
        document=source,
        file=file,
        meaning=meaning(body),
        templates={template.hash: template for template in read.values()},
    )


def meaning(body: Mapping[str, Any]) -> Meaning:
    """What a stored version meant."""
    refs = {
        name: TemplateRef(hash=entry["hash"], reads=tuple(entry["reads"]))
        for name, entry in body["templates"].items()
    }
    rules = Rules(
        digest=digest.fingerprint(body),
        routes={
            EventType(type): tuple(_route(step, refs) for step in steps)
            for type, steps in body["routes"].items()
        },
        campaigns={
            name: Campaign(
                audience=_audience(body["audiences"][entry["audience"]]),
                template=refs[entry["template"]],
            )
            for name, entry in body["campaigns"].items()
        },
    )
    return Meaning(body=body, rules=rules, sender=Sender(**body["sender"]))


def _route(step: Mapping[str, Any], refs: Mapping[str, TemplateRef]) -> Route:
    return Route(
        step=step["step"],
        provider=step["provider"],
        kind=EffectKind(step["kind"]),
        priority=Priority[step["priority"].upper()],
        template=refs[step["template"]] if step["template"] else None,
        properties=step["properties"],
        once=_once(step.get("once")),
        max_age=_seconds(step.get("max_age")),
    )


def _once(stored: Mapping[str, Any] | None) -> Once | None:
    return None if stored is None else Once(within=_seconds(stored["within"]))


def _seconds(stored: float | None) -> timedelta | None:
    return None if stored is None else timedelta(seconds=stored)


def _audience(entry: Mapping[str, Any]) -> Audience:
    return Audience(
        sources=frozenset(entry["sources"]), where=entry["where"], newest=entry["newest"]
    )


def _body(
    file: PipelineFile, templates: Mapping[str, Template], kinds: Mapping[str, EffectKind]
) -> Mapping[str, Any]:
    """Only what a plan or a rendering depends on: a changed limit makes no new version."""
    whole = file.model_dump(mode="json", include={"sender", "audiences", "campaigns"})
    return whole | {
        "providers": {
            name: {"adapter": entry.adapter, "options": _public(entry.options)}
            for name, entry in file.providers.items()
        },
        "routes": {
            str(type): [_step(step, kinds[file.providers[step.provider].adapter]) for step in steps]
            for type, steps in file.routes.items()
        },
        "templates": {
            name: {"hash": template.hash, "reads": list(rendering.reads(template))}
            for name, template in templates.items()
        },
    }


def _step(step: Step, kind: EffectKind) -> Mapping[str, Any]:
    """As it is stored: durations in seconds, and only what was said beyond the first version."""
    stored = step.model_dump(mode="json", exclude={"once", "max_age"}) | {"kind": str(kind)}
    if step.once is not None:
        within = step.once.within
        stored["once"] = {"within": within.total_seconds() if within else None}
    age = step.max_age or _MAX_AGE.get(kind)
    if age is not None and age != "never":
        stored["max_age"] = age.total_seconds()
    return stored


# Old mail does more harm than good; what a CRM is told late is still right.
_MAX_AGE = {EffectKind.EMAIL: timedelta(hours=24), EffectKind.POST: timedelta(hours=24)}


def _public(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if not is_secret(value)}


def is_secret(value: object) -> bool:
    """Secrets stand in the file as the name of an environment variable: `{env: NAME}`."""
    return isinstance(value, dict) and set(value) == {"env"}


def _check_references(
    source: Document, file: PipelineFile, kinds: Mapping[str, EffectKind]
) -> None:
    for name, provider in file.providers.items():
        if provider.adapter not in kinds:
            raise source.error(
                ("providers", name, "adapter"),
                f"there is no adapter {provider.adapter!r}; known: {', '.join(sorted(kinds))}",
            )
    for type in EventType:
        if not file.routes.get(type):
            raise source.error(
                ("routes", type),
                f"{type} has no route, so such an event would do nothing; give it a step",
            )
    for type, steps in file.routes.items():
        for number, step in enumerate(steps):
            _check_step(source, file, kinds, ("routes", type, number), type, step)
        names = [step.step for step in steps]
        if len(set(names)) < len(names):
            raise source.error(("routes", type), "two steps share a name; rename one")
    for name, campaign in file.campaigns.items():
        _must_be_one_of(source, ("campaigns", name, "audience"), campaign.audience, file.audiences)
        _must_be_one_of(source, ("campaigns", name, "template"), campaign.template, file.templates)


_POSSIBLE = {
    EventType.LEAD_CAPTURE: {EffectKind.CONTACT, EffectKind.EMAIL},
    EventType.CAMPAIGN_TRIGGER: {EffectKind.EMAIL},
    EventType.CONTENT_PUBLISH: {EffectKind.POST},
}


def _check_step(
    source: Document,
    file: PipelineFile,
    kinds: Mapping[str, EffectKind],
    at: tuple[str | int, ...],
    type: EventType,
    step: Any,
) -> None:
    _must_be_one_of(source, (*at, "provider"), step.provider, file.providers)
    kind = kinds[file.providers[step.provider].adapter]
    if kind not in _POSSIBLE[type]:
        possible = " or ".join(sorted(_POSSIBLE[type]))
        raise source.error(
            (*at, "provider"),
            f"{step.provider!r} takes a {kind}, and {type} makes {possible}; name another provider",
        )
    own_template = kind is EffectKind.EMAIL and type is EventType.LEAD_CAPTURE
    if own_template and step.template is None:
        raise source.error(at, "an e-mail needs `template: NAME`")
    if step.template is not None:
        if not own_template:
            raise source.error((*at, "template"), "is not used here; leave it out")
        _must_be_one_of(source, (*at, "template"), step.template, file.templates)
    if step.properties and kind is not EffectKind.CONTACT:
        raise source.error((*at, "properties"), "belong to a contact; leave them out")
    if step.once is not None and kind is EffectKind.POST:
        raise source.error((*at, "once"), "a post has no recipient; leave it out")


def _must_be_one_of(
    source: Document, at: tuple[str | int, ...], name: str, known: Mapping[str, object]
) -> None:
    if name not in known:
        names = ", ".join(sorted(known)) or "none"
        raise source.error(at, f"{name!r} is not in the file; it has: {names}")


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
