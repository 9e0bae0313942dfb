"""Where looks for due work begin, by a clock that the test sets."""

import time

import pytest

from marketing_pipeline.delivery.frontier import LONGEST, Frontier


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def begins(front: Frontier[int], clock: Clock, takes: float) -> int:
    """Where a look begins that takes so many seconds."""
    with front.look() as look:
        clock.now += takes
    assert look.whole is (look.since == front.first)
    return look.since


def test_where_looks_cost_nothing_each_is_at_all_there_is(clock: Clock) -> None:
    front = Frontier(first=0)
    for reached in range(1, 5):
        front.reached = reached
        assert begins(front, clock, takes=0) == 0


def test_a_costly_look_is_followed_by_looks_from_where_it_came_to(clock: Clock) -> None:
    front = Frontier(first=0)
    assert begins(front, clock, takes=0.05) == 0
    front.reached = 7
    assert front.whole_in == pytest.approx(0.5)
    found = [begins(front, clock, takes=0.1) for _ in range(6)]
    assert found == [7, 7, 7, 7, 7, 0], "a tenth of the time goes to looks at all there is"


def test_one_look_that_took_long_in_vain_does_not_put_the_next_off_for_as_long(
    clock: Clock,
) -> None:
    """It waited for somebody's lock, or the machine stood still."""
    front = Frontier(first=0)
    begins(front, clock, takes=600)
    assert front.whole_in == LONGEST


def test_what_is_known_to_be_there_is_looked_for_at_once(clock: Clock) -> None:
    front = Frontier(first=0)
    begins(front, clock, takes=0.05)
    front.reached = 7
    front.look_whole()
    assert begins(front, clock, takes=0) == 0


def test_of_looks_that_overlap_the_one_that_saw_more_is_believed(clock: Clock) -> None:
    front = Frontier[list[int]](first=[0])
    with front.look() as whole:
        clock.now += 0.05
    front.reach([7], whole)
    with front.look() as short, front.look() as other:
        assert (short.whole, short.since) == (False, [7])
    clock.now += 1
    with front.look() as later:
        assert later.whole
    front.reach([3], later)
    assert front.reached == [3], "something lay further back"
    front.reach([9], short)
    assert front.reached == [3], "and whoever looked before that knows nothing of it"
    with front.look() as next_one:
        assert next_one.whole
    front.reach([5], next_one)
    assert front.reached == [5]
    front.reach([9], other)
    assert front.reached == [5]


def test_what_a_short_look_takes_makes_the_next_whole_one_no_later(clock: Clock) -> None:
    front = Frontier(first=0)
    begins(front, clock, takes=0.05)
    front.reached = 7
    begins(front, clock, takes=60)
    assert front.whole_in == 0


def test_a_look_that_fails_leaves_the_next_one_whole(clock: Clock) -> None:
    front = Frontier(first=0)

    def fail() -> None:
        with front.look():
            clock.now += 5
            raise ConnectionError

    with pytest.raises(ConnectionError):
        fail()
    front.reached = 7
    assert begins(front, clock, takes=0) == 0


def test_a_smaller_share_makes_whole_looks_rarer(clock: Clock) -> None:
    front = Frontier(first=0, share=0.01)
    begins(front, clock, takes=0.05)
    assert front.whole_in == pytest.approx(5)
