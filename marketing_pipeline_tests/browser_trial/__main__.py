"""`python -m marketing_pipeline_tests.browser_trial`: what people do in Dagster's pages.

A Chromium that nobody sees replays a week from the backfill dialog and switches a schedule on, in
an installation that was started with `marketing-pipeline up --sandbox`. What the pages show is
compared with the log; and what must not be shown is looked for, too. Takes some minutes.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

from rich.console import Console
from rich.table import Table

from marketing_pipeline_tests import replay_proof
from marketing_pipeline_tests.browser_trial import window
from marketing_pipeline_tests.browser_trial.ground import (
    CAMPAIGN,
    DAYS,
    PEOPLE,
    Ground,
    ground,
)
from marketing_pipeline_tests.browser_trial.window import NotShown, Window
from marketing_pipeline_tests.patience import until

VERIFY = "ops:\n  deliveries:\n    config:\n      mode: verify\n"
SCHEDULE = f"/locations/marketing_pipeline/schedules/campaign_{CAMPAIGN}"
A_RUN = 120.0  # seconds that one may take, a cold start among them
A_TICK = 90.0  # seconds until the next full minute, and a run after it


@dataclass(frozen=True, slots=True)
class Seen:
    """One thing that was looked at."""

    what: str
    holds: bool
    found: str


def look(stage: Ground, tab: Window) -> Iterator[Seen]:
    """All of it, in the order in which a person would come to it."""
    yield _a_week_replayed(stage, tab)
    yield _the_lineage(tab)
    yield _a_changed_digit(stage, tab)
    yield _a_plan(stage, tab)
    yield _a_schedule_that_is_off(stage)  # by now some minutes have begun
    yield _a_schedule_switched_on(stage, tab)


def _a_week_replayed(stage: Ground, tab: Window) -> Seen:
    before, effects = stage.calls, stage.number("select count(*) from effects")
    _replay(tab, stage, picture="backfill-dialog")
    shown = 0
    for day in stage.days:
        text = _verified(tab, day, "differences\nnone")
        shown += int(text.partition("verified_effects\n")[2].partition("\n")[0])
    calls = stage.calls - before
    return Seen(
        "a week is replayed from the backfill dialog, and calls nobody",
        (shown, calls) == (effects, 0),
        f"{shown} of {effects} effects verified, {calls} calls",
    )


def _the_lineage(tab: Window) -> Seen:
    tab.open("/assets/deliveries?view=lineage")
    neighbours = ("marketing_events", "campaign_performance", "leads")
    tab.wait_for(*neighbours)
    tab.picture("lineage")
    return Seen("lineage from the log to the views", True, ", ".join(neighbours))


def _a_changed_digit(stage: Ground, tab: Window) -> Seen:
    """The known-bad case: what a replay shows is no decoration."""
    day = stage.days[2]
    [[effect, digest]] = stage.ask(
        """select effect_id::text, request_sha256 from attempts a join effects e on e.id = effect_id
           where e.day = %s order by effect_id limit 1""",
        day,
    )
    other = replay_proof.another(digest)
    change = "update attempts set request_sha256 = %s where effect_id = %s::uuid returning 1"
    stage.ask(change, other, effect)
    try:
        _replay(tab, stage)
        _verified(tab, day, effect)
        tab.show("differences")
        tab.picture("difference")
    except NotShown as error:
        return Seen("a digit that was changed is shown", False, str(error))
    finally:
        stage.ask(change, digest, effect)
    return Seen("a digit that was changed is shown", True, f"effect {effect} of {day}")


def _replay(tab: Window, stage: Ground, picture: str | None = None) -> None:
    """All days of the stage, from the dialog."""
    tab.open("/assets/deliveries")
    tab.press("Materialize…")
    tab.wait_for("Launch runs to materialize")
    tab.write("No matching partitions", f"[{stage.days[0]}...{stage.days[-1]}]")
    tab.wait_for(f"{len(stage.days)} partitions")
    tab.press("Config")
    tab.press("Add config")
    tab.wait_for("Save config", "No errors")
    tab.write_config(VERIFY)
    tab.press_until("Save config", "Config saved")
    if picture:
        tab.picture(picture)
    tab.press("Launch backfill")
    tab.wait_until_gone("Launch runs to materialize")


def _verified(tab: Window, day: date, difference: str) -> str:
    """The page of a day, once it shows what the last replay found."""
    page = f"/assets/deliveries?view=partitions&partition={day}"
    tab.open_until(page, "verified_effects", difference, seconds=A_RUN)
    return tab.text


def _a_plan(stage: Ground, tab: Window) -> Seen:
    tab.open("/assets/campaign_plan")
    tab.press("Materialize")
    tab.wait_until_gone("Never materialized", seconds=A_RUN)
    mails = f"{CAMPAIGN}: mails\n{DAYS * PEOPLE}"
    page = "/assets/campaign_plan?view=events"
    tab.open_until(page, "Who gets what", mails, seconds=A_RUN)
    tab.picture("campaign-plan")
    return Seen("a plan is read, and sends nothing", stage.triggers == 0, mails.replace("\n", " "))


def _a_schedule_that_is_off(stage: Ground) -> Seen:
    """The known-bad case of the next: it is the switch that makes it fire."""
    return Seen(
        "a schedule that is off does not fire", stage.triggers == 0, f"{stage.triggers} triggers"
    )


def _a_schedule_switched_on(stage: Ground, tab: Window) -> Seen:
    tab.open(SCHEDULE)
    tab.wait_for("Schedule has never run")
    tab.switch()
    tab.wait_for("1 run requested", seconds=A_TICK)
    people = DAYS * PEOPLE
    until(lambda: stage.mails >= people, "the campaign is not delivered", seconds=A_RUN)
    tab.open(SCHEDULE)
    tab.wait_for("1 run requested")
    tab.picture("schedule")
    twice = stage.number(
        """select count(*) from (
               select from marketing_events where payload ->> 'campaign' = %s
               group by scheduled_at having count(*) > 1
           ) more""",
        CAMPAIGN,
    )
    return Seen(
        "a schedule that is switched on fires",
        stage.triggers > 0 and twice == 0,
        f"{stage.triggers} occurrences, {stage.mails} mails",
    )


def main() -> int:
    arguments = _arguments()
    console, seen = Console(), list[Seen]()
    with (
        tempfile.TemporaryDirectory() as folder,
        tempfile.TemporaryDirectory() as scrap,
        console.status("starting an installation, and a week of events") as status,
        ground(Path(folder)) as stage,
        window.opened(stage.ui, arguments.pictures or Path(scrap)) as tab,
    ):
        for one in look(stage, tab):
            seen.append(one)
            status.update(one.what)
    _show(seen, console)
    if arguments.json:
        document = {"holds": _holds(seen), "seen": [asdict(one) for one in seen]}
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")
    return 0 if _holds(seen) else 1


def _holds(seen: Sequence[Seen]) -> bool:
    return all(one.holds for one in seen)


def _show(seen: Sequence[Seen], console: Console) -> None:
    table = Table("in the browser", "holds", "found")
    for one in seen:
        table.add_row(one.what, "yes" if one.holds else "[red]NO[/]", one.found)
    console.print(table)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m marketing_pipeline_tests.browser_trial",
        description=(__doc__ or "").partition("\n")[0],
    )
    parser.add_argument("--pictures", type=Path, help="keep what was seen in this folder")
    parser.add_argument("--json", type=Path, help="write what was found to this file")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
