"""The gate in plain Python, and faulty ones beside it, to compare gate.lua with."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

TOLERANCE = 1000  # ms by which two tellings of one reset may differ

Told = tuple[str, int, int]  # window, remaining, resets in ms
Report = tuple[int, int, str, list[Told]]  # generation, granted at, health, told
Answer = tuple[int, int, int, str]  # granted, wait ms, generation, breaker


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Spans in ms."""

    windows: tuple[tuple[int, int], ...]  # calls, length
    life: int
    lease: int
    failures: int
    share: float
    over: int
    at_least: int
    open_for: int
    longest: int


def width(span: int) -> int:
    return max(1, math.ceil(span / 20))


@dataclass(kw_only=True)
class Gate:
    """Every grant is kept; nothing is forgotten but by asking what still counts."""

    rules: Rules
    generation: int
    grants: Counter[int] = field(default_factory=Counter)  # by the ms they were made in
    bounds: dict[str, tuple[int, int, int]] = field(default_factory=dict)  # left, ends, made
    held_until: int = 0
    paused_until: int = 0
    breaker: str = "closed"
    until: int = 0
    open_for: int = 0
    row: int = 0
    seen: list[tuple[int, bool]] = field(default_factory=list)  # ms, failed

    def ask(self, now: int, calls: int, reports: Sequence[Report]) -> Answer:
        self.report(now, reports)
        free, wait = self.free(now)
        granted = max(min(calls, free), 0)
        if self.paused_until > now:
            granted, wait = 0, max(wait, self.paused_until - now)
        if self.breaker != "closed":
            if self.until > now:
                granted, wait = 0, max(wait, self.until - now)
            else:
                granted = min(granted, 1)
        if granted:
            if self.breaker != "closed":
                self.turn(now, "half_open")
                self.until = now + self.rules.lease
            self.grants[now] += granted
            for name, (left, ends, made) in self.bounds.items():
                self.bounds[name] = (left - granted, ends, made)
            wait = 0
        return granted, wait, self.generation, self.breaker

    def free(self, now: int) -> tuple[int, int]:
        """How many calls the limits leave, and how long until they may leave more."""
        free, wait = 10**12, 0
        for calls, span in self.rules.windows:
            slots = self.slots(now, span)
            free = min(free, calls - sum(slots.values()))
            if calls <= sum(slots.values()):
                first = min((slot for slot, used in slots.items() if used > 0), default=None)
                if first is not None:
                    wait = max(wait, (first + 1) * width(span) + span + self.rules.life - now)
        self.lapse(now)
        for left, ends, _ in self.bounds.values():
            free = min(free, left)
            if left <= 0:
                wait = max(wait, ends - now)
        if self.held_until > now:
            free, wait = 0, max(wait, self.held_until - now)
        return free, wait

    def slots(self, now: int, span: int) -> Counter[int]:
        oldest = (now - span - self.rules.life) // width(span)
        counted: Counter[int] = Counter()
        for at, calls in self.grants.items():
            if at // width(span) >= oldest:
                counted[at // width(span)] += calls
        return counted

    def lapse(self, now: int) -> None:
        self.bounds = {name: bound for name, bound in self.bounds.items() if bound[1] > now}

    def report(self, now: int, reports: Sequence[Report]) -> None:
        for generation, made, health, told in reports:
            if self.counts(generation):
                self.hear(now, health)
            for window, remaining, span in told:
                self.learn(now, made, window, remaining, span)

    def counts(self, generation: int) -> bool:
        return generation == self.generation

    def hear(self, now: int, health: str) -> None:
        if self.breaker == "half_open":
            match health:
                case "f":
                    self.open(now, min(self.open_for * 2, self.rules.longest))
                case "h":
                    self.turn(now, "closed")
                case _:
                    self.until = now
            return
        if health == "u":
            return
        self.row = self.row + 1 if health == "f" else 0
        self.seen.append((now, health == "f"))
        slot = width(self.rules.over)
        oldest = (now - self.rules.over) // slot
        recent = [failed for at, failed in self.seen if at // slot >= oldest]
        share = sum(recent) > self.rules.share * len(recent)
        if health == "f" and (
            self.row >= self.rules.failures or (len(recent) >= self.rules.at_least and share)
        ):
            self.open(now, self.rules.open_for)

    def open(self, now: int, span: int) -> None:
        self.turn(now, "open")
        self.open_for, self.until = span, now + span

    def turn(self, now: int, breaker: str) -> None:
        self.breaker = breaker
        self.generation = max(now, self.generation + 1)
        self.row, self.seen = 0, []

    def learn(self, now: int, made: int, window: str, remaining: int, span: int) -> None:
        if remaining <= 0:
            self.held_until = max(self.held_until, now + span)
            return
        longest = max(span for _, span in self.rules.windows)
        since = made - self.rules.life
        if since < now - longest - self.rules.life:
            return
        first = since // width(longest)
        used = sum(n for at, n in self.slots(now, longest).items() if at >= first)
        left, ends = remaining - used + 1, now + span
        self.lapse(now)
        known = self.bounds.get(window)
        if known and ends < known[1] - TOLERANCE:
            return
        if known and ends <= known[1] + TOLERANCE and left <= known[0]:
            return
        self.bounds[window] = (left, ends, made)

    def give_back(self, now: int, calls: int, made: int, generation: int) -> None:
        if generation != self.generation:
            return
        self.grants[made] -= calls
        self.lapse(now)
        for name, (left, ends, known) in self.bounds.items():
            if made >= known - self.rules.life:
                self.bounds[name] = (left + calls, ends, known)
        if self.breaker == "half_open":
            self.until = now

    def pause(self, now: int, span: int) -> None:
        self.paused_until = max(self.paused_until, now + span)

    def lift(self, now: int) -> None:
        self.paused_until = self.held_until = 0
        self.bounds = {}
        if self.breaker == "open":
            self.until = now


class Bucket(Gate):
    """Known bad: a bucket that refills steadily lets twice its content through at its edges."""

    def slots(self, now: int, span: int) -> Counter[int]:
        return Counter(
            {at: n for at, n in super().slots(now, span).items() if at >= now // width(span) - 9}
        )


class Forgetful(Gate):
    """Known bad: a late answer of an older generation counts for the new one."""

    def counts(self, generation: int) -> bool:  # noqa: ARG002
        return True


class Trusting(Gate):
    """Known bad: what a provider says is left is believed as of now, whatever was granted since."""

    def learn(self, now: int, made: int, window: str, remaining: int, span: int) -> None:  # noqa: ARG002
        self.bounds[window] = (remaining, now + span, now)


class Crowding(Gate):
    """Known bad: a provider that is tried again gets all that its limits leave."""

    def ask(self, now: int, calls: int, reports: Sequence[Report]) -> Answer:
        self.report(now, reports)
        if self.breaker == "open" and self.until <= now:
            self.turn(now, "closed")
        return super().ask(now, calls, [])
