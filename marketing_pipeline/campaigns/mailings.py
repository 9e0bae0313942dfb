"""What the operator's file says of audiences, campaigns and sequences."""

from datetime import datetime, timedelta
from typing import Literal, Self

from pydantic import Field, model_validator

from marketing_pipeline.campaigns.values import (
    Lately,
    Name,
    Share,
    Span,
    Strict,
    Texts,
    Urgency,
    Value,
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
    where: dict[str, Value | tuple[Value, ...]] = Field(
        default_factory=dict
    )  # equal, or one of a list
    consent: Texts = ()  # purposes, each of which they agreed to
    tags: TagsEntry = TagsEntry()
    did: dict[Behaviour, Lately] = Field(default_factory=dict)  # e.g. {opened: 30d}
    did_not: dict[Behaviour, Lately] = Field(default_factory=dict)  # e.g. {mailed: 7d}
    newest: int | None = Field(default=None, gt=0)


class VariantEntry(Strict):
    """One of the mails that are tried against each other."""

    template: Name
    share: Share | None = None  # left out, those without one share equally in the rest


class SplitEntry(Strict):
    """Who gets which mail is drawn by hash, the same at every time."""

    variants: dict[Name, VariantEntry] = Field(min_length=1)
    holdout: Share = 0.0  # mailed nothing, to compare with
    salt: str = ""  # another one draws anew

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
    within: Span = Field(default=timedelta(hours=24), gt=timedelta(0))
    at_most: int = Field(default=10, ge=1, le=1000)


class ScheduleEntry(Strict):
    """When a campaign is sent: once at a local time, or by cron."""

    at: datetime | None = None  # of the clocks there, without an offset
    cron: str | None = None
    timezone: str
    dst: Dst = Dst.ONCE
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
    split: SplitEntry | None = None  # instead of a template: several, tried against each other
    schedule: ScheduleEntry | None = None  # None: when somebody triggers it
    throttle: Window | None = None  # its mails come due no faster than this
    priority: Urgency | None = None  # None: the route's
    approve: bool = Field(default=False, strict=True)  # sent only as a plan that was approved
    approval_life: Span = Field(default=timedelta(hours=24), gt=timedelta(0))

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
    audience: Name | None = None  # looked at again at each step
    stop_when: Name | None = None  # an audience: who belongs to it by then gets no more
    steps: tuple[SequenceStepEntry, ...] = Field(min_length=1)
    priority: Urgency | None = None
