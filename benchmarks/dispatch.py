"""Effects a second: an event that is on record, one HTTP call, its outcome recorded.

    python -m benchmarks.dispatch [--only workers] [--quick]

The events are PENDING when the clock starts, so that planning them is part of the work. Each
variant is measured in turn with what it is compared with.
"""

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import psycopg

from benchmarks import byhand, figures, history
from benchmarks.delivering import Run, engine, hand, house, rows, snapshot
from benchmarks.figures import Line, compared, measured, turns
from benchmarks.installation import SOURCE

EFFECTS = 10_000  # a run
RUNS = 5
BASE = 10_000  # events of history that longer ones are compared with
HISTORIES = (1_000_000, 5_000_000)
BACKLOG = 1_000_000
_BACKLOG = """
insert into marketing_events (id, idempotency_key, type, payload, source, fingerprint, scheduled_at,
                              created_at, updated_at)
select md5('backlog ' || n)::uuid, 'backlog-' || n, 'CONTENT_PUBLISH',
       jsonb_build_object('text', 'news ' || n || repeat('x', 250)), %(source)s,
       repeat(md5('backlog ' || n), 2), now(), now(), now()
from generate_series(1, %(events)s) n
"""


def at_once(quick: bool = False) -> Iterator[Line]:
    """A provider that answers at once: planned on the way, planned before, and written by hand."""
    effects, runs = size(quick)
    with house() as at, byhand.database(at.own.database_url) as url:
        ours, theirs, planned = turns(
            runs,
            lambda: engine(at, effects),
            lambda: hand(at, url, effects),
            lambda: engine(at, effects, planned=True),
        )
    yield compared(
        "dispatch/0ms vs by hand", "effects/s", _rates(ours), _rates(theirs), at_least=0.75
    )
    yield compared("dispatch/0ms, planned before", "effects/s", _rates(planned), _rates(theirs))
    yield from used("dispatch/0ms", ours, theirs)


def bare_rows(quick: bool = False) -> Iterator[Line]:
    """What PostgreSQL alone takes to write the rows of a delivery: no engine is faster."""
    effects, runs = size(quick)
    with house() as at:
        engine(at, 100)  # keeps the configuration
        ours, theirs = turns(runs, lambda: engine(at, effects), lambda: rows(at, effects))
    yield compared("dispatch/bare rows", "effects/s", _rates(ours), _rates(theirs))
    yield from used("dispatch/bare rows", ours, theirs)


def after_20_ms(quick: bool = False) -> Iterator[Line]:
    """A provider that takes its time."""
    effects, runs = size(quick)
    with house(delay=20) as at, byhand.database(at.own.database_url) as url:
        ours, theirs = turns(runs, lambda: engine(at, effects), lambda: hand(at, url, effects))
    yield compared("dispatch/20ms vs by hand", "effects/s", _rates(ours), _rates(theirs))
    yield from used("dispatch/20ms", ours, theirs)


def workers(quick: bool = False) -> Iterator[Line]:
    """Two and four processes against one, on whatever cores there are."""
    effects, runs = size(quick)
    with house() as at:
        one, two, four = turns(
            runs, *(lambda n=n: engine(at, effects, workers=n) for n in (1, 2, 4))
        )
    for name, its, wanted in (("2 vs 1", two, 0.8), ("4 vs 1", four, None)):
        yield compared(
            f"dispatch/workers, {name}", "effects/s", _rates(its), _rates(one), at_least=wanted
        )


def long_transaction(quick: bool = False) -> Iterator[Line]:
    """Somebody's snapshot is held open while the log grows, in one of two installations."""
    effects, runs = size(quick)
    each = effects * 2
    with house() as held, house() as free, snapshot(held):
        with_it, without = turns(runs, lambda: engine(held, each), lambda: engine(free, each))
    yield compared(
        f"dispatch/long transaction, over {each * (runs + 1):,} effects",
        "effects/s",
        _rates(with_it),
        _rates(without),
        at_least=0.8,
    )


def backlog(quick: bool = False) -> Iterator[Line]:
    """A million events wait; the engine works on them for ten seconds at a time."""
    effects, runs = size(quick)
    with house() as full, house() as empty:
        engine(full, 100)  # keeps the configuration
        with psycopg.connect(full.own.database_url, autocommit=True) as conn:
            conn.execute(_BACKLOG, {"source": SOURCE, "events": BACKLOG // (10 if quick else 1)})
        ours, theirs = turns(
            runs, lambda: engine(full, 0, fill=False), lambda: engine(empty, effects)
        )
    name = f"dispatch/backlog of {BACKLOG // (10 if quick else 1):,} vs {effects:,}"
    yield compared(name, "effects/s", _rates(ours), _rates(theirs))
    yield measured(f"{name}: peak", "MiB", [one.peak_mib for one in ours])


def histories(quick: bool = False) -> Iterator[Line]:
    """A long history against a short one, in two installations side by side.

    A checkpoint comes each 15 minutes, or gigabyte: the first seconds after it, in which nearly
    each key is on a page that has to be logged whole, are told apart from the time between.
    """
    effects, runs = size(quick)
    sizes = [most // 10 for most in HISTORIES] if quick else HISTORIES
    with house() as long, house() as short:
        for at in (long, short):
            with psycopg.connect(at.own.database_url, autocommit=True) as conn:
                conn.execute("select setval('fact_seq', %s)", (max(sizes),))
            engine(at, 100)  # keeps the configuration
        history.grow(short.own.database_url, BASE, max(sizes))

        def after_short(*, checkpoint: bool) -> Run:
            """With what the run before added it would be no short history any more."""
            history.cut(short.own.database_url, BASE)
            return engine(short, effects, checkpoint=checkpoint)

        for events in sizes:
            history.grow(long.own.database_url, events, max(sizes))
            for checkpoint, when in ((True, ", after a checkpoint"), (False, "")):
                ours, theirs = turns(
                    runs,
                    partial(engine, long, effects, checkpoint=checkpoint),
                    partial(after_short, checkpoint=checkpoint),
                )
                yield compared(
                    f"dispatch/history of {events:,} vs {BASE:,}{when}",
                    "effects/s",
                    _rates(ours),
                    _rates(theirs),
                    at_least=0.9,
                )


SECTIONS: dict[str, Callable[[bool], Iterable[Line]]] = {
    "dispatch/0ms": at_once,
    "dispatch/bare rows": bare_rows,
    "dispatch/20ms": after_20_ms,
    "dispatch/workers": workers,
    "dispatch/long transaction": long_transaction,
    "dispatch/backlog": backlog,
    "dispatch/history": histories,
}


def lines(quick: bool = False, only: str = "") -> Iterator[Line]:
    """All sections, or those whose name holds `only`."""
    for name, section in SECTIONS.items():
        if only in name:
            yield from section(quick)


def size(quick: bool) -> tuple[int, int]:
    return (EFFECTS // 4, 3) if quick else (EFFECTS, RUNS)


def _rates(runs: Sequence[Run]) -> list[float]:
    return [one.rate for one in runs]


def used(name: str, ours: Sequence[Run], theirs: Sequence[Run]) -> Iterator[Line]:
    """What it took: CPU seconds a thousand effects, and memory."""
    for what, of in _COSTS.items():
        yield compared(
            f"{name}: CPU of {what}",
            "s/1,000",
            [of(one) * 1000 / one.effects for one in ours],
            [of(one) * 1000 / one.effects for one in theirs],
        )
    yield compared(
        f"{name}: cores at work, provider included",
        "cores",
        [one.cores for one in ours],
        [one.cores for one in theirs],
    )
    yield compared(
        f"{name}: peak memory",
        "MiB",
        [one.peak_mib for one in ours],
        [one.peak_mib for one in theirs],
    )


_COSTS: dict[str, Callable[[Run], float]] = {
    "the worker": lambda one: one.worker_cpu,
    "PostgreSQL": lambda one: one.servers_cpu["postgres"],
    "worker, PostgreSQL and Valkey": lambda one: (
        one.worker_cpu + one.servers_cpu["postgres"] + one.servers_cpu["valkey"]
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default="", help=f"a part of a name: {', '.join(SECTIONS)}")
    parser.add_argument("--quick", action="store_true", help="fewer effects, runs and events")
    arguments = parser.parse_args()
    figures.show_lines(list(lines(arguments.quick, arguments.only)))


if __name__ == "__main__":
    main()
