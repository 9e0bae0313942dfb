"""What the operator may say of a provider's breaker."""

from datetime import timedelta

import pytest
from pydantic import ValidationError

from marketing_pipeline.campaigns.schema import BreakerEntry
from marketing_pipeline.delivery.gate import Breaker


def test_what_is_left_out_is_as_the_gate_has_it() -> None:
    assert Breaker(**BreakerEntry().model_dump()) == Breaker()


def test_spans_are_written_as_people_write_them() -> None:
    entry = BreakerEntry.model_validate({"failures": 20, "over": "10s", "open_for": "1s"})
    assert (entry.over, entry.open_for) == (timedelta(seconds=10), timedelta(seconds=1))


@pytest.mark.parametrize(
    ("field", "value"),
    [("failures", 0), ("error_share", 0), ("error_share", 2), ("over", "1ms"), ("opened_for", 1)],
)
def test_what_cannot_work_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ValidationError, match=field):
        BreakerEntry.model_validate({field: value})
