"""What the parts of the operator's file say of each other, checked."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from marketing_pipeline.campaigns.document import Document
from marketing_pipeline.campaigns.schema import PipelineFile
from marketing_pipeline.domain.effect import EffectKind
from marketing_pipeline.domain.event import EventType


def references(source: Document, file: PipelineFile, kinds: Mapping[str, EffectKind]) -> None:
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
    _check_campaigns(source, file)
    _check_sequences(source, file)


def _check_campaigns(source: Document, file: PipelineFile) -> None:
    for name, campaign in file.campaigns.items():
        at = ("campaigns", name)
        _must_be_one_of(source, (*at, "audience"), campaign.audience, file.audiences)
        if campaign.template is not None:
            _must_be_one_of(source, (*at, "template"), campaign.template, file.templates)
        for variant, entry in (campaign.split.variants if campaign.split else {}).items():
            place = (*at, "split", "variants", variant, "template")
            _must_be_one_of(source, place, entry.template, file.templates)


def _check_sequences(source: Document, file: PipelineFile) -> None:
    for name, sequence in file.sequences.items():
        at = ("sequences", name)
        if name in file.campaigns:
            raise source.error(at, "a campaign has this name too; rename one of them")
        for field, audience in (
            ("audience", sequence.audience),
            ("stop_when", sequence.stop_when),
        ):
            if audience is not None:
                _must_be_one_of(source, (*at, field), audience, file.audiences)
                if file.audiences[audience].newest is not None:
                    raise source.error(
                        (*at, field),
                        f"{audience!r} is the newest so many, which a single person cannot be "
                        "told to be; name an audience without `newest`",
                    )
        for number, step in enumerate(sequence.steps):
            place = (*at, "steps", number, "template")
            _must_be_one_of(source, place, step.template, file.templates)
        names = [step.step for step in sequence.steps]
        if len(set(names)) < len(names):
            raise source.error((*at, "steps"), "two steps share a name; rename one")


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
        raise source.error(at, f"{name!r} is not in the file; {suggestion(name, known)}")


def suggestion(name: str, known: Iterable[str]) -> str:
    """What may have been meant, and what there is."""
    names = sorted(known)
    near = get_close_matches(name, names, n=1)
    meant = f"did you mean {near[0]!r}? " if near else ""
    return f"{meant}it has: {', '.join(names) or 'none'}"
