"""What a stored version of the operator's file meant, it means when it is read back."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from marketing_pipeline.campaigns import meaning, rendering, stored
from marketing_pipeline.campaigns.schema import PipelineFile
from marketing_pipeline.domain.payload import UNSTORABLE
from marketing_pipeline.domain.person import Behaviour
from marketing_pipeline.providers import registry

Strategy = st.SearchStrategy[Any]

names = st.from_regex(r"[a-z][a-z0-9_]{0,5}", fullmatch=True)
texts = st.text(max_size=8).filter(lambda text: not UNSTORABLE.search(text))
durations = st.builds(
    "{}{}".format, st.integers(1, 400) | st.sampled_from([0.1, 1.5]), st.sampled_from("smhd")
)
shares = st.integers(0, 99).map("{}%".format) | st.floats(0, 0.99)
numbers = st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(-1e15, 1e15)
values = texts | numbers | st.booleans()
behaviours = st.dictionaries(
    st.sampled_from([str(one) for one in Behaviour]), durations | st.just("ever"), max_size=3
)
priorities = st.sampled_from(["urgent", "normal", "bulk"])


def some(**fields: Strategy) -> Strategy:
    """A mapping in which each of these may be left out."""
    return st.fixed_dictionaries({}, optional=fields)


audiences = some(
    sources=st.lists(texts, max_size=3) | texts,
    where=st.dictionaries(texts, values | st.lists(values, max_size=3), max_size=3),
    consent=st.lists(texts, max_size=2),
    tags=some(all=st.lists(texts), any=st.lists(texts), none=texts),
    did=behaviours,
    did_not=behaviours,
)
schedules = st.sampled_from(
    [
        {"cron": "0 9 1 * *", "timezone": "Europe/Berlin"},
        {"at": "2030-03-20T08:30", "timezone": "UTC", "missed": {"policy": "drop"}},
    ]
)


@st.composite
def files(draw: st.DrawFn) -> dict[str, Any]:
    """Files that say all that can be said of whom to mail what, and when."""
    templates = draw(st.lists(names, min_size=1, max_size=3, unique=True))
    known = draw(st.dictionaries(names, audiences, min_size=1, max_size=3))
    audience, template = st.sampled_from(sorted(known)), st.sampled_from(templates)
    variants = st.dictionaries(names, st.builds(dict, template=template), min_size=1, max_size=3)
    split = st.fixed_dictionaries(
        {"variants": variants}, optional={"holdout": shares, "salt": texts}
    )
    common = {
        "schedule": schedules,
        "throttle": st.fixed_dictionaries({"calls": st.integers(1, 1000), "per": durations}),
        "priority": priorities,
        "approve": st.booleans(),
    }
    one = st.fixed_dictionaries({"audience": audience, "template": template}, optional=common)
    several = st.fixed_dictionaries({"audience": audience, "split": split}, optional=common)
    step = st.fixed_dictionaries({"step": names, "after": st.just("3d"), "template": template})
    sequence = st.fixed_dictionaries(
        {"steps": st.lists(step, min_size=1, max_size=3)},
        optional={"audience": audience, "stop_when": audience, "priority": priorities},
    )
    once = st.sampled_from(["event", "recipient", "recipient/30d"])
    welcome = st.fixed_dictionaries(
        {"step": st.just("welcome"), "provider": st.just("mail"), "template": template},
        optional={"once": once, "max_age": durations | st.just("never"), "priority": priorities},
    )
    return {
        "version": 1,
        "sender": {"email": "hello@example.com", "name": draw(st.none() | texts)},
        "providers": {
            "mail": {
                "adapter": "resend",
                "api_key": {"env": "KEY"},
                "limits": [{"calls": 1, "per": "1s"}],
            }
        },
        "routes": {"LEAD_CAPTURE": [draw(welcome)]},
        "templates": {name: {"subject": "s", "html": "f"} for name in templates},
        "audiences": known,
        "campaigns": draw(st.dictionaries(names, one | several, max_size=3)),
        "sequences": draw(st.dictionaries(names, sequence, max_size=2)),
    }


def body_of(said: dict[str, Any]) -> meaning.Stored:
    file = PipelineFile.model_validate(said)
    templates = {
        name: rendering.template(name, entry.subject, "{{ first_name }}{{ company }}")
        for name, entry in file.templates.items()
    }
    return stored.body(file, templates, registry.KINDS)


@given(files())
def test_a_stored_file_means_the_same_when_it_is_read_back(said: dict[str, Any]) -> None:
    """Through JSON, and with an object's members in another order: jsonb keeps none."""
    body = body_of(said)
    read = json.loads(json.dumps(body, sort_keys=True))
    assert meaning.of(read) == meaning.of(body)


@given(files(), st.data())
def test_another_order_of_names_is_the_same_version(
    said: dict[str, Any], data: st.DataObject
) -> None:
    """All but the order of steps and of variants' shares is no more than how a file is written."""
    again = {
        section: dict(data.draw(st.permutations(list(entries.items()))))
        if section in {"audiences", "campaigns", "sequences", "templates"}
        else entries
        for section, entries in said.items()
    }
    assert meaning.of(body_of(again)).rules == meaning.of(body_of(said)).rules


@given(files())
def test_no_secret_is_in_what_is_stored(said: dict[str, Any]) -> None:
    assert body_of(said)["providers"] == {"mail": {"adapter": "resend", "options": {}}}


def test_what_was_said_otherwise_is_another_version() -> None:
    """The properties above would hold of a body that says nothing, too."""
    said: dict[str, Any] = {
        "version": 1,
        "sender": {"email": "a@example.com"},
        "providers": {
            "mail": {"adapter": "resend", "limits": [{"calls": 1, "per": "1s"}]},
        },
        "routes": {},
        "templates": {"t": {"subject": "s", "html": "f"}},
        "audiences": {"a": {}},
        "campaigns": {"c": {"audience": "a", "template": "t"}},
    }
    campaign = said["campaigns"]["c"]
    variants = {"v": {"template": "t"}}
    step = {"step": "s", "after": "1d", "template": "t"}
    others = [
        said | {"audiences": {"a": audience}}
        for audience in (
            {"sources": "x"}, {"where": {"x": 1}}, {"where": {"x": [1]}}, {"consent": "x"},
            {"tags": {"all": "x"}}, {"tags": {"any": "x"}}, {"tags": {"none": "x"}},
            {"did": {"opened": "1d"}}, {"did": {"opened": "ever"}}, {"did_not": {"opened": "1d"}},
            {"newest": 1},
        )
    ] + [
        said | {"campaigns": {"c": campaign | more}}
        for more in (
            {"priority": "bulk"}, {"approve": True}, {"throttle": {"calls": 1, "per": "1s"}},
        )
    ] + [
        said | {"campaigns": {"c": {"audience": "a", "split": {"variants": variants} | more}}}
        for more in ({}, {"holdout": "10%"}, {"salt": "x"})
    ] + [
        said | {"sequences": {"q": {"steps": [step]} | more}}
        for more in ({}, {"audience": "a"}, {"stop_when": "a"}, {"priority": "bulk"})
    ]  # fmt: skip
    digests = {meaning.of(body_of(one)).rules.digest for one in (said, *others)}
    assert len(digests) == 1 + len(others)
