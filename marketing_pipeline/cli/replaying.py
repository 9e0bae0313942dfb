"""Replays days at a terminal: a bar while it runs, then what was found."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from marketing_pipeline.delivery import replaying
from marketing_pipeline.delivery.replaying import Asked, Replayed
from marketing_pipeline.delivery.verification import Difference, Verification


def asked(first: str, last: str, types: str, mode: str) -> Asked:
    """What somebody wrote.

    Raises:
        CannotReplay: it names the field, its problem and the remedy.
    """
    names = [name for name in types.split(",") if name.strip()]
    return replaying.asked(first, last, names, mode)


def replay(url: Callable[[], str], wanted: Asked, workers: int) -> Replayed:
    """Verify what was asked for; `url` is only asked once that can be done.

    Raises:
        CannotReplay: it names the field, its problem and the remedy.
    """
    replaying.check_workers(workers)
    log = url()
    with _shown() as told:
        return replaying.run(log, wanted, workers, told)


def document(found: Replayed) -> dict[str, Any]:
    """What was found, as JSON takes it."""
    return {
        **_sums(found),
        "digest": found.digest,
        "days": {str(one.day): one.digest for one in found.days},
        "differences": [_difference(one) for day in found.days for one in day.shown],
        "different": found.different,
        "calls": found.calls,
        "workers": found.workers,
        "seconds": round(found.seconds, 3),
    }


def _difference(one: Difference) -> dict[str, str | None]:
    return {
        "day": str(one.day),
        "event_id": str(one.event_id),
        "effect_id": str(one.effect_id) if one.effect_id else None,
        "what": one.what.name.lower(),
        "expected": one.expected,
        "recorded": one.recorded,
    }


def show(console: Console, found: Replayed) -> None:
    """A line for each day, one for all of them, and each difference."""
    counts = ("events", "effects", "rendered", "erased", "different")
    table = Table("day", "digest", caption="no call was made: the processes could reach nobody")
    for name in counts:
        table.add_column(name, justify="right")
    for day in found.days:
        own = (*(getattr(day, name) for name in counts[:-1]), len(day.shown) + day.more)
        table.add_row(str(day.day), day.digest[:16], *(f"{one:,}" for one in own))
    sums = (*_sums(found).values(), found.different)
    table.add_section()
    table.add_row("all", found.digest[:16], *(f"{one:,}" for one in sums))
    if found.calls:
        table.caption = f"{found.calls} calls were tried and refused: this must never be"
    console.print(table)
    rate = _sums(found)["effects"] / found.seconds
    console.print(f"digest {found.digest}", highlight=False)
    said = f"{found.seconds:.1f} s with {found.workers} workers: {rate:,.0f} effects/s"
    console.print(said, highlight=False)
    for day in found.days:
        _show_differences(console, day)


def _sums(found: Replayed) -> dict[str, int]:
    return {
        name: sum(getattr(one, name) for one in found.days)
        for name in ("events", "effects", "rendered", "erased")
    }


def _show_differences(console: Console, day: Verification) -> None:
    """Lines and no table, so that no id is broken and each can be copied."""
    for one in day.shown:
        subject = f"effect {one.effect_id}" if one.effect_id else f"event {one.event_id}"
        for line in (
            f"{day.day} {subject}: {one.what}",
            f"    expected  {one.expected}",
            f"    recorded  {one.recorded}",
        ):
            console.print(Text(line), soft_wrap=True)
    if day.more:
        console.print(f"{day.day} and {day.more:,} more")


@contextmanager
def _shown() -> Iterator[Callable[[replaying.Progress], None]]:
    """A bar of effects on standard error, and how many days are over."""
    columns = (
        TextColumn("day {task.fields[day]} of {task.fields[days]}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("effects"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    idle = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=idle) as progress:
        task = progress.add_task("", total=None, day=0, days="?")

        def told(now: replaying.Progress) -> None:
            progress.update(
                task,
                completed=now.effects,
                total=max(now.of_effects, now.effects),
                day=now.days,
                days=now.of_days,
            )

        yield told
