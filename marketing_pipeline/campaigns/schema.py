"""What campaigns/pipeline.yaml may say."""

from datetime import timedelta
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from marketing_pipeline.campaigns.mailings import AudienceEntry, CampaignEntry, SequenceEntry
from marketing_pipeline.campaigns.values import (
    Lateness,
    Name,
    Often,
    Option,
    Span,
    Strict,
    Urgency,
    Window,
)
from marketing_pipeline.domain.event import EventType


class BreakerEntry(Strict):
    """When a provider is left alone: after calls that it did not answer, or not clearly."""

    failures: int = Field(default=5, ge=1, description="In a row.")
    error_share: float = Field(
        default=0.02, gt=0, le=1, description="More than this, of at least `at_least` calls."
    )
    over: Span = Field(default=timedelta(minutes=5), ge=timedelta(seconds=1))
    at_least: int = Field(default=100, ge=1)
    open_for: Span = Field(default=timedelta(seconds=30), ge=timedelta(milliseconds=100))


class PriceEntry(Strict):
    """What the provider charges."""

    per_1000: float = Field(ge=0, description="For a thousand calls.")
    currency: str = Field(default="USD", pattern=r"^[A-Z]{3}$")


class ProviderEntry(BaseModel):
    """One destination; what its adapter wants besides these stands beside them."""

    model_config = ConfigDict(extra="allow", frozen=True)

    __pydantic_extra__: dict[str, Option] = Field(init=False)  # pydantic's own name for them

    adapter: str
    limits: tuple[Window, ...] = Field(min_length=1, description="All of them hold at once.")
    connections: int = Field(default=10, ge=1, le=100)
    call_timeout: Span = Field(default=timedelta(seconds=15), gt=timedelta(0))
    settle_delay: Span | None = None
    horizon: Span | None = None
    key_life: Span | None = None
    at_least_once: bool = Field(
        default=False, strict=True, description="For alerts: better twice than not at all."
    )
    breaker: BreakerEntry = BreakerEntry()
    price: PriceEntry | None = Field(
        default=None, description="What `plan` reckons the cost of a campaign by."
    )

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
    properties: dict[str, str] = Field(default_factory=dict)
    priority: Urgency = "normal"
    once: Often = None
    max_age: Lateness = Field(
        default=None,
        description="Not done any more when so much later than it was due. Left out, a mail or a "
        "post is too late after a day, and a contact never.",
    )


class TemplateEntry(Strict):
    """A mail: its subject, and its HTML in a file beside this one, or MJML that becomes HTML."""

    subject: str = Field(min_length=1)
    preheader: str | None = Field(
        default=None, min_length=1, description="Shown after the subject in a list of mails."
    )
    html: str | None = Field(default=None, min_length=1)
    mjml: str | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _one_file(self) -> Self:
        if (self.html is None) == (self.mjml is None):
            said = "neither `html` nor `mjml`" if self.html is None else "both `html` and `mjml`"
            raise ValueError(f"has {said}; write one of them: `html: FILE` or `mjml: FILE`")
        return self


class Delivery(Strict):
    """How a delivery run behaves."""

    linger: Span = Field(
        default=timedelta(seconds=60), description="How long an idle run stays awake."
    )
    max_run: Span = Field(
        default=timedelta(minutes=55),
        description="A run ends after this, and the sensor starts another.",
    )
    lease_margin: Span = Field(
        default=timedelta(seconds=10), description="A lease outlasts its call's timeout by this."
    )


class PipelineFile(Strict):
    """The whole file."""

    version: Literal[1]
    sender: Sender
    providers: dict[Name, ProviderEntry] = Field(min_length=1)
    routes: dict[EventType, tuple[Step, ...]] = Field(
        json_schema_extra={"required": [str(type) for type in EventType]},
        description="What each type of event calls for.",
    )
    templates: dict[Name, TemplateEntry] = Field(default_factory=dict)
    audiences: dict[Name, AudienceEntry] = Field(default_factory=dict)
    campaigns: dict[Name, CampaignEntry] = Field(default_factory=dict)
    sequences: dict[Name, SequenceEntry] = Field(default_factory=dict)
    delivery: Delivery = Delivery()
