"""Every message between the engine and the world, struck at once each; and what must not pass."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest

from marketing_pipeline_tests.chaos import batches, boundaries, controls, frozen, judge, trial
from marketing_pipeline_tests.chaos.bench import Batch, Bench, Ground, bench, ground
from marketing_pipeline_tests.chaos.tally import Silent, Tally

AT_ONCE = 2  # on each of two test workers
FREEZES = 24
# From the claim to the settlement: what comes before is the same for every class of providers and
# struck at for one of them. `make chaos` strikes at all.
IN_FLIGHT = (
    "Writes planned effects",  # and claims those whose lane is free
    "Leases effects",
    "high_water",
    "POST ",
    "GET ",  # a look-up
    "Writes what calls",
    "Leases that ran",
)


@pytest.fixture(scope="module")
def shared() -> Iterator[Ground]:
    with ground() as one:
        yield one


@pytest.fixture(scope="module")
def one(shared: Ground, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder: Path = tmp_path_factory.mktemp("chaos")
    with bench(shared, folder / "bench") as made:
        yield made


def _nothing_twice_nothing_lost(tally: Tally) -> None:
    assert tally.troubles == []
    assert (tally.duplicates, tally.losses) == (0, 0)


@pytest.mark.parametrize("batch", batches.ALL, ids=lambda batch: batch.name)
def test_a_quiet_run_shows_every_boundary_that_a_strike_is_for(one: Bench, batch: Batch) -> None:
    names = {name for name, _ in boundaries.boundaries(one, batch)}
    for expected in (
        "postgres > COMMIT after Writes planned effects",
        "postgres < COMMIT after Writes planned effects",
        "postgres > COMMIT after Leases effects and writes their attempts",
        "postgres < COMMIT after Leases effects and writes their attempts",
        "postgres > Writes what calls came to",
        "postgres < again Writes what calls came to",  # one answer, once its commit was sent
        "valkey < EVALSHA grant",
        "valkey < EVALSHA high_water",
    ):
        assert expected in names
    assert {f"provider {way} POST" for way in "<>"} <= {name[:15] for name in names}


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("delete from effects where id = (select id from effects limit 1)", "unaccounted"),
        ("delete from effects where id = (select id from effects limit 1)", "lost"),
        ("update effects set state = 'PLANNED', settled_at = null, provider_ref = null", "lost"),
        ("update plans set count = count + 1 where count > 0", "unbalanced"),
        ("delete from attempts", "unbalanced"),
        ("update marketing_events set status = 'PROCESSING'", "unbalanced"),
    ],
)
def test_the_judge_sees_that_books_were_tampered_with(
    one: Bench, change: LiteralString, found: str
) -> None:
    assert trial.run(one, batches.SEARCHED, None).verdict.clean
    with psycopg.connect(one.url(batches.SEARCHED), autocommit=True) as conn:
        conn.execute("set session_replication_role = replica")  # the tables refuse it otherwise
        conn.execute(change)
        verdict = judge.judge(conn, one.acts(), batches.SEARCHED.effects)
    assert getattr(verdict, found)


def test_the_judge_sees_what_is_held_though_it_was_not_in_flight_when_the_strike_came(
    one: Bench,
) -> None:
    struck = time.time()
    assert trial.run(one, batches.BLIND, None).verdict.clean
    with psycopg.connect(one.url(batches.BLIND), autocommit=True) as conn:
        conn.execute("set session_replication_role = replica")
        conn.execute(
            """update effects set state = 'UNKNOWN', doubt_since = first_attempt_at,
               last_error = 'held'"""
        )
        assert len(judge.untouched(conn, struck)) == batches.BLIND.effects
        assert judge.untouched(conn, time.time()) == []


@pytest.mark.timeout(900)
@pytest.mark.parametrize("batch", batches.ALL, ids=lambda batch: batch.name)
def test_whatever_message_an_engine_dies_or_is_cut_off_at_nothing_is_done_twice_or_lost(
    shared: Ground, batch: Batch
) -> None:
    with boundaries.benches(shared, AT_ONCE) as several:
        planned = boundaries.every(several[0], [batch], boundaries.BRIEF)
        if batch in {batches.SEARCHED, batches.BLIND}:
            planned = [one for one in planned if any(word in str(one.fault) for word in IN_FLIGHT)]
        tally = boundaries.strike(several, planned, Silent())
    _nothing_twice_nothing_lost(tally)
    assert bool(tally.unknown.total()) == batch.holds, "held is what nobody can be asked about"
    assert tally.trials.total() > 0.8 * len(planned), "few strikes may miss their message"


@pytest.mark.timeout(300)
def test_an_engine_that_stood_still_past_its_lease_does_nothing_again() -> None:
    _nothing_twice_nothing_lost(frozen.run(FREEZES, 1, Silent()))


@pytest.mark.parametrize("name", controls.CONTROLS)
def test_this_fails_in_the_same_harness(one: Bench, name: str) -> None:
    assert controls.CONTROLS[name](one), "nobody noticed"
