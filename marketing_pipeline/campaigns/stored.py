"""The form in which the log keeps a version of the operator's file, under its digest."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from marketing_pipeline.campaigns import rendering
from marketing_pipeline.campaigns.mailings import AudienceEntry, CampaignEntry, SequenceEntry
from marketing_pipeline.campaigns.meaning import Stored
from marketing_pipeline.campaigns.schema import PipelineFile, Step
from marketing_pipeline.domain.effect import EffectKind
from marketing_pipeline.domain.template import Template


def body(
    file: PipelineFile, templates: Mapping[str, Template], kinds: Mapping[str, EffectKind]
) -> Stored:
    """Only what a plan or a rendering depends on: a changed limit makes no new version.

    What nobody says is not in it, so that a file that says no more than before is the same version.
    """
    stored: dict[str, Any] = {
        "sender": file.sender.model_dump(mode="json"),
        "audiences": {name: _stored_audience(one) for name, one in file.audiences.items()},
        "campaigns": {name: _stored_campaign(one) for name, one in file.campaigns.items()},
        "providers": {
            name: {"adapter": entry.adapter, "options": _public(entry.options)}
            for name, entry in file.providers.items()
        },
        "routes": {
            str(type): [
                _stored_step(step, kinds[file.providers[step.provider].adapter]) for step in steps
            ]
            for type, steps in file.routes.items()
        },
        "templates": {
            name: {"hash": template.hash, "reads": list(rendering.reads(template))}
            for name, template in templates.items()
        },
    }
    if file.sequences:
        stored["sequences"] = {n: _stored_sequence(one) for n, one in file.sequences.items()}
    return stored


def _stored_audience(entry: AudienceEntry) -> Stored:
    stored: dict[str, Any] = {
        "sources": list(entry.sources),
        "where": entry.model_dump(mode="json")["where"],
        "newest": entry.newest,
    }
    tags = entry.tags.model_dump(mode="json", exclude_defaults=True)
    said = {
        "consent": list(entry.consent),
        "tags": tags,
        "did": {str(name): _total(within) for name, within in entry.did.items()},
        "did_not": {str(name): _total(within) for name, within in entry.did_not.items()},
    }
    return stored | {name: value for name, value in said.items() if value}


def _stored_campaign(entry: CampaignEntry) -> Stored:
    stored: dict[str, Any] = {"audience": entry.audience}
    if entry.template is not None:
        stored["template"] = entry.template
    if (split := entry.split) is not None:
        stored["split"] = {
            "salt": split.salt,
            "holdout": split.holdout,
            "variants": [
                {"name": name, "template": split.variants[name].template, "share": share}
                for name, share in split.shares().items()
            ],
        }
    if entry.throttle is not None:
        stored["pace"] = (entry.throttle.per / entry.throttle.calls).total_seconds()
    if entry.priority is not None:
        stored["priority"] = entry.priority
    if entry.approve:
        stored["approve"] = True
    return stored


def _stored_sequence(entry: SequenceEntry) -> Stored:
    return {
        "on": str(entry.on),
        "audience": entry.audience,
        "stop_when": entry.stop_when,
        "steps": [
            {"step": one.step, "after": one.after.total_seconds(), "template": one.template}
            for one in entry.steps
        ],
        "priority": entry.priority,
    }


def _stored_step(step: Step, kind: EffectKind) -> Stored:
    """Durations in seconds, and only what was said beyond the first version."""
    stored = step.model_dump(mode="json", exclude={"once", "max_age"}) | {"kind": str(kind)}
    if step.once is not None:
        stored["once"] = {"within": _total(step.once.within)}
    age = step.max_age or _MAX_AGE.get(kind)
    if age is not None and age != "never":
        stored["max_age"] = age.total_seconds()
    return stored


def _total(within: timedelta | None) -> float | None:
    return None if within is None else within.total_seconds()


# Old mail does more harm than good; what a CRM is told late is still right.
_MAX_AGE = {EffectKind.EMAIL: timedelta(hours=24), EffectKind.POST: timedelta(hours=24)}


def _public(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if not is_secret(value)}


def is_secret(value: object) -> bool:
    """Secrets stand in the file as the name of an environment variable: `{env: NAME}`."""
    return isinstance(value, dict) and set(value) == {"env"}
