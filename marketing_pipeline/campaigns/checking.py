"""What the parts of the operator's file say of each other, checked."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from difflib import get_close_matches

from marketing_pipeline.campaigns.document import Document, Location, Problem
from marketing_pipeline.campaigns.schema import PipelineFile, Step
from marketing_pipeline.domain.effect import EffectKind
from marketing_pipeline.domain.event import EventType

_POSSIBLE = {
    EventType.LEAD_CAPTURE: {EffectKind.CONTACT, EffectKind.EMAIL},
    EventType.CAMPAIGN_TRIGGER: {EffectKind.EMAIL},
    EventType.CONTENT_PUBLISH: {EffectKind.POST},
}


def references(
    source: Document, file: PipelineFile, kinds: Mapping[str, EffectKind]
) -> Iterator[Problem]:
    """All that does not fit together; what is wrong in itself is not in `file` any more."""
    for name, provider in file.providers.items():
        if provider.adapter not in kinds:
            yield source.problem(
                ("providers", name, "adapter"),
                f"there is no adapter {provider.adapter!r}; {suggestion(provider.adapter, kinds)}",
            )
    for type in EventType:
        is_wrong = type not in file.routes and type in source.names(("routes",))
        if not file.routes.get(type) and not is_wrong:
            yield source.problem(
                ("routes", type),
                f"{type} has no route, so such an event would do nothing; give it a step",
            )
    for type, steps in file.routes.items():
        for number, step in enumerate(steps):
            yield from _step(source, file, kinds, ("routes", type, number), type, step)
        yield from _twice(source, ("routes", type), [step.step for step in steps])
    yield from _campaigns(source, file)
    yield from _sequences(source, file)


def _campaigns(source: Document, file: PipelineFile) -> Iterator[Problem]:
    for name, campaign in file.campaigns.items():
        at = ("campaigns", name)
        yield from _unknown(source, (*at, "audience"), campaign.audience, "audiences")
        if campaign.template is not None:
            yield from _unknown(source, (*at, "template"), campaign.template, "templates")
        for variant, entry in (campaign.split.variants if campaign.split else {}).items():
            place = (*at, "split", "variants", variant, "template")
            yield from _unknown(source, place, entry.template, "templates")


def _sequences(source: Document, file: PipelineFile) -> Iterator[Problem]:
    for name, sequence in file.sequences.items():
        at = ("sequences", name)
        if name in source.names(("campaigns",)):
            yield source.problem(at, "a campaign has this name too; rename one of them")
        for field, audience in (
            ("audience", sequence.audience),
            ("stop_when", sequence.stop_when),
        ):
            if audience is None:
                continue
            yield from _unknown(source, (*at, field), audience, "audiences")
            if audience in file.audiences and file.audiences[audience].newest is not None:
                yield source.problem(
                    (*at, field),
                    f"{audience!r} is the newest so many, which a single person cannot be "
                    "told to be; name an audience without `newest`",
                )
        for number, step in enumerate(sequence.steps):
            place = (*at, "steps", number, "template")
            yield from _unknown(source, place, step.template, "templates")
        yield from _twice(source, (*at, "steps"), [step.step for step in sequence.steps])


def _step(
    source: Document,
    file: PipelineFile,
    kinds: Mapping[str, EffectKind],
    at: Location,
    type: EventType,
    step: Step,
) -> Iterator[Problem]:
    yield from _unknown(source, (*at, "provider"), step.provider, "providers")
    if step.template is not None:
        yield from _unknown(source, (*at, "template"), step.template, "templates")
    provider = file.providers.get(step.provider)
    kind = kinds.get(provider.adapter) if provider else None
    if kind is None:
        return
    if kind not in _POSSIBLE[type]:
        possible = " or ".join(sorted(_POSSIBLE[type]))
        yield source.problem(
            (*at, "provider"),
            f"{step.provider!r} takes a {kind}, and {type} makes {possible}; name another provider",
        )
        return
    own_template = kind is EffectKind.EMAIL and type is EventType.LEAD_CAPTURE
    if own_template and step.template is None:
        yield source.problem(at, "an e-mail needs `template: NAME`")
    if step.template is not None and not own_template:
        yield source.problem((*at, "template"), "is not used here; leave it out")
    if step.properties and kind is not EffectKind.CONTACT:
        yield source.problem((*at, "properties"), "belong to a contact; leave them out")
    if step.once is not None and kind is EffectKind.POST:
        yield source.problem((*at, "once"), "a post has no recipient; leave it out")


def _twice(source: Document, at: Location, names: Collection[str]) -> Iterator[Problem]:
    if len(set(names)) < len(names):
        yield source.problem(at, "two steps share a name; rename one")


def _unknown(source: Document, at: Location, name: str, section: str) -> Iterator[Problem]:
    known = source.names((section,))
    if name not in known:
        yield source.problem(at, f"{name!r} is not in the file; {suggestion(name, known)}")


def suggestion(name: str, known: Iterable[str]) -> str:
    """What may have been meant, and what there is."""
    names = sorted(known)
    near = nearest(name, names)
    meant = f"did you mean {near!r}? " if near else ""
    return f"{meant}it has: {', '.join(names) or 'none'}"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The name that is spelled most like it, in whatever case; None: none is."""
    folded = {one.casefold(): one for one in sorted(known)}
    return next((folded[one] for one in get_close_matches(name.casefold(), folded, n=1)), None)
