"""A hook that keeps no keys and answers no questions: what is in doubt is held, or sent twice."""

import json
import re
from pathlib import Path

import pytest

from marketing_pipeline import settings
from marketing_pipeline.campaigns.document import ConfigError
from marketing_pipeline.delivery.assembly import assemble
from marketing_pipeline.domain.effect import DeliveryClass
from marketing_pipeline_tests import plain_hook
from marketing_pipeline_tests.pipeline import Sandbox, post, record, run, sent, states, statuses
from marketing_pipeline_tests.undecided import command, rows

LOST = {"provider": "webhook", "kind": "close_after", "times": 1}


def declare(home: Path, *words: str) -> None:
    """Make the site a plain hook, and say this of it."""
    file = home / "campaigns" / "demo.yaml"
    text = re.sub(r"\bsite_", f"{plain_hook.NAME}_", file.read_text())
    said = "".join(f"    {one}\n" for one in words)
    file.write_text(text.replace("    adapter: webhook\n", f"    adapter: webhook\n{said}"))


@pytest.fixture
def plain(home: Path, sandbox: Sandbox) -> None:
    declare(home, "deduplicates: false")
    plain_hook.forgets(sandbox.record)


@pytest.mark.usefixtures("plain")
def test_a_lost_answer_is_shown_at_once_and_a_person_has_it_sent_again(
    used: settings.Settings, database: str, sandbox: Sandbox, tmp_path: Path
) -> None:
    sandbox.faults(LOST)
    record(database, [post(1), post(2)])
    run(used, linger=3)
    assert states(database) == {"SENT": 1, "UNKNOWN": 1}
    assert set(sandbox.acts().values()) == {1}, "nothing is repeated"
    [[effect, waited]] = rows(
        database,
        """select id::text, extract(epoch from settled_at - last_attempt_at) from effects
           where state = 'UNKNOWN'""",
    )
    assert 1 <= waited < 3, "the settle delay, and hardly more"
    shown = command(used, tmp_path, "unknown", "--json")
    assert effect in shown.stdout, shown.stderr
    assert "can neither deduplicate nor look up" in shown.stdout
    words = ("resolve", effect, "--resend", "--why", "it is not in the channel")
    assert command(used, tmp_path, *words).returncode == 0
    run(used)
    assert states(database) == {"SENT": 2}
    assert statuses(database) == {"COMPLETED": 2}
    assert sandbox.acts()[effect] == 2, "it was in the channel: that is why a person has to look"


@pytest.mark.usefixtures("plain")
def test_what_a_person_has_seen_there_is_not_sent_again(
    used: settings.Settings, database: str, sandbox: Sandbox, tmp_path: Path
) -> None:
    sandbox.faults(LOST)
    record(database, [post(1)])
    run(used, linger=3)
    [waiting] = json.loads(command(used, tmp_path, "unknown", "--json").stdout)["unknown"]
    effect = waiting["effect_id"]
    words = ("resolve", effect, "--sent", "--why", "it is in the channel")
    assert command(used, tmp_path, *words).returncode == 0
    run(used)
    assert statuses(database) == {"COMPLETED": 1}
    assert sandbox.acts() == {effect: 1}


def test_an_alert_is_repeated_and_arrives_twice(
    used: settings.Settings, database: str, sandbox: Sandbox, home: Path
) -> None:
    """The known-bad case too: the sandbox's plain hook does see what comes twice."""
    declare(home, "deduplicates: false", "at_least_once: true")
    plain_hook.forgets(sandbox.record)
    sandbox.faults(LOST)
    record(database, [post(1), post(2)])
    run(used, linger=3)
    assert states(database) == {"SENT": 2}
    assert statuses(database) == {"COMPLETED": 2}
    acts = sandbox.acts()
    assert set(acts) == sent(database)
    assert sorted(acts.values()) == [1, 2]


def test_what_was_called_as_a_deduplicating_hook_is_not_taken_for_one_that_is_not(
    used: settings.Settings, database: str, sandbox: Sandbox, home: Path
) -> None:
    declare(home)
    sandbox.faults(LOST)
    record(database, [post(1)])
    run(used, linger=0.1)
    declare(home, "deduplicates: false", "at_least_once: true")
    run(used, linger=3)
    assert states(database) == {"UNKNOWN": 1}
    [[why]] = rows(database, "select last_error from effects")
    assert "set up differently" in why


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("at_least_once: true",), "can neither deduplicate nor be asked, such as a webhook with"),
        (("at_least_once: often",), "is neither true nor false; write one of them"),
        (("deduplicates: never",), "is neither true nor false; write one of them"),
        (("deduplicates: false", "key_life: 7d"), "for providers that keep a key; leave it out"),
    ],
)
def test_what_cannot_be_declared_is_refused_with_its_line(
    words: tuple[str, ...], complaint: str, used: settings.Settings, home: Path
) -> None:
    declare(home, *words)
    with pytest.raises(ConfigError, match=complaint) as refused:
        assemble(used)
    text = (home / "campaigns" / "demo.yaml").read_text().splitlines()
    assert f"demo.yaml:{text.index(f'    {words[-1]}') + 1}: providers.plain_" in str(refused.value)


def test_an_operator_who_says_nothing_gets_a_keyed_hook(
    used: settings.Settings, home: Path
) -> None:
    declare(home)
    [hook] = [d for name, d in assemble(used).destinations.items() if name.startswith("plain")]
    assert hook.provider.contract.delivery_class is DeliveryClass.KEYED
