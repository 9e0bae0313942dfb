"""Compares what was approved, what the ledger says and what the provider did: a pure function."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, fields
from datetime import datetime, timedelta

WRITTEN_WITHIN = timedelta(seconds=1)  # from claim to write at most; see docs/guarantees.md
DONE, HELD = "SENT", "UNKNOWN"
CLOSED = frozenset({DONE, "SUPPRESSED", HELD})  # nothing here is refused: FAILED would be a loss


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An effect as the ledger has it at the end."""

    person: str
    template: str
    state: str
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """A mail that the provider took, by its own record."""

    effect: str
    person: str  # whose address it went to
    at: datetime  # when the request had been read


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """An attempt to send that was put on record."""

    effect: str
    first: bool
    at: datetime  # the database's clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """All that is known of a campaign at its end."""

    approved: Mapping[str, str]  # template by person, as it was shown to whoever approved
    held_out: Set[str]  # people
    searchable: bool  # the provider can be asked what it has: nothing may end UNKNOWN
    ledger: Mapping[str, Entry]  # by effect
    acts: Sequence[Act]
    sends: Sequence[Send]
    left: Mapping[str, datetime]  # by when a person's suppression had committed
    paused: tuple[datetime, datetime] | None  # from its commit to before its end
    missing: int  # of conservation(): promised and not in the ledger
    open: int  # of conservation(), too


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What is wrong, a line each; all empty where the books agree."""

    duplicates: tuple[str, ...]  # effects or people that the provider has more than one mail of
    losses: tuple[str, ...]  # approved, and neither mailed nor honestly ended
    strays: tuple[str, ...]  # mails, or effects, that nobody approved or the ledger denies
    held_out: tuple[str, ...]  # people of the holdout for whom anything is there
    after_unsubscribe: tuple[str, ...]  # calls that started after a suppression had committed
    unexplained: tuple[str, ...]  # SUPPRESSED or UNKNOWN without a reason that there was
    during_pause: tuple[str, ...]  # attempts while the campaign was paused, of what was not begun

    @property
    def clean(self) -> bool:
        return not any(getattr(self, one.name) for one in fields(self))

    def words(self, most: int = 5) -> list[str]:
        """A line for each kind of fault, with some of its cases."""
        found = {one.name: getattr(self, one.name) for one in fields(self)}
        return [
            f"{name}, {len(cases)}: {'; '.join(cases[:most])}"
            for name, cases in found.items()
            if cases
        ]


def judge(books: Books) -> Verdict:
    return Verdict(
        duplicates=tuple(_duplicates(books)),
        losses=tuple(_losses(books)),
        strays=tuple(_strays(books)),
        held_out=tuple(_held_out(books)),
        after_unsubscribe=tuple(_after_unsubscribe(books)),
        unexplained=tuple(_unexplained(books)),
        during_pause=tuple(_during_pause(books)),
    )


def lag(books: Books) -> timedelta:
    """The longest time from a claim to its call's arrival, of effects that were sent at once."""
    started = defaultdict(list)
    for send in books.sends:
        started[send.effect].append(send.at)
    once = (act.at - started[act.effect][0] for act in books.acts if len(started[act.effect]) == 1)
    return max(once, default=timedelta(0))


def _duplicates(books: Books) -> Iterator[str]:
    """Of an effect by its key, of a person by address: one campaign has one mail for each."""
    for what, times in (
        ("effect", Counter(act.effect for act in books.acts)),
        ("person", Counter(act.person for act in books.acts)),
    ):
        yield from (f"{what} {id}: {many} mails" for id, many in times.items() if many > 1)


def _losses(books: Books) -> Iterator[str]:
    done = {act.effect for act in books.acts}
    planned = {entry.person for entry in books.ledger.values()}
    yield from (f"person {one}: no effect" for one in books.approved if one not in planned)
    for effect, entry in books.ledger.items():
        if entry.state not in CLOSED:
            yield f"effect {effect}: {entry.state}, {entry.reason}"
        elif entry.state == DONE and effect not in done:
            yield f"effect {effect}: {DONE}, and the provider has no mail of it"
    if books.missing or books.open:
        yield f"conservation: {books.missing} missing, {books.open} open"


def _strays(books: Books) -> Iterator[str]:
    many = Counter(entry.person for entry in books.ledger.values())
    for effect, entry in books.ledger.items():
        if books.approved.get(entry.person) != entry.template or many[entry.person] > 1:
            yield f"effect {effect}: not what was approved for person {entry.person}"
    for act in books.acts:
        of = books.ledger.get(act.effect)
        if of is None or of.state not in {DONE, HELD} or of.person != act.person:
            yield f"a mail to {act.person} of effect {act.effect}: the ledger has {of}"


def _held_out(books: Books) -> Iterator[str]:
    reached = {entry.person for entry in books.ledger.values()} | {act.person for act in books.acts}
    yield from sorted(books.held_out & reached)


def _after_unsubscribe(books: Books) -> Iterator[str]:
    for send in books.sends:
        of = books.ledger.get(send.effect)
        gone = books.left.get(of.person) if of else None
        if gone and send.at > gone:
            yield f"effect {send.effect}: attempt at {send.at}, suppressed by {gone}"
    for act in books.acts:
        gone = books.left.get(act.person)
        if gone and act.at > gone + WRITTEN_WITHIN:
            yield f"effect {act.effect}: mail at {act.at}, suppressed by {gone}"


def _unexplained(books: Books) -> Iterator[str]:
    """Whoever left after an unclear attempt may be mailed or not, where nobody can be asked."""
    for effect, entry in books.ledger.items():
        honest = entry.person in books.left and bool(entry.reason)
        if entry.state == "SUPPRESSED" and not honest:
            yield f"effect {effect}: SUPPRESSED, {entry.reason}, and nobody unsubscribed"
        if entry.state == HELD and (books.searchable or not honest):
            yield f"effect {effect}: {HELD}, {entry.reason}"


def _during_pause(books: Books) -> Iterator[str]:
    """What is in doubt goes on: by a search where there is one, else by a repeat."""
    if books.paused is not None:
        began, ended = books.paused
        for send in books.sends:
            if (send.first or books.searchable) and began < send.at < ended:
                yield f"effect {send.effect}: attempt at {send.at}, paused by {began}"
