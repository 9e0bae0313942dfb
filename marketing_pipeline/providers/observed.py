"""What a provider's own headers say is left of its limits."""

from dataclasses import dataclass
from datetime import timedelta

from marketing_pipeline import telemetry
from marketing_pipeline.providers.retry_after import SHORTEST

LONGEST = timedelta(days=1)  # a reset further ahead is a mistaken unit, not a window
MOST = 10**9  # calls; more are as good as no limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """So many calls may still follow the one that was answered, until the reset."""

    name: str  # of the window, of which a provider may have several
    remaining: int
    resets_in: timedelta  # from the answer's arrival


def observed(
    name: str, remaining: str | None, resets_in: timedelta | None, *, of: str
) -> tuple[Observed, ...]:
    """The window, where both headers make sense; `of` is the provider, for the log.

    Nothing where there is no header. One that cannot be meant (a negative number, a reset that is
    over or more than a day ahead) is logged and left out: the operator's own limits still hold.
    """
    if remaining is None:
        return ()
    plausible = resets_in is not None and timedelta(0) <= resets_in <= LONGEST
    if resets_in is None or not plausible or not (remaining.isascii() and remaining.isdigit()):
        telemetry.emit(
            "limit_ignored",
            provider=of,
            window=name,
            remaining=remaining[:40],
            resets_in=resets_in,
        )
        return ()
    # A number of thousands of digits is refused by int(); none of twelve is a limit.
    left = int(remaining) if len(remaining) <= 12 else MOST
    resets = max(resets_in, SHORTEST)  # whole seconds: "0" is any time within one
    return (Observed(name=name, remaining=min(left, MOST), resets_in=resets),)
