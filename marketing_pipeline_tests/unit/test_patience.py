import itertools

import pytest

from marketing_pipeline_tests.patience import until


def test_what_comes_to_hold_is_waited_for() -> None:
    looks = itertools.count()
    until(lambda: next(looks) == 2, every=0)
    assert next(looks) == 3


def test_what_never_holds_ends_with_the_reason() -> None:
    with pytest.raises(AssertionError, match="after 0 s: nobody came"):
        until(lambda: False, lambda: "nobody came", seconds=0.01, every=0)


def test_an_error_is_waited_out_only_where_it_was_expected() -> None:
    def away() -> bool:
        raise ConnectionError("nobody is there yet")

    with pytest.raises(ConnectionError):
        until(away)
    with pytest.raises(AssertionError) as told:
        until(away, seconds=0.01, every=0, despite=(ConnectionError,))
    assert isinstance(told.value.__cause__, ConnectionError)
