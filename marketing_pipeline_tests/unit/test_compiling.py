"""MJML becomes HTML when the file is read: Jinja comes through, and errors point at a line."""

from pathlib import Path

import pytest

from marketing_pipeline.campaigns import compiling, document, rendering, templates
from marketing_pipeline.campaigns.document import ConfigError
from marketing_pipeline.campaigns.schema import TemplateEntry
from marketing_pipeline.domain.template import Template
from marketing_pipeline_tests.pipeline import CHECKOUT

SECTION = "<mj-section><mj-column><mj-text>{}</mj-text></mj-column></mj-section>"


def mjml(body: str, head: str = "") -> str:
    return f"<mjml>\n<mj-head>{head}</mj-head>\n<mj-body>\n{body}\n</mj-body>\n</mjml>\n"


def compiled(folder: Path, source: str) -> Template:
    file = folder / "mail.mjml"
    file.write_text(source, encoding="utf-8")
    return rendering.template("mail", "s", compiling.compiled(file, folder))


def refused(folder: Path, source: str) -> str:
    """What is said of a file, without the folder's own name."""
    with pytest.raises(ConfigError) as caught:
        compiled(folder, source)
    return str(caught.value).replace(f"{folder}/", "")


def test_a_loop_and_a_condition_go_around_sections(tmp_path: Path) -> None:
    body = (
        "<mj-raw>{% for item in items %}</mj-raw>" + SECTION.format("Item {{ item }}.")
        + "<mj-raw>{% endfor %}{% if age < 18 %}</mj-raw>" + SECTION.format("Young.")
        + "<mj-raw>{% endif %}</mj-raw>"
    )  # fmt: skip
    template = compiled(tmp_path, mjml(body))
    assert rendering.reads(template) == ("age", "items")
    mail = rendering.parts(template, {"items": ["a", "b"], "age": 17})
    assert mail.text == "Item a.\n\nItem b.\n\nYoung.\n"
    assert rendering.parts(template, {"items": [], "age": 18}).text == "\n"


def test_expressions_come_through_in_texts_and_attributes(tmp_path: Path) -> None:
    body = """<mj-section background-color="{{ colour | default("#fff") }}"><mj-column>
        <mj-text>{# a note #}{{ "<" ~ name ~ '&' }}{% if n > 1 and n < 3 %} two{% endif %}</mj-text>
        <mj-button href="https://e.com/{{ id }}?a=1&b={{ 'x y' | urlencode }}">Go</mj-button>
        </mj-column></mj-section>"""
    mail = rendering.parts(compiled(tmp_path, mjml(body)), {"name": "Ann", "n": 2, "id": 7})
    assert "&lt;Ann&amp; two" in mail.html
    assert 'href="https://e.com/7?a=1&amp;b=x%20y"' in mail.html
    assert 'bgcolor="#fff"' in mail.html
    assert "jinja" not in mail.html
    assert mail.text == "<Ann& two\n[Go](https://e.com/7?a=1&b=x%20y)\n"


def test_what_is_raw_to_jinja_stays_raw(tmp_path: Path) -> None:
    template = compiled(tmp_path, mjml(SECTION.format("{% raw %}{{ x }}{% endraw %}{{ y }}")))
    assert rendering.reads(template) == ("y",)
    assert rendering.parts(template, {"y": "z"}).text == "{{ x }}z\n"


def test_columns_stay_responsive(tmp_path: Path) -> None:
    style = "<mj-style>@media (max-width:300px) { a { color: red } } a:hover { top: 0 }</mj-style>"
    mail = rendering.parts(compiled(tmp_path, mjml(SECTION.format("x"), style)), {})
    assert "@media only screen and (min-width:480px)" in mail.html
    assert "@media (max-width:300px)" in mail.html
    assert "a:hover" in mail.html
    assert "<!--[if mso | IE]>" in mail.html


def test_a_preview_of_mjml_s_own_is_not_in_the_text(tmp_path: Path) -> None:
    head = "<mj-preview>Look {{ n }}</mj-preview>"
    mail = rendering.parts(compiled(tmp_path, mjml(SECTION.format("x"), head)), {"n": "here"})
    assert "Look here" in mail.html
    assert mail.text == "x\n"


def test_files_beside_it_may_be_included(tmp_path: Path) -> None:
    (tmp_path / "foot.mjml").write_text(
        SECTION.format("Foot, {{ name }}{% if a < 1 %}.{% endif %}")
    )
    (tmp_path / "own.css").write_text("a:hover { color: red }")
    (tmp_path / "note.html").write_text("<p>{{ note }}</p>")
    body = '<mj-include path="foot.mjml" />\n<mj-include path="./note.html" type="html" />'
    template = compiled(tmp_path, mjml(body, '<mj-include path="own.css" type="css" />'))
    mail = rendering.parts(template, {"name": "Ann", "note": "N", "a": 0})
    assert "Foot, Ann." in mail.text
    assert "N" in mail.text
    assert "a:hover" in mail.html


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("<p>Hi</p>", "mail.mjml:1: is not MJML"),
        ("", "mail.mjml:1: is not MJML"),
        (mjml("<mj-sction></mj-sction>"), "mail.mjml:4: there is no <mj-sction>"),
        (mjml("\n<mj-Section></mj-Section>"), "mail.mjml:5: <mj-section> has capitals"),
        (mjml("<mj-section>\n<mj-column></mj-section>"), "mail.mjml:5: <mj-column> is closed by"),
        ("<mjml>\n<mj-body>", "mail.mjml:2: <mj-body> is never closed"),
        (mjml("</mj-section>"), "<mj-body> is closed by </mj-section> in line 4"),
        (mjml(SECTION.format("\na < b")), "mail.mjml:5: has a < ; write &lt;"),
        (mjml("<mj-section padding=0></mj-section>"), "mail.mjml:4: <mj-section> has an attribute"),
        (mjml("", "stray"), "mail.mjml:2: is not MJML: unexpected token; see"),
        (mjml(SECTION.format("\n{{ a")), "mail.mjml:5: is not Jinja: unexpected '/'; mend it"),
        (mjml(SECTION.format("{% for a in b %}")), "is not Jinja: Unexpected end of template"),
        (
            mjml('<mj-section>\n<mj-column width="{{ w }}"></mj-column></mj-section>'),
            "mail.mjml:5: {{ w }} gets lost",
        ),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, source: str, said: str) -> None:
    assert said in refused(tmp_path, source)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("../secret.mjml", "mail.mjml:4: includes ../secret.mjml, which is outside"),
        ("/etc/hostname", "which is outside"),
        ("link.mjml", "which is outside"),
        ("https://e.com/a.mjml", "which is not here; keep a copy beside this file"),
        ("file:///etc/hostname", "which is not here"),
        ("//e.com/a.mjml", "which is not here"),
        ("none.mjml", "mail.mjml:4: includes none.mjml, which cannot be read"),
        (".", "which cannot be read"),
        ("broken.mjml", "broken.mjml:2: <mj-text> is never closed"),
        ("nested.mjml", "nested.mjml:1: is included and includes another file"),
    ],
)
def test_nothing_is_included_from_elsewhere(tmp_path: Path, path: str, said: str) -> None:
    folder = tmp_path / "campaigns"
    folder.mkdir()
    (tmp_path / "secret.mjml").write_text(SECTION.format("secret"))
    (folder / "link.mjml").symlink_to(tmp_path / "secret.mjml")
    (folder / "broken.mjml").write_text("<mj-section></mj-section>\n<mj-text>")
    (folder / "nested.mjml").write_text('<mj-include path="nested.mjml" type="html" />')
    assert said in refused(folder, mjml(f'<mj-include path="{path}" />'))


def test_an_include_of_a_kind_that_cannot_stand_there_is_refused(tmp_path: Path) -> None:
    in_head = mjml("", '<mj-include path="a.html" type="html" />')
    assert 'mail.mjml:2: <mj-include type="html"> cannot stand here' in refused(tmp_path, in_head)
    in_body = mjml('<mj-include path="a.css" type="css" />')
    assert "mail.mjml:4" in refused(tmp_path, in_body)
    assert "names no file" in refused(tmp_path, mjml("<mj-include />"))


def loaded(folder: Path, entry: TemplateEntry) -> Template:
    file = folder / "pipeline.yaml"
    file.write_text("version: 1\ntemplates:\n  mail:\n    subject: s\n    mjml: mail.mjml\n")
    return templates.load(document.read(file), {"mail": entry})["mail"]


def test_a_template_of_the_file_is_compiled_and_kept_as_html(tmp_path: Path) -> None:
    (tmp_path / "mail.mjml").write_text(mjml(SECTION.format("Hi {{ name }}")))
    entry = TemplateEntry(subject="s", mjml="mail.mjml", preheader="p {{ name }}")
    template = loaded(tmp_path, entry)
    assert template.html.startswith(f"{rendering.KEEPS_RULES}<!doctype html>")
    assert "mj-text" not in template.html
    assert template == rendering.template("mail", "s", template.html, "p {{ name }}")


def test_a_file_that_is_not_there_is_named_with_the_line_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"pipeline.yaml:5: templates.mail.mjml: there is no file"
    ):
        loaded(tmp_path, TemplateEntry(subject="s", mjml="mail.mjml"))
    (tmp_path / "mail.mjml").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match=r"pipeline.yaml:5: .* cannot be read: .* UTF-8"):
        loaded(tmp_path, TemplateEntry(subject="s", mjml="mail.mjml"))


def test_the_shipped_digest_is_readable_as_text() -> None:
    folder = CHECKOUT / "campaigns"
    html = compiling.compiled(folder / "templates" / "digest.mjml", folder)
    template = rendering.template("digest", "s", html)
    assert rendering.reads(template) == ("company", "first_name", "topics")
    assert rendering.parts(template, {"first_name": "Ann", "topics": ["a b"]}).text == (
        "What is new\n"
        "Hello Ann, here is what we made this month.\n\n"
        "Faster\nEverything opens in half the time.\n\n"
        "Clearer\nOne page shows what happens next.\n\n"
        "For you\n[a b](https://www.example.com/news/a%20b)\n\n"
        "[Read on](https://www.example.com/news)\n"
    )
