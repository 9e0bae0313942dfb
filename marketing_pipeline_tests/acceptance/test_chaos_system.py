"""CI's share of random deaths: of engines, of the whole system, and under providers' limits."""

from pathlib import Path

import psycopg
import pytest

from marketing_pipeline_tests.chaos import kills, limits, system
from marketing_pipeline_tests.chaos.bench import bench, ground
from marketing_pipeline_tests.chaos.tally import Silent, Tally
from marketing_pipeline_tests.pipeline import post, record

KILLS, BLOWS, STROKES = 100, 10, 8
SEED = 1


def _nothing_twice_nothing_lost(tally: Tally, trials: int) -> None:
    assert tally.troubles == []
    assert (tally.duplicates, tally.losses, tally.over_limit) == (0, 0, 0)
    assert tally.trials.total() == trials
    assert tally.effects > 5 * trials, "hardly anything was going on"


@pytest.mark.timeout(420)
def test_engines_killed_at_random_instants_do_nothing_twice_and_lose_nothing() -> None:
    _nothing_twice_nothing_lost(kills.run(KILLS, SEED, Silent()), KILLS)


@pytest.mark.timeout(600)
def test_whatever_part_of_the_system_dies_each_event_is_logged_and_each_effect_done_once() -> None:
    tally = system.run(BLOWS, SEED, Silent())
    _nothing_twice_nothing_lost(tally, BLOWS)
    assert tally.unknown.total() == 0


def test_an_event_is_missed_that_was_acknowledged_and_not_logged_or_logged_and_not_acknowledged(
    database: str,
) -> None:
    record(database, [post(1), post(2)])
    with psycopg.connect(database) as conn:
        rows = conn.execute("select idempotency_key, id::text from marketing_events").fetchall()
        logged: dict[str, str] = dict(rows)
        (first, one), (second, _) = logged.items()
        assert system.astray(conn, logged) == []
        assert len(system.astray(conn, {first: one})) == 1
        assert len(system.astray(conn, logged | {"another": one})) == 1
        assert len(system.astray(conn, logged | {second: one})) == 1


@pytest.mark.timeout(240)
def test_four_engines_exceed_no_limit_whatever_dies_or_is_forgotten() -> None:
    _nothing_twice_nothing_lost(limits.run(STROKES, SEED, Silent()), STROKES)


@pytest.mark.parametrize("name", limits.CONTROLS)
def test_this_exceeds_a_limit_in_the_same_harness(name: str, tmp_path: Path) -> None:
    with ground() as shared, bench(shared, tmp_path / "bench") as one:
        assert limits.CONTROLS[name](one), "nobody noticed"


@pytest.mark.parametrize(
    ("times", "over"),
    [
        ([0.0, 0.5, 1.0, 1.5], 0),
        ([0.0, 0.5, 0.999], 1),  # a third within a second
        ([0.0, 0.9, 1.0, 1.1], 1),  # across the seconds of a clock
        ([0.0, 0.0, 0.0, 0.0], 2),
    ],
)
def test_the_judge_of_limits_sees_every_window(times: list[float], over: int) -> None:
    assert len(limits.exceeded({"site": times}, {"site": [(2, 1.0)]})) == over
