"""What every provider's adapter can do."""

from datetime import datetime
from typing import Protocol
from uuid import UUID

import httpx

from marketing_pipeline.domain.effect import Content, Contract, EffectKind
from marketing_pipeline.domain.outcome import Finding, Inconclusive, Outcome
from marketing_pipeline.providers.observed import Observed


class Provider(Protocol):
    """One configured destination.

    An adapter is a value: it does no I/O, keeps nothing between calls and reads no clock, so a
    verification can rebuild years later the bytes that were sent.
    """

    @property
    def name(self) -> str:
        """As the operator's file calls it, e.g. `resend`."""
        ...

    @property
    def kind(self) -> EffectKind: ...

    @property
    def contract(self) -> Contract: ...

    @property
    def compares_payload(self) -> bool:
        """Does it refuse a known key with another body? Then the body is stored until settled."""
        ...

    def request(self, effect_id: UUID, content: Content) -> httpx.Request:
        """The call: the same inputs give the same bytes.

        Raises:
            TypeError: the content is of another kind than the adapter's.
        """
        ...

    def repeat(self, effect_id: UUID, body: bytes) -> httpx.Request:
        """The same call around a body that was stored."""
        ...

    def outcome(self, response: httpx.Response, now: datetime) -> Outcome:
        """What the answer means; a status that is not listed is Ambiguous.

        `response.request` must be set; `now` is when the answer arrived.
        """
        ...

    def observed(self, response: httpx.Response, now: datetime) -> tuple[Observed, ...]:
        """What the answer to a call or a look-up says is left of the provider's own limits.

        Each provider has header names and a unit of its own for the reset; what cannot be meant is
        left out.
        """
        ...

    def look_up(self, effect_id: UUID, recipient: str, since: datetime) -> httpx.Request | None:
        """The question whether an attempt made since then was done; None: it cannot be asked."""
        ...

    def finding(self, response: httpx.Response, effect_id: UUID) -> Finding:
        """What the answer to `look_up` says; Absent only where it says so without doubt."""
        ...


class Unsearchable:
    """The look-up of a provider that has none: a repeat settles a doubt, or a person does."""

    __slots__ = ()

    # The arguments are those of Provider.
    def look_up(self, effect_id: UUID, recipient: str, since: datetime) -> None:  # noqa: ARG002
        return None

    def finding(self, response: httpx.Response, effect_id: UUID) -> Finding:  # noqa: ARG002
        return Inconclusive("this provider has no look-up")
