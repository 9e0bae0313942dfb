"""Random histories of a gate, run on the real script and on a model, with time as an input."""

import json
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import redis
from hypothesis import strategies as st

from marketing_pipeline.delivery import gate
from marketing_pipeline_tests import gate_model
from marketing_pipeline_tests.gate_model import Answer, Report, Rules

RULES = Rules(
    windows=((7, 1000), (20, 4000)),
    life=350,
    lease=850,
    failures=3,
    share=0.4,
    over=2000,
    at_least=6,
    open_for=700,
    longest=1500,
)
_CLOCK = "local time = redis.call('TIME')"
_TESTED = """local ms = tonumber(redis.call('GET', KEYS[1] .. ':clock'))
local time = {math.floor(ms / 1000), ms % 1000 * 1000}"""
assert gate.SCRIPT.count(_CLOCK) == 1
_SCRIPT = gate.SCRIPT.replace(_CLOCK, _TESTED)
BEGAN = 1_700_000_000_000

Step = tuple[Any, ...]
_TOLD = st.lists(
    st.tuples(
        st.sampled_from(["rate", "daily"]), st.integers(0, 25), st.sampled_from([300, 1000, 3000])
    ),
    max_size=1,
)
_STEP: st.SearchStrategy[Step] = st.one_of(
    st.tuples(st.just("pass"), st.sampled_from([0, 1, 40, 230, 700, 1500, 5000])),
    st.tuples(st.just("ask"), st.integers(1, 9)),
    st.tuples(st.just("ask"), st.integers(1, 9)),
    st.tuples(st.just("answer"), st.integers(0, 3), st.sampled_from("ffhhu"), _TOLD),
    st.tuples(st.just("answer"), st.integers(0, 3), st.sampled_from("fffh"), st.just([])),
    st.tuples(st.just("give_back"), st.integers(0, 3), st.integers(1, 3)),
    st.tuples(st.just("pause"), st.sampled_from([100, 900])),
    st.tuples(st.just("lift")),
    st.tuples(st.just("flush")),
)
HISTORIES = st.lists(_STEP, min_size=4, max_size=40)


class Script:
    """gate.lua in Valkey, told what time it is."""

    def __init__(self, valkey: redis.Redis, rules: Rules = RULES) -> None:
        self.valkey = valkey
        self.key = f"gate:model:{uuid.uuid4().hex}"
        self.script = valkey.register_script(_SCRIPT)
        self.shape = json.dumps(rules.windows)
        known = {name: getattr(rules, name) for name in Rules.__slots__ if name != "windows"}
        self.rules = json.dumps(known)

    def run(self, now: int, verb: str, number: int, *rest: object) -> list[Any]:
        self.valkey.set(f"{self.key}:clock", now)
        args: list[Any] = [verb, number, self.shape, self.rules, *rest]
        found = self.script(keys=[self.key, f"{self.key}:left"], args=args)
        assert isinstance(found, list)
        return found

    def ask(self, now: int, calls: int, reports: Sequence[Report]) -> Answer:
        granted, wait, _, generation, breaker, _ = self.run(
            now, "grant", calls, json.dumps(reports)
        )
        return granted, wait, generation, breaker.decode()

    def rebuild(self, now: int, life: int, record: Sequence[Counter[int]]) -> int:
        """Found lost, waited for, and rebuilt; when that is done."""
        granted, wait, _, lost_at, *_ = self.run(now, "grant", 1, "[]")
        assert (granted, wait, lost_at) == (-1, life, now)
        granted, wait, *_ = self.run(now + life - 1, "grant", 1, "[]")
        assert (granted, wait) == (-1, 1), "a grant of before may still be used"
        granted, wait, *_ = self.run(now + life, "grant", 1, "[]")
        assert (granted, wait) == (-1, 0)
        slots = [sorted(counted.items()) for counted in record]
        self.run(now + life, "rebuild", lost_at, json.dumps(slots), 0)
        return now + life

    def forget(self) -> None:
        self.valkey.delete(self.key)

    def close(self) -> None:
        self.valkey.delete(self.key, f"{self.key}:clock", f"{self.key}:left")


@dataclass(frozen=True)
class Granted:
    """A grant of a history."""

    calls: int
    made_at: int
    generation: int


class Twins:
    """The script and a model of it, taken through the same history."""

    def __init__(self, valkey: redis.Redis, model: type[gate_model.Gate]) -> None:
        self.script = Script(valkey)
        self.now = self.script.rebuild(BEGAN, RULES.life, [])
        self.model = model(rules=RULES, generation=self.now)
        self.grants: list[Granted] = []
        self.reports: list[Report] = []

    def agree(self, history: Sequence[Step]) -> bool:
        try:
            return all(self._step(*step) for step in history) and self._ask(1)
        finally:
            self.script.close()

    def _step(self, verb: str, *given: Any) -> bool:
        match verb:
            case "pass":
                self.now += given[0]
            case "ask":
                return self._ask(given[0])
            case "answer" if self.grants:
                grant = self.grants[-1 - given[0] % len(self.grants)]
                self.reports.append((grant.generation, grant.made_at, given[1], given[2]))
            case "give_back" if self.grants:
                self._give_back(given[0] % len(self.grants), given[1])
            case "pause":
                self.script.run(self.now, "pause", given[0])
                self.model.pause(self.now, given[0])
            case "lift":
                self.script.run(self.now, "lift", 0)
                self.model.lift(self.now)
            case "flush":
                self._flush()
        return True

    def _ask(self, calls: int) -> bool:
        known = self.model.ask(self.now, calls, self.reports)
        found = self.script.ask(self.now, calls, self.reports)
        self.reports = []
        if found[0]:
            self.grants.append(Granted(found[0], self.now, found[2]))
        left = self.script.valkey.get(f"{self.script.key}:left")
        return found == known and left == str(max(self.model.free(self.now)[0], 0)).encode()

    def _give_back(self, back: int, calls: int) -> None:
        grant = self.grants.pop(-1 - back)
        given = min(calls, grant.calls)
        self.script.run(self.now, "give_back", given, grant.made_at, grant.generation)
        self.model.give_back(self.now, given, grant.made_at, grant.generation)

    def _flush(self) -> None:
        """All grants were used and are on record."""
        self.script.forget()
        record = [self.model.slots(self.now, span) for _, span in RULES.windows]
        self.now = self.script.rebuild(self.now, RULES.life, record)
        kept = self.model.grants
        self.model = type(self.model)(rules=RULES, generation=self.now, grants=kept)
