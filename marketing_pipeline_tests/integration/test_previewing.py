"""`marketing-pipeline preview` as a program that is run: a mail as one person would get it."""

import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import psycopg
import pytest

from marketing_pipeline import embedded
from marketing_pipeline.domain import event
from marketing_pipeline.domain.event import EventType, NewEvent
from marketing_pipeline_tests.pipeline import record

Ran = subprocess.CompletedProcess[str]
Cli = Callable[..., Ran]
ANN = "ann@example.com"
TEMPLATES = """
  hello:
    subject: "Hello {{ first_name }}"
    preheader: "News for {{ company | default('you') }}"
    html: templates/hello.html
  digest: {subject: "What is new", preheader: "Faster & clearer", mjml: templates/digest.mjml}
"""
HELLO = "<style>p { color: red }</style><p>Hi {{ first_name }}, {{ plan | default('free') }}.</p>"


@pytest.fixture
def cli(database: str, servers: embedded.Servers, home: Path) -> Cli:
    """Runs the command for a folder with two more templates; keywords change the environment."""
    file = home / "campaigns" / "demo.yaml"
    file.write_text(file.read_text().replace("\ntemplates:\n", f"\ntemplates:{TEMPLATES}"))
    (home / "campaigns" / "templates" / "hello.html").write_text(HELLO)
    usual = {
        "PATH": os.environ["PATH"],
        "MARKETING_HOME": str(home),
        "MARKETING_CAMPAIGNS": "campaigns/demo.yaml",
        "MARKETING_DATABASE_URL": database,
        "MARKETING_REDIS_URL": servers.redis_url,
    }

    def run(*words: str, **env: str) -> Ran:
        command = [sys.executable, "-m", "marketing_pipeline", "preview", *words]
        return subprocess.run(
            command, env=usual | env, capture_output=True, text=True, timeout=60, check=False
        )

    return run


def lead(key: str, **attributes: object) -> NewEvent:
    return event.new(
        type=EventType.LEAD_CAPTURE,
        payload={"email": ANN, **attributes},
        source="demo",
        key=key,
        now=datetime.now(UTC),
    )


def shown(ran: Ran) -> dict[str, object]:
    assert ran.returncode == 0, ran.stderr
    told: dict[str, object] = json.loads(ran.stdout)
    return told


def refusal(ran: Ran) -> str:
    """What is said where nothing is shown: one line, no traceback, exit code 2."""
    assert ran.returncode == 2
    assert not ran.stdout
    *notes, said = ran.stderr.splitlines()
    assert all(note.startswith("nobody in the log") for note in notes)
    assert said.startswith("marketing-pipeline: ")
    assert "Traceback" not in ran.stderr
    return said


def test_a_mail_is_shown_as_the_log_knows_the_person_now(cli: Cli, database: str) -> None:
    record(database, [lead("1", first_name="An", company="ACME", secret="s")])
    record(database, [lead("2", first_name="Ann")])
    told = shown(cli("hello", "--as", " Ann@Example.com ", "--json"))
    assert list(told) == ["subject", "preheader", "html", "text", "variables", "template"]
    assert told["subject"] == "Hello Ann"
    assert told["preheader"] == "News for ACME"
    assert told["text"] == "Hi Ann, free.\n"
    assert '<p style="color: red;">Hi Ann, free.</p>' in str(told["html"])
    assert told["variables"] == {"first_name": "Ann", "company": "ACME"}
    assert told["template"] == "hello"


def test_variables_are_given_beside_the_log_and_override_it(cli: Cli, database: str) -> None:
    record(database, [lead("1", first_name="Ann", company="ACME")])
    with_own = ("--with", "first_name=Bo", "--with", "plan=1.50", "--json")
    told = shown(cli("hello", "--as", ANN, *with_own))
    assert told["variables"] == {"first_name": "Bo", "company": "ACME", "plan": "1.50"}
    assert told["text"] == "Hi Bo, 1.50.\n"


def test_somebody_who_is_not_known_gets_what_is_given(cli: Cli) -> None:
    ran = cli("digest", "--as", "nobody@example.com", "--with", 'topics=["a b", "c"]', "--json")
    told = shown(ran)
    assert told["variables"] == {"topics": ["a b", "c"]}
    assert "[a b](https://www.example.com/news/a%20b)" in str(told["text"])
    assert "nobody in the log has this address" in ran.stderr
    assert "nobody@example.com" not in ran.stderr


LOOKS: list[tuple[str, object]] = [
    ("17", 17),
    ("true", True),
    ("null", None),
    ('"17"', "17"),
    ("1.5", 1.5),
    ("1.50", "1.50"),
    ("007", "007"),
    ("1e5", "1e5"),
    ("NaN", "NaN"),
    ("a=b", "a=b"),
    ("", ""),
    ('{"a":1}', {"a": 1}),
]


def test_a_value_is_what_it_looks_like(cli: Cli, home: Path) -> None:
    names = [f"v{number}" for number in range(len(LOOKS))]
    all_read = "".join(f"{{{{ {name} }}}}" for name in names)
    (home / "campaigns" / "templates" / "news.html").write_text(all_read)
    given = [f"--with={name}={text}" for name, (text, _) in zip(names, LOOKS, strict=True)]
    variables = shown(cli("news", "--as", ANN, "--json", *given))["variables"]
    assert isinstance(variables, dict)
    for name, (_, kept) in zip(names, LOOKS, strict=True):
        assert variables[name] == kept
        assert type(variables[name]) is type(kept)


def test_a_missing_variable_is_named_with_what_to_do(cli: Cli, database: str) -> None:
    record(database, [lead("1", company="ACME")])
    said = refusal(cli("hello", "--as", ANN))
    assert "template 'hello' needs 'first_name'" in said
    assert "--with first_name=VALUE" in said
    assert "first_name | default('')" in said
    assert ANN not in said


def test_an_unknown_template_is_told_the_nearest_and_all(cli: Cli) -> None:
    said = refusal(cli("welcom", "--as", ANN))
    assert "did you mean 'welcome'? the file has: digest, hello, news, welcome" in said
    assert "did you mean" not in refusal(cli("zzz", "--as", ANN))


def test_what_is_given_wrongly_is_refused(cli: Cli) -> None:
    assert "write --with name=value" in refusal(cli("hello", "--as", ANN, "--with", "first_name"))
    misspelt = refusal(cli("hello", "--as", ANN, "--with", "firstname=A"))
    assert "does not read 'firstname'; it reads: company, first_name, plan" in misspelt


def test_a_template_that_fails_on_a_value_says_so(cli: Cli, home: Path) -> None:
    (home / "campaigns" / "templates" / "hello.html").write_text("{{ first_name + 1 }}")
    assert "template 'hello'" in refusal(cli("hello", "--as", ANN, "--with", "first_name=A"))


def test_a_broken_mjml_file_is_named_with_its_line(cli: Cli, home: Path) -> None:
    (home / "campaigns" / "templates" / "digest.mjml").write_text("<mjml>\n<mj-boddy>")
    assert "digest.mjml:2: there is no <mj-boddy>" in refusal(cli("news", "--as", ANN))


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ("", "has neither `html` nor `mjml`; write one of them"),
        (", html: a.html, mjml: b.mjml", "has both `html` and `mjml`; write one of them"),
    ],
)
def test_a_template_is_one_file(cli: Cli, home: Path, files: str, said: str) -> None:
    file = home / "campaigns" / "demo.yaml"
    text = file.read_text().replace(", mjml: templates/digest.mjml", files)
    file.write_text(text)
    line = text[: text.index("  digest:")].count("\n") + 1
    assert f"demo.yaml:{line}: templates.digest: {said}" in refusal(cli("news", "--as", ANN))


class Frames(HTMLParser):
    """The frames of a page, and whether anything in it would run or be fetched."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.frames: list[dict[str, str | None]] = []
        self.outside: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "iframe":
            self.frames.append(dict(attrs))
        if tag in {"script", "link", "img"}:
            self.outside.append(tag)


def test_the_page_shows_the_mail_in_frames_that_can_do_nothing(cli: Cli, home: Path) -> None:
    page_of = ("hello", "--as", ANN, "--no-open", "--with", "first_name=<b>&A")
    ran = cli(*page_of)
    file = home / ".marketing" / "previews" / "hello.html"
    assert ran.stdout == f"{file}\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    page = file.read_text()
    found = Frames(page)
    assert len(found.frames) == 2
    assert not found.outside
    for frame in found.frames:
        assert frame["sandbox"] is None, "no permission at all"
        assert "Hi &lt;b&gt;&amp;A, free." in (frame["srcdoc"] or "")
    outside = re.sub(r'srcdoc="[^"]*"', "", page)
    assert "Hello &lt;b&gt;&amp;A" in outside
    assert "News for you" in outside
    assert "Example &lt;hello@example.com&gt;" in outside
    assert "Hi &lt;b&gt;&amp;A, free." in outside
    assert ANN not in page


def test_a_page_that_runs_something_would_be_seen() -> None:
    assert Frames('<script>1</script><iframe sandbox="allow-scripts">').outside == ["script"]


def test_the_page_is_opened_in_a_browser(cli: Cli, home: Path, tmp_path: Path) -> None:
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/opened\n')
    browser.chmod(0o755)
    ran = cli("news", "--as", ANN, BROWSER=f"{browser} %s")
    file = home / ".marketing" / "previews" / "news.html"
    assert ran.stdout == f"{file}\n"
    assert (tmp_path / "opened").read_text() == f"{file.as_uri()}\n"
    assert "none: inboxes show how the mail begins" in file.read_text()


def test_nothing_is_written_to_the_log(cli: Cli, database: str) -> None:
    shown(cli("news", "--as", ANN, "--json"))
    with psycopg.connect(database) as conn:
        assert conn.execute("select from templates union all select from recipients").rowcount == 0
