"""What the operator's file says of audiences, campaigns and sequences."""

from datetime import timedelta
from typing import Literal, Self

from pydantic import Field, model_validator

from marketing_pipeline.campaigns.values import (
    Condition,
    Lately,
    LocalTime,
    Name,
    Share,
    Span,
    Strict,
    Texts,
    Urgency,
    Window,
)
from marketing_pipeline.domain.event import EventType
from marketing_pipeline.domain.occurrences import Dst, Late, Missed, Schedule
from marketing_pipeline.domain.person import Behaviour


class TagsEntry(Strict):
    """What a person's tags must be."""

    all: Texts = ()
    any: Texts = ()
    none: Texts = ()


class AudienceEntry(Strict):
    """Whom a campaign reaches; all that is said must hold."""

    sources: Texts = ()
    where: dict[str, Condition] = Field(
        default_factory=dict,
        description="What attributes of theirs have to be: equal, or one of a list.",
    )
    consent: Texts = Field(default=(), description="Purposes, each of which they agreed to.")
    tags: TagsEntry = TagsEntry()
    did: dict[Behaviour, Lately] = Field(
        default_factory=dict, description="What they did, and how lately: {opened: 30d}."
    )
    did_not: dict[Behaviour, Lately] = Field(
        default_factory=dict, description="What they did not do: {mailed: 7d}, {bounced: ever}."
    )
    newest: int | None = Field(
        default=None, gt=0, description="Only so many, those who were captured last."
    )


class VariantEntry(Strict):
    """One of the mails that are tried against each other."""

    template: Name
    share: Share | None = Field(
        default=None,
        description="Of those who are mailed; variants without one share equally in the rest.",
    )


class SplitEntry(Strict):
    """Who gets which mail is drawn by hash, the same at every time."""

    variants: dict[Name, VariantEntry] = Field(min_length=1)
    holdout: Share = Field(
        default=0.0, description="Share of the audience that is mailed nothing, to compare with."
    )
    salt: str = Field(default="", description="Another one draws anew.")

    @model_validator(mode="after")
    def _sums(self) -> Self:
        if self.holdout >= 1:
            raise ValueError("holdout leaves nobody to mail; write less than 100%")
        said = sum(one.share or 0.0 for one in self.variants.values())
        whole = all(one.share is not None for one in self.variants.values())
        if said > 1 + 1e-9 or (whole and said < 1 - 1e-9):
            raise ValueError(
                f"the variants' shares come to {said:.0%} of those who are mailed; make it 100%, "
                "or leave one share out"
            )
        return self

    def shares(self) -> dict[str, float]:
        """Each variant's share of those who are mailed."""
        said = {name: one.share for name, one in self.variants.items()}
        open_ = [name for name, one in said.items() if one is None]
        rest = 1 - sum(one for one in said.values() if one is not None)
        return {name: rest / len(open_) if one is None else one for name, one in said.items()}


class MissedEntry(Strict):
    """What becomes of occurrences that nobody was awake for."""

    policy: Late = Late.LATEST
    within: Span = Field(
        default=timedelta(hours=24), gt=timedelta(0), description="Older ones never fire."
    )
    at_most: int = Field(default=10, ge=1, le=1000)


class ScheduleEntry(Strict):
    """When a campaign is sent: once at a local time, or by cron."""

    at: LocalTime | None = Field(default=None, description="Once; by the clocks there.")
    cron: str | None = Field(
        default=None, description="Minute, hour, day, month, weekday by the clocks there: 0 9 1 * *"
    )
    timezone: str = Field(description="An IANA name: Europe/Berlin.")
    dst: Dst = Field(
        default=Dst.ONCE, description="What a local time means that is not there, or there twice."
    )
    missed: MissedEntry = MissedEntry()

    @model_validator(mode="after")
    def _can_fire(self) -> Self:
        self.schedule()
        return self

    def schedule(self) -> Schedule:
        """Raises BadSchedule, which says what to write instead."""
        return Schedule(
            at=self.at,
            cron=self.cron,
            timezone=self.timezone,
            dst=self.dst,
            missed=Missed(**self.missed.model_dump()),
        )


class CampaignEntry(Strict):
    """Who is mailed what, and when."""

    audience: Name
    template: Name | None = None
    split: SplitEntry | None = Field(
        default=None, description="Instead of a template: several, tried against each other."
    )
    schedule: ScheduleEntry | None = Field(
        default=None, description="Left out: it is sent when somebody triggers it."
    )
    throttle: Window | None = Field(
        default=None, description="Its mails come due no faster than this."
    )
    priority: Urgency | None = Field(default=None, description="Left out: the route's.")
    approve: bool = Field(
        default=False, strict=True, description="Sent only as a plan that somebody has approved."
    )
    approval_life: Span = Field(
        default=timedelta(hours=24), gt=timedelta(0), description="How long an approval holds."
    )

    @model_validator(mode="after")
    def _one_mail(self) -> Self:
        if (self.template is None) == (self.split is None):
            said = "neither" if self.template is None else "both"
            raise ValueError(f"has {said} of `template` and `split`; write one of them")
        return self


class SequenceStepEntry(Strict):
    """A mail, so long after what came before it."""

    step: Name
    after: Span = Field(ge=timedelta(0), le=timedelta(days=365))
    template: Name


class SequenceEntry(Strict):
    """Mails that follow an event one after the other."""

    on: Literal[EventType.LEAD_CAPTURE] = EventType.LEAD_CAPTURE
    audience: Name | None = Field(default=None, description="Looked at again at each step.")
    stop_when: Name | None = Field(
        default=None, description="An audience: who belongs to it by then gets no more."
    )
    steps: tuple[SequenceStepEntry, ...] = Field(min_length=1)
    priority: Urgency | None = None
