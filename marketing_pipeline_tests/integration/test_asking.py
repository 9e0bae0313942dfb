"""`unknown`, `resolve` and `explain` as programs that are run, by people and by other programs."""

import json
import os
import pty
import re
import select
import subprocess
import sys
import time
import uuid
from pathlib import Path

import psycopg
import pytest

from marketing_pipeline import settings
from marketing_pipeline_tests.pipeline import CHECKOUT, lead, post, record, run, states, statuses
from marketing_pipeline_tests.undecided import Ran, command, forgotten, rows


def refused(ran: Ran, said: str) -> bool:
    """One line on standard error, exit code 2, and in it what was wrong."""
    one_line = re.fullmatch(r"marketing-pipeline: .+\n", ran.stderr) is not None
    return ran.returncode == 2 and not ran.stdout and one_line and said in ran.stderr


def test_what_waits_is_shown_with_where_to_look_and_how_to_settle_it(
    used: settings.Settings, tmp_path: Path
) -> None:
    nothing = command(used, tmp_path, "unknown")
    assert (nothing.returncode, nothing.stdout) == (0, "nothing waits for a person\n")
    effect_id = forgotten(used)
    told = json.loads(command(used, tmp_path, "unknown", "--json").stdout)
    [one] = told["unknown"]
    assert told["waiting"] == 1
    assert one["effect_id"] == str(effect_id)
    assert one["recipient"] == "[address]"
    assert one["why"] == "no clear answer about [address]"
    assert str(effect_id) in one["look_up"]
    assert one["resolve"]["sent"] == (f'marketing-pipeline resolve {effect_id} --sent --why "..."')
    shown = command(used, tmp_path, "unknown").stdout
    for expected in (*one["resolve"].values(), one["look_up"], one["event_id"]):
        assert f"{expected}\n" in shown, "whole on a line, to be copied"
    assert "@" not in shown


def test_more_than_was_asked_for_is_counted(used: settings.Settings, tmp_path: Path) -> None:
    for number in (1, 2):
        forgotten(used, number)
    told = command(used, tmp_path, "unknown", "--limit", "1").stdout
    assert told.count("unknown since") == 1
    assert "1 more wait; show them with --limit 2\n" in told


def test_a_decision_is_carried_out_and_explained(
    used: settings.Settings, database: str, tmp_path: Path
) -> None:
    effect_id = forgotten(used)
    words = ("resolve", str(effect_id), "--sent", "--why", "seen in the log", "--reference", "r-9")
    done = command(used, tmp_path, *words)
    assert done.returncode == 0, done.stderr
    assert f"effect {effect_id} is SENT; its event {lead(1).id} is COMPLETED" in done.stdout
    assert statuses(database) == {"COMPLETED": 1}
    assert rows(database, "select who, why from resolutions") == [("operator", "seen in the log")]
    shown = command(used, tmp_path, "explain", "r-9").stdout
    assert 'operator decided `sent`: "seen in the log"' in shown
    assert "next: nothing: the provider has it" in shown
    again = command(used, tmp_path, *words)
    assert refused(again, f"effect {effect_id} is SENT")


def test_sending_again_wakes_delivery_and_names_who_decided(
    used: settings.Settings, database: str, tmp_path: Path
) -> None:
    effect_id = forgotten(used)
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute("listen marketing_events")
        done = command(
            used, tmp_path, "resolve", str(effect_id), "--resend", "--why", "lost", "--who", "Ann"
        )
        assert "is PLANNED" in done.stdout
        assert next(conn.notifies(timeout=5, stop_after=1)).channel == "marketing_events"
    assert rows(database, "select who, action from resolutions") == [("Ann", "resend")]
    run(used)
    assert states(database) == {"SENT": 2}


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--sent", "--resend", "--why", "x"), "were both given"),
        (("--why", "x"), "are both missing"),
        (("--sent", "--why", " "), "why: is empty"),
        (("--resend", "--why", "x", "--reference", "r"), "reference: belongs to what was sent"),
        (("--sent", "--why", "x"), "there is no effect"),
    ],
)
def test_a_decision_that_is_none_is_refused_in_one_line(
    used: settings.Settings, tmp_path: Path, flags: tuple[str, ...], said: str
) -> None:
    assert refused(command(used, tmp_path, "resolve", str(uuid.uuid4()), *flags), said)
    if said == "there is no effect":
        bad = command(used, tmp_path, "resolve", "mail-7", *flags)
        assert refused(bad, "EFFECT: 'mail-7' is not the id of an effect")


@pytest.mark.parametrize(("answer", "state"), [(b"n\n", "UNKNOWN"), (b"y\n", "PLANNED")])
def test_a_person_at_a_terminal_is_asked_first(
    used: settings.Settings, database: str, tmp_path: Path, answer: bytes, state: str
) -> None:
    effect_id = forgotten(used)
    ours, theirs = pty.openpty()
    words = ("resolve", str(effect_id), "--resend", "--why", "lost")
    usual = {"PATH": os.environ["PATH"], "MARKETING_STATE": str(tmp_path), "LOGNAME": "op"}
    with subprocess.Popen(
        [sys.executable, "-m", "marketing_pipeline", *words],
        env=usual | {"DAGSTER_HOME": str(CHECKOUT)} | dict(used.environment),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    ) as process:
        shown = b""
        until = time.monotonic() + 30
        while b"Settle it" not in shown and time.monotonic() < until:
            if select.select([ours], [], [], 0.2)[0]:
                shown += os.read(ours, 4096)
        os.write(ours, answer)
        assert process.wait(30) == (1 if state == "UNKNOWN" else 0)
    for descriptor in (ours, theirs):
        os.close(descriptor)
    assert b"unknown since" in shown
    assert states(database) == {"SENT": 1, state: 1}


def test_the_story_is_told_to_people_and_to_programs(
    used: settings.Settings, database: str, tmp_path: Path
) -> None:
    effect_id = forgotten(used)
    record(database, [post(1)])
    told = json.loads(command(used, tmp_path, "explain", str(effect_id), "--json").stdout)
    assert sorted(told) == ["asked", "events", "found"]
    assert (told["asked"], told["found"]) == (str(effect_id), "effect")
    [event] = told["events"]
    [effect] = event["effects"]
    assert effect["next"].startswith(
        f"a person must decide: marketing-pipeline resolve {effect_id}"
    )
    assert effect["adapter"] == "resend"
    assert {"at", "what", "event_id", "effect_id", "facts"} == set(event["entries"][0])
    shown = command(used, tmp_path, "explain", "lead-1", "--source", "demo").stdout
    for expected in (f"LEAD_CAPTURE {lead(1).id}: PROCESSING", "call 1 (send): ACCEPTED 200 in "):
        assert expected in shown
    assert "@" not in shown
    assert "p1@example.com" in command(used, tmp_path, "explain", "p1@example.com").stdout
    waiting = command(used, tmp_path, "explain", str(post(1).id)).stdout
    assert "next: waits for its plan: the next delivery run makes it" in waiting


def test_what_nobody_knows_is_told_in_one_line(used: settings.Settings, tmp_path: Path) -> None:
    assert refused(command(used, tmp_path, "explain", "lead-1"), "together with --source")
    assert refused(command(used, tmp_path, "explain", "x", "--source", " "), "source")
    known_bad = Ran([], 1, stdout="", stderr="Traceback (most recent call last):\nlead-1\n")
    assert not refused(known_bad, "lead-1")
