"""CI's share of `make campaign-trial`: a smaller campaign through all the same."""

import pytest

from marketing_pipeline_tests.campaign_trial import report, story
from marketing_pipeline_tests.campaign_trial.story import Size
from marketing_pipeline_tests.chaos.tally import FAILED_AS_IT_MUST

KILLS = 2


@pytest.mark.parametrize(("adapter", "recipients"), [("mailgun", 1500), ("resend", 750)])
def test_a_campaign_reaches_all_who_were_approved_once_and_nobody_who_has_left(
    adapter: str, recipients: int
) -> None:
    size = Size(
        recipients=recipients,
        adapter=adapter,
        calls=recipients // 10,
        between=(0.5, 1.5),
        kills=KILLS,
    )
    found = report.judged(story.run(size, lambda *_: None))
    said = found.document()
    assert said["troubles"] == []
    assert said["sent"] + said["suppressed"] + said["unknown"] == said["planned"]
    assert said["planned"] + said["held_out"] == recipients
    assert said["suppressed"] > 0, "the storm came too late to be seen"
    assert (said["kills"], said["freezes"], said["paused"]) == (KILLS, 1, True)
    assert set(said["controls"].values()) == {FAILED_AS_IT_MUST}
    assert found.holds
