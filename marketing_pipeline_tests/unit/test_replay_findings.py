"""What a replay found adds up, what it is asked is checked, and it can reach nobody."""

import random
import subprocess
import sys
from datetime import date
from functools import reduce
from operator import add
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketing_pipeline.delivery import replaying, verification
from marketing_pipeline.delivery.replaying import CannotReplay, Replayed
from marketing_pipeline.delivery.verification import SHOWN, Difference, Findings, What
from marketing_pipeline.domain.event import EventType

DAY = date(2026, 3, 1)


def differing(number: int) -> Findings:
    one = Difference(
        day=DAY,
        event_id=UUID(int=number),
        effect_id=None,
        what=What.PLAN,
        expected="a",
        recorded="b",
    )
    return Findings(differences=(one,), seals=2**255 + number)


@given(st.lists(st.integers(0, 2**64), max_size=30), st.randoms(use_true_random=False))
def test_parts_add_up_to_the_same_in_any_order_and_division(
    numbers: list[int], chance: random.Random
) -> None:
    parts = [differing(number) for number in numbers]
    whole = reduce(add, parts, Findings())
    chance.shuffle(parts)
    cut = chance.randrange(len(parts) + 1)
    halves = [reduce(add, some, Findings()) for some in (parts[:cut], parts[cut:])]
    assert add(*halves) == whole


def test_the_first_differences_are_told_and_all_are_counted() -> None:
    many = SHOWN + 5
    parts = [differing(number) for number in range(many)]
    for order in (parts, parts[::-1]):
        found = verification.of_day(DAY, reduce(add, order, Findings()))
        assert [one.event_id.int for one in found.shown] == list(range(SHOWN))
        assert found.more == 5
        assert found.differences[-1] == "and 5 more"
        told = Replayed(days=(found, found), workers=1, calls=0, seconds=1)
        assert told.different == 2 * many


def test_a_seal_is_of_what_was_made_and_of_its_place() -> None:
    one, other = UUID(int=1), UUID(int=2)
    a, b = "a" * 64, "b" * 64
    seals = {
        verification.seal_of_plan(one, 0, a),
        verification.seal_of_plan(one, 1, a),
        verification.seal_of_plan(one, 0, b),
        verification.seal_of_plan(other, 0, a),
        verification.seal_of_rendering(one, a),
        verification.seal_of_rendering(other, a),
        verification.seal_of_rendering(one, b),
    }
    assert len(seals) == 7
    swapped = [verification.seal_of_rendering(*pair) for pair in ((one, b), (other, a))]
    straight = [verification.seal_of_rendering(*pair) for pair in ((one, a), (other, b))]
    assert sum(swapped) != sum(straight), "two who got each other's mail are not the same"


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"first": "1 March"}, "from: '1 March' is not a day; write YYYY-MM-DD"),
        ({"last": "2026-02-30"}, "to: '2026-02-30' is not a day; write"),
        ({"first": "2026-03-02"}, "from: 2026-03-02 is after 2026-03-01; exchange them"),
        ({"types": ["LEAD_CAPTUR"]}, "types: 'LEAD_CAPTUR' is not known; write LEAD_CAPTURE"),
        ({"types": ["nothing like it"]}, "write LEAD_CAPTURE or CONTENT_PUBLISH or CAMPAIGN"),
        ({"mode": "verfy"}, "mode: 'verfy' is not known; write verify"),
    ],
)
def test_what_cannot_be_replayed_is_refused_with_a_remedy(
    wrong: dict[str, object], told: str
) -> None:
    usual: dict[str, object] = {
        "first": "2026-03-01",
        "last": "2026-03-01",
        "types": [],
        "mode": "verify",
    }
    assert replaying.asked(**usual).types == tuple(EventType)  # type: ignore[arg-type]
    with pytest.raises(CannotReplay) as refused:
        replaying.asked(**usual | wrong)  # type: ignore[arg-type]
    assert told in str(refused.value)


def test_types_are_named_in_any_order_and_case() -> None:
    named = replaying.types_of(["content_publish", " LEAD_CAPTURE"])
    assert named == (EventType.LEAD_CAPTURE, EventType.CONTENT_PUBLISH)


CALLS = """
import socket, sys
from marketing_pipeline.delivery.seclusion import Seclusion

listening = socket.create_server(("127.0.0.1", 0))
listening.settimeout(0.2)
there = listening.getsockname()

def call():
    socket.create_connection(there, timeout=1).close()

call()
listening.accept()
secluded = Seclusion()
assert secluded.tried == 0
for attempt in (call, lambda: socket.socket(type=socket.SOCK_DGRAM).sendto(b"x", there)):
    try:
        attempt()
    except PermissionError:
        pass
    else:
        sys.exit("it was let through")
try:
    listening.accept()
except TimeoutError:
    print(secluded.tried)
"""


def test_a_secluded_process_reaches_nobody_and_counts_what_it_tried() -> None:
    """The known-bad case of `calls`: one that is tried is told, and does not get through."""
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CALLS], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout) == (0, "2\n"), ran.stderr
