"""The operator's file: each mistake is told with its line and what to write, and all at once."""

import math
import tempfile
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from marketing_pipeline import settings
from marketing_pipeline.campaigns import configuration, document
from marketing_pipeline.campaigns.document import ConfigError
from marketing_pipeline.delivery import assembly
from marketing_pipeline.providers import registry
from marketing_pipeline_tests.pipeline import CHECKOUT

DEMO = "03a61db4af55b067bdf0814eb676cf02f8bb89c7fe62152fbcdfbef7cb36998b"  # before the first split

HEAD = """\
version: 1
sender: {email: hello@example.com}
providers:
  crm: {adapter: hubspot, token: {env: CRM_TOKEN}, limits: [{calls: 10, per: 1s}]}
  mail: {adapter: resend, api_key: {env: MAIL_KEY}, limits: [{calls: 10, per: 1s}]}
  site: {adapter: webhook, url: "https://www.example.com/hook", limits: [{calls: 10, per: 1s}]}
routes:
  LEAD_CAPTURE: [{step: contact, provider: crm}]
  CONTENT_PUBLISH: [{step: post, provider: site}]
  CAMPAIGN_TRIGGER: [{step: mail, provider: mail}]
templates:
  news: {subject: News, html: news.html}
audiences:
  everybody: {}
  newest: {newest: 5}
"""


def problems(folder: Path, text: str) -> list[str]:
    """All that is said of a file, without its folder's name; none where it is in order."""
    (folder / "news.html").write_text("<p>Hello {{ first_name }}</p>")
    file = folder / "pipeline.yaml"
    file.write_text(text, encoding="utf-8")
    try:
        assembly.assemble(
            settings.read({"MARKETING_HOME": str(folder), "MARKETING_CAMPAIGNS": "pipeline.yaml"})
        )
    except ConfigError as error:
        return [str(one).replace(f"{folder}/", "") for one in error.problems]
    return []


def said_of(folder: Path, addition: str) -> str:
    """The only problem of a file that has this at its end."""
    [problem] = problems(folder, HEAD + addition)
    return problem


def test_a_file_in_order_has_no_problems(tmp_path: Path) -> None:
    assert problems(tmp_path, HEAD) == []


def campaign(said: str) -> str:
    return f"campaigns:\n  c: {{audience: everybody, template: news, {said}}}\n"


@pytest.mark.parametrize(
    ("addition", "problem"),
    [
        (
            campaign("priorty: bulk"),
            "pipeline.yaml:17: campaigns.c.priorty: is not known here; did you mean 'priority'? "
            "it has: approval_life, approve, audience, priority, schedule, split, template, "
            "throttle",
        ),
        (
            campaign("priority: Bulk"),
            "pipeline.yaml:17: campaigns.c.priority: is none of urgent, normal, bulk; write bulk",
        ),
        (
            campaign("approve: perhaps"),
            "pipeline.yaml:17: campaigns.c.approve: is neither true nor false; write one of them",
        ),
        (
            campaign("throttle: {calls: 5, per: 1 sec}"),
            "pipeline.yaml:17: campaigns.c.throttle.per: '1 sec' is no duration; write a number "
            "and ms, s, m, h or d: 10s",
        ),
        (
            campaign("throttle: {calls: 5, per: 99999999999d}"),
            "pipeline.yaml:17: campaigns.c.throttle.per: is longer than a hundred years; write "
            "36500d or less",
        ),
        (
            campaign("throttle: {calls: many, per: 1s}"),
            "pipeline.yaml:17: campaigns.c.throttle.calls: is no whole number; write one",
        ),
        (
            campaign("throttle: {calls: 0, per: 1s}"),
            "pipeline.yaml:17: campaigns.c.throttle.calls: is too small; write more than 0",
        ),
        (
            campaign("throttle: 5"),
            "pipeline.yaml:17: campaigns.c.throttle: has no keys of its own; write key: value "
            "below it",
        ),
        (
            campaign("schedule: {cron: 0 9 1 * *, timezone: Europe/Berln}"),
            "pipeline.yaml:17: campaigns.c.schedule.timezone: 'Europe/Berln' is unknown: write an "
            "IANA name, such as Europe/Berlin",
        ),
        (
            campaign("schedule: {at: soon, timezone: Europe/Berlin}"),
            "pipeline.yaml:17: campaigns.c.schedule.at: is no local time; write 2030-12-01T09:00",
        ),
        (
            campaign("schedule: {at: 2030-12-01T09:00, timezone: UTC, dst: shfit}"),
            "pipeline.yaml:17: campaigns.c.schedule.dst: is none of skip, shift, once; write shift",
        ),
        (
            "campaigns:\n  c: {audience: everybodi, template: news}\n",
            "pipeline.yaml:17: campaigns.c.audience: 'everybodi' is not in the file; "
            "did you mean 'everybody'? it has: everybody, newest",
        ),
        (
            "campaigns:\n  c: {audience: everybody, split: {holdout: 1.5, "
            "variants: {a: {template: news}}}}\n",
            "pipeline.yaml:17: campaigns.c.split.holdout: 1.5 is no share; write 10% or 0.1",
        ),
        (
            "campaigns:\n  c: {audience: everybody, split: {holdout: 100%, "
            "variants: {a: {template: news}}}}\n",
            "pipeline.yaml:17: campaigns.c.split.holdout: leaves nobody to mail; "
            "write less than 100%",
        ),
        (
            "campaigns:\n  News Letter: {audience: everybody, template: news}\n",
            "pipeline.yaml:17: campaigns.News Letter: is no name; write at most 40 small letters, "
            "digits and _, a letter first",
        ),
        (
            "sequences:\n  s: {steps: []}\n",
            "pipeline.yaml:17: sequences.s.steps: is empty; write at least one",
        ),
        (
            "sequences:\n  s: {steps: [{step: a, after: 1d}]}\n",
            "pipeline.yaml:17: sequences.s.steps.0.template: is missing; write it",
        ),
        (
            "sequences:\n  s: {audience: newest, steps: [{step: a, after: 1d, template: news}]}\n",
            "pipeline.yaml:17: sequences.s.audience: 'newest' is the newest so many, which a "
            "single person cannot be told to be; name an audience without `newest`",
        ),
        (
            "delivery: {linger: 1s}\ndelivery: {linger: 2s}\n",
            "pipeline.yaml:17: delivery: stands twice; keep one of them",
        ),
        (
            "delivry: {linger: 1s}\n",
            "pipeline.yaml:16: delivry: is not known here; did you mean 'delivery'? it has: "
            "audiences, campaigns, delivery, providers, routes, sender, sequences, templates, "
            "version",
        ),
    ],
)
def test_a_mistake_is_told_with_its_line_and_what_to_write(
    addition: str, problem: str, tmp_path: Path
) -> None:
    assert said_of(tmp_path, addition) == problem


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("{did: {opend: 3d}}", "a.did.opend: is none of mailed, delivered, opened, clicked"),
        ("{did: {opened: lately}}", "a.did.opened: 'lately' is no duration"),
        ("{where: {x: .nan}}", "a.where.x: is no number between -2^53 and 2^53; write it as a"),
        ("{where: {x: 9007199254740993}}", "a.where.x: is no number between -2^53 and 2^53"),
        ("{where: {x: 2026-01-01}}", "a.where.x: is no text, number, true or false"),
        ("{where: {x: 2026-13-01}}", "a.where.x: is no timestamp; put it in quotes"),
        ("{where: {x: !!python/name:os.system }}", "a.where.x: is no "),
        ('{where: {x: "\\0"}}', "a.where.x: holds U+0000"),
        ("{consent: [1]}", "a.consent.0: is no text; write one, a number in quotes"),
        ("{consent: {x: true}}", "a.consent: is no list; write [one, two]"),
        ("{newest: 0}", "a.newest: is too small; write more than 0"),
        ("{sources: &s [*s]}", "a.sources.0: is part of itself; write it out"),
        ("[]", "audiences.a: has no keys of its own"),
    ],
)
def test_what_an_audience_cannot_say_is_told(written: str, told: str, tmp_path: Path) -> None:
    assert told in said_of(tmp_path, f"  a: {written}\n")


@pytest.mark.parametrize(
    ("instead", "told"),
    [
        ("token: pat-na1-SECRET", "providers.crm.token: is a secret, which must not stand in"),
        ("token: {env: pat-na1-SECRET}", "providers.crm.token: is a secret, which must not"),
        (
            "token: {key: SECRET}",
            "providers.crm.token: has keys of its own; write a value, or {env",
        ),
        ("token: ", "providers.crm.token: is empty; write what it is, or leave it out"),
        ("token: [SECRET]", "providers.crm.token: is a secret, which must not stand in the file"),
        (
            'token: "${SECRET}"',
            "providers.crm.token: is a secret, which must not stand in the file",
        ),
        ("tokn: {env: SECRET}", "providers.crm.token: is missing; did you mean it by 'tokn'?"),
        (
            "token: {env: CRM_TOKEN}, key_lfie: 1d",
            "key_lfie: is not known here; did you mean 'key_",
        ),
        ("token: {env: CRM_TOKEN}, key_life: 1d", "providers.crm.key_life: is for providers that"),
        ("token: {env: CRM_TOKEN}, price: {per_1000: 1, currency: euro}", "currency: is no curren"),
    ],
)
def test_a_providers_options_are_told_and_no_secret_is(
    instead: str, told: str, tmp_path: Path
) -> None:
    found = problems(tmp_path, HEAD.replace("token: {env: CRM_TOKEN}", instead))
    assert any(one.startswith("pipeline.yaml:4: ") and told in one for one in found), found
    assert not any("SECRET" in one.replace("{env: SECRET}", "") for one in found)


def test_all_problems_are_told_in_their_order_and_loading_tells_the_first(tmp_path: Path) -> None:
    text = (
        HEAD.replace("hubspot", "hubspt")
        .replace("news.html", "new.html")
        .replace("per: 1s}]}\n  mail", "per: 1s}], call_timeout: 0s}\n  mail")
    )
    text += campaign("approve: maybe") + "  d: {audience: al, template: newz}\n"
    found = problems(tmp_path, text)
    assert [(one.split(": ")[0], one.split(": ")[1]) for one in found] == [
        ("pipeline.yaml:4", "providers.crm.call_timeout"),
        ("pipeline.yaml:12", "templates.news.html"),
        ("pipeline.yaml:17", "campaigns.c.approve"),
        ("pipeline.yaml:18", "campaigns.d.audience"),
        ("pipeline.yaml:18", "campaigns.d.template"),
    ]
    assert "did you mean 'news.html'?" in found[1]
    with pytest.raises(ConfigError) as caught:
        configuration.load(tmp_path / "pipeline.yaml", registry.KINDS)
    assert str(caught.value).endswith(f"{found[0]} (4 more: see `marketing-pipeline check`)")


def test_what_is_wrong_itself_is_not_missed_by_what_names_it(tmp_path: Path) -> None:
    """One mistake in an audience is one problem, and not another one for each campaign."""
    text = HEAD.replace("everybody: {}", "everybody: {consnt: x}") + campaign("approve: true")
    [only] = problems(tmp_path, text)
    assert "audiences.everybody.consnt" in only


def test_a_template_that_is_no_jinja_is_named_by_its_own_line(tmp_path: Path) -> None:
    (tmp_path / "bad.html").write_text("<p>\n{% if %}\n</p>")
    [problem] = problems(tmp_path, HEAD.replace("news.html", "bad.html"))
    assert problem.startswith("bad.html:2: is not Jinja: ")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"version: 1\n a: [", "pipeline.yaml:2: not YAML: "),
        (b"a: \x07", "pipeline.yaml:1: not YAML: "),
        (b"\xff", "pipeline.yaml:1: the file cannot be read: "),
        (b"[]", "pipeline.yaml:1: has no keys of its own"),
        (b"", "pipeline.yaml:1: version: is missing; write it"),
    ],
)
def test_what_is_no_file_of_ours_at_all_is_told(content: bytes, told: str, tmp_path: Path) -> None:
    file = tmp_path / "pipeline.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        configuration.load(file, registry.KINDS)
    assert told in str(caught.value)


def test_names_are_no_keys(tmp_path: Path) -> None:
    """An entry may be called as a key is: what is known inside it is still known."""
    found = said_of(tmp_path, "campaigns:\n  split: {audience: everybody, templat: news}\n")
    assert "did you mean 'template'?" in found


SHIPPED = CHECKOUT / "campaigns" / "pipeline.yaml"
JUNK: list[object] = [
    None, True, -1, 0, 10**400, math.nan, 1.5, "", "x", "x" * 50, "9" * 400 + "d", "100%", [], {},
    [[]], [None], {"env": None}, {"env": [1]}, {"a": 1}, date(2026, 1, 1),
    datetime(2026, 1, 1, tzinfo=UTC),
]  # fmt: skip


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place of a file in which something stands."""
    match value:
        case dict():
            inner = list(value.items())
        case list():
            inner = list(enumerate(value))
        case _:
            return
    for key, one in inner:
        yield (*at, key)
        yield from places(one, (*at, key))


PLACES = list(places(document.read(SHIPPED).value))


@hypothesis.settings(deadline=None)  # it reads files
@given(st.sampled_from(PLACES), st.sampled_from(JUNK), st.booleans())
def test_whatever_stands_in_a_place_it_is_taken_or_told_in_plain_words(
    place: tuple[Any, ...], junk: object, beside: bool
) -> None:
    said = document.read(SHIPPED).value
    inner = said
    for part in place[:-1]:
        inner = inner[part]
    inner[str(junk)[:20] if beside and isinstance(inner, dict) else place[-1]] = junk
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pipeline.yaml"
        (file.parent / "templates").symlink_to(SHIPPED.parent / "templates")
        file.write_text(yaml.safe_dump(said))
        try:
            configuration.load(file, registry.KINDS)
            assembly.assemble(settings.read({"MARKETING_CAMPAIGNS": str(file)}))
        except ConfigError as error:
            for problem in error.problems:
                assert "Input should" not in problem.text
                assert "Value error" not in problem.text


def test_the_demonstrations_version_is_the_same_as_ever() -> None:
    """What old files say they say still: other digests would plan all anew."""
    loaded = configuration.load(CHECKOUT / "campaigns" / "demo.yaml", registry.KINDS)
    assert loaded.meaning.rules.digest == DEMO
