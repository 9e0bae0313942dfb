"""What campaigns/pipeline.yaml may say."""

import re
from datetime import timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from marketing_pipeline.domain.event import EventType
from marketing_pipeline.domain.plan import Once

_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


def span(value: object) -> timedelta:
    """A duration as people write it: 500ms, 10s, 15m, 24h, 30d."""
    if isinstance(value, timedelta):
        return value
    match = _SPAN.fullmatch(value.strip()) if isinstance(value, str) else None
    if not match:
        raise ValueError(f"{value!r} is no duration; write a number and ms, s, m, h or d: 10s")
    return timedelta(seconds=float(match[1]) * _UNITS[match[2]])


def how_often(value: object) -> Once | None:
    """How often a person gets a step: `event`, `recipient`, or `recipient/30d`."""
    if value == "event":
        return None  # an effect's identity sees to that
    unit, _, within = value.partition("/") if isinstance(value, str) else ("", "", "")
    if unit != "recipient":
        raise ValueError(f"{value!r} is not known; write event, recipient or recipient/30d")
    return Once(within=span(within) if within else None)


def how_late(value: object) -> object:
    """How late a step may still be done: a duration, or `never` too late."""
    return value if value == "never" else span(value)


Span = Annotated[timedelta, BeforeValidator(span)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]


class Strict(BaseModel):
    """Refuses what it does not know: a misspelt key must not be ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Window(Strict):
    """A limit that the provider sets: so many calls in any span of this length."""

    calls: int = Field(gt=0)
    per: Span = Field(gt=timedelta(0))


class BreakerEntry(Strict):
    """When a provider is left alone: after calls that it did not answer, or not clearly."""

    failures: int = Field(default=5, ge=1)  # in a row
    error_share: float = Field(default=0.02, gt=0, le=1)  # more than this, of at least `at_least`
    over: Span = Field(default=timedelta(minutes=5), ge=timedelta(seconds=1))
    at_least: int = Field(default=100, ge=1)
    open_for: Span = Field(default=timedelta(seconds=30), ge=timedelta(milliseconds=100))


class ProviderEntry(BaseModel):
    """One destination; what its adapter wants besides these stands beside them."""

    model_config = ConfigDict(extra="allow", frozen=True)

    adapter: str
    limits: tuple[Window, ...] = Field(min_length=1)
    connections: int = Field(default=10, ge=1, le=100)
    call_timeout: Span = Field(default=timedelta(seconds=15), gt=timedelta(0))
    settle_delay: Span | None = None
    horizon: Span | None = None
    key_life: Span | None = None
    at_least_once: bool = Field(default=False, strict=True)  # alerts: better twice than not at all
    breaker: BreakerEntry = BreakerEntry()

    @property
    def options(self) -> dict[str, Any]:
        """What is the adapter's own; secrets still as `{env: NAME}`."""
        return dict(self.model_extra or {})


class Sender(Strict):
    """Who mails come from."""

    email: str
    name: str | None = None


class Step(Strict):
    """One effect of a route."""

    step: Name
    provider: Name
    template: Name | None = None
    properties: dict[str, str] = {}
    priority: Literal["urgent", "normal", "bulk"] = "normal"
    once: Annotated[Once | None, BeforeValidator(how_often)] = None
    # Left out, a mail or a post is too late after a day, and a contact never.
    max_age: Annotated[timedelta | Literal["never"] | None, BeforeValidator(how_late)] = None


class TemplateEntry(Strict):
    """A mail: its subject, and its HTML in a file beside this one, or MJML that becomes HTML."""

    subject: str = Field(min_length=1)
    preheader: str | None = Field(default=None, min_length=1)  # shown after the subject
    html: str | None = Field(default=None, min_length=1)
    mjml: str | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _one_file(self) -> Self:
        if (self.html is None) == (self.mjml is None):
            said = "neither `html` nor `mjml`" if self.html is None else "both `html` and `mjml`"
            raise ValueError(f"has {said}; write one of them: `html: FILE` or `mjml: FILE`")
        return self


class AudienceEntry(Strict):
    """Whom a campaign reaches."""

    sources: tuple[str, ...] = ()
    where: dict[str, str | int | float | bool] = {}
    newest: int | None = Field(default=None, gt=0)


class CampaignEntry(Strict):
    """Who is mailed what."""

    audience: Name
    template: Name


class Delivery(Strict):
    """How a delivery run behaves."""

    linger: Span = timedelta(seconds=60)  # how long an idle run stays awake
    max_run: Span = timedelta(minutes=55)  # a run ends after this, and the sensor starts another
    lease_margin: Span = timedelta(seconds=10)  # a lease outlasts its call's timeout by this


class PipelineFile(Strict):
    """The whole file."""

    version: Literal[1]
    sender: Sender
    providers: dict[Name, ProviderEntry] = Field(min_length=1)
    routes: dict[EventType, tuple[Step, ...]]
    templates: dict[Name, TemplateEntry] = {}
    audiences: dict[Name, AudienceEntry] = {}
    campaigns: dict[Name, CampaignEntry] = {}
    delivery: Delivery = Delivery()
