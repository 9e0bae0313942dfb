"""What templates make of variables: the same bytes for ever, and what newer templates may say."""

import hashlib
import json
import re
from pathlib import Path

import pytest

from marketing_pipeline.campaigns import rendering
from marketing_pipeline.campaigns.rendering import KEEPS_RULES, MissingVariable, TemplateError
from marketing_pipeline.domain import digest
from marketing_pipeline.domain.template import Template
from marketing_pipeline_tests.pipeline import CHECKOUT

SHIPPED = CHECKOUT / "campaigns" / "templates"
WELCOME = ("welcome", "Welcome, {{ first_name | default('and hello') }}")
NEWS = ("news", "What is new")
ZOE = {"first_name": "Zoë & <b>", "company": "ACME"}
SENDER = rendering.Sender(email="hello@example.com", name="Example")
RESPONSIVE = (
    "<html><head><style>p{color:red}a:hover{color:blue}@media (max-width:9px){p{color:blue}}"
    "@font-face{font-family:x;src:url(y)}</style></head><body><p>Hello {{ n }}</p></body></html>"
)


def template(html: str, subject: str = "s", preheader: str | None = None) -> Template:
    return rendering.template("t", subject, html, preheader)


def shipped(name: str, subject: str) -> Template:
    html = (SHIPPED / f"{name}.html").read_text(encoding="utf-8")
    return rendering.template(name, subject, html)


def said(template: Template, variables: dict[str, str]) -> str:
    """The digest of all that a mail says."""
    mail = rendering.render(template, variables, SENDER, "a@example.com")
    return hashlib.sha256(json.dumps([mail.subject, mail.html, mail.text]).encode()).hexdigest()


# Taken before there were preheaders, MJML and rules that stay: what was sent then is verified by
# rendering it again.
@pytest.mark.parametrize(
    ("named", "variables", "digest"),
    [
        (WELCOME, {}, "b4b910519a652f6b03063da3083b4eabf107ef5d501a2d3661b9e9457c61e984"),
        (WELCOME, ZOE, "f846e2ae343facda640f51a30fff0af4233f5a5cf1678766152a5f3899c02cb5"),
        (NEWS, {}, "0d4dbf76f67c78c803d19b1797499a4488cc400a0329b887515fcd4f2d619d7d"),
        (NEWS, ZOE, "478c62bd03d8664813d57262f45c8f11ba79140808fd11fb43afb02c071fde5b"),
    ],
)
def test_shipped_templates_make_the_bytes_they_always_made(
    named: tuple[str, str], variables: dict[str, str], digest: str
) -> None:
    assert said(shipped(*named), variables) == digest


def test_another_word_makes_other_bytes() -> None:
    assert said(shipped(*NEWS), {"first_name": "Ann"}) != said(shipped(*NEWS), {})


def test_a_template_without_a_preheader_is_named_as_it_always_was() -> None:
    assert shipped(*WELCOME).hash == (
        "e91734366b8819ab8991344fb425d5dea8491994eba93a8863214538248ed0d7"
    )
    assert shipped(*NEWS).hash == "d94b5ddd6603858da9f137a22ea53dd38e75f1eaaf27fa29d5f6d7b7485872c7"


def test_a_preheader_is_a_part_of_a_template_s_name() -> None:
    named = {
        template("h").hash,
        template("h", preheader="p").hash,
        template("h", preheader="").hash,
    }
    assert len(named) == 3
    assert template("h", preheader="p").hash == digest.fingerprint(["t", "s", "h", "p"])


def test_an_old_template_with_a_media_query_makes_the_bytes_it_always_made() -> None:
    html = RESPONSIVE.replace("a:hover{color:blue}", "")
    assert rendering.parts(template(html), {"n": "x"}).html == (
        '<html><head></head><body><p style="color: red;">Hello x</p></body></html>'
    )


def test_a_preheader_leaves_the_rest_of_a_mail_as_it_was() -> None:
    bare = rendering.parts(template(RESPONSIVE), {"n": "x"})
    mail = rendering.parts(template(RESPONSIVE, preheader="p"), {"n": "x"})
    assert re.sub(r'<div style="display:none.*?</div>', "", mail.html) == bare.html
    assert mail.text == bare.text


def test_rules_that_cannot_be_inlined_stay_where_the_template_says_so() -> None:
    mail = rendering.parts(template(KEEPS_RULES + RESPONSIVE), {"n": "x"})
    assert '<p style="color: red;">Hello x</p>' in mail.html
    for rule in ("@media (max-width:9px){p{color:blue}}", "@font-face", "a:hover"):
        assert rule in mail.html
    assert "{#" not in mail.html


def test_a_preheader_is_hidden_where_the_body_begins() -> None:
    head = '<!--[if mso]><body class="no"><![endif]--><title>a <body> tag</title>'
    html = f"{head}<body><p>Hi</p></body>"
    mail = rendering.parts(template(html, preheader=" {{ n }}\n< & more "), {"n": "Tom's"})
    assert mail.preheader == "Tom's < & more"
    begins = r'<body><div style="display:none[^"]*">'
    padding = "(&#847;&zwnj;&nbsp;)+</div><p>Hi</p>"
    assert re.search(f"{begins}Tom&#x27;s &lt; &amp; more{padding}", mail.html)
    assert mail.text == "Hi\n"


def test_a_preheader_that_comes_out_empty_leaves_no_trace() -> None:
    mail = rendering.parts(template("<p>Hi</p>", preheader="{% if n is defined %}x{% endif %}"), {})
    assert mail.preheader == ""
    assert mail.html == "<html><head></head><body><p>Hi</p></body></html>"


def test_what_a_preheader_reads_is_read() -> None:
    assert rendering.reads(template("{{ b }}", "{{ a }}", "{{ c }}")) == ("a", "b", "c")
    with pytest.raises(TemplateError, match="line 1"):
        rendering.reads(template("", preheader="{{ c"))


@pytest.mark.parametrize("place", ["subject", "html", "preheader"])
def test_a_missing_variable_is_named(place: str) -> None:
    words = {"subject": "s", "html": "h", "preheader": "p"} | {place: "{{ first_name }}"}
    with pytest.raises(MissingVariable, match="template 't': 'first_name' is undefined") as caught:
        rendering.parts(template(words["html"], words["subject"], words["preheader"]), {})
    assert caught.value.variable == "first_name"


def test_a_missing_part_of_a_variable_is_no_variable() -> None:
    with pytest.raises(MissingVariable) as caught:
        rendering.parts(template("{{ n.street + 1 }}"), {"n": {}})
    assert caught.value.variable is None


def test_a_template_cannot_reach_into_python() -> None:
    with pytest.raises(TemplateError, match="unsafe"):
        rendering.parts(template("x", preheader="{{ ''.__class__.__mro__ }}"), {})


def test_the_text_of_a_layout_has_no_padding_and_no_empty_links() -> None:
    html = f"""{KEEPS_RULES}<table><tr><td align="center">
        <a href="https://e.com"><img alt="Logo" src="l.png"></a></td></tr>
        <tr><td><a href="https://e.com/f"><img alt="" src="f.png"></a></td></tr>
        <tr><td align="right">One</td></tr><tr><td>{"long " * 20}</td></tr></table>"""
    text = rendering.parts(template(html), {}).text
    assert text.splitlines() == ["[Logo](https://e.com)", "", "One", ("long " * 20).strip()]


def test_a_template_s_file_is_not_read_again(tmp_path: Path) -> None:
    kept = Template(hash="b" * 64, name="t", subject="s", html="<p>kept</p>", preheader="p")
    assert "kept" in rendering.parts(kept, {}).html
    assert not list(tmp_path.iterdir())
