"""Templates in the log: what was used comes back as it was."""

import asyncio
from datetime import UTC, datetime

import psycopg
import pytest

from marketing_pipeline.campaigns import rendering
from marketing_pipeline.domain.template import Template
from marketing_pipeline.event_log import versions
from marketing_pipeline.settings import Settings
from marketing_pipeline_tests.pipeline import lead, record, run

OLD = rendering.template("old", "s", "<p>h</p>")
NEW = rendering.template("new", "s", "<p>h</p>", "p {{ n }}")


@pytest.mark.parametrize("one", [OLD, NEW], ids=["without a preheader", "with one"])
def test_a_template_comes_back_as_it_was_kept(database: str, one: Template) -> None:
    async def kept() -> list[Template]:
        async with await psycopg.AsyncConnection.connect(database) as conn:
            await versions.keep_template(conn, one, datetime.now(UTC))
            await versions.keep_template(conn, one, datetime.now(UTC))
            return await versions.templates(conn, [one.hash])

    assert asyncio.run(kept()) == [one]


def test_a_mail_of_mjml_is_sent_and_its_html_is_what_the_log_keeps(
    used: Settings, database: str
) -> None:
    file = used.campaigns_file
    text = file.read_text()
    files = 'preheader: "For {{ first_name }}", mjml: templates/digest.mjml'
    file.write_text(text.replace("html: templates/welcome.html", files))
    assert file.read_text() != text
    record(database, [lead(1)])
    run(used)
    with psycopg.connect(database) as conn:
        kept = conn.execute("select html, preheader from templates where name = 'welcome'")
        [(html, preheader)] = kept.fetchall()
        [(state,)] = conn.execute("select state from effects where kind = 'email'").fetchall()
    assert state == "SENT"
    assert html.startswith(rendering.KEEPS_RULES)
    assert "{% for topic in topics %}" in html
    assert preheader == "For {{ first_name }}"
