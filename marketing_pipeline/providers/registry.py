"""Which adapters there are, and how one is made of what the operator wrote."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from marketing_pipeline.domain.decide import KEY_MARGIN
from marketing_pipeline.domain.effect import Contract, DeliveryClass
from marketing_pipeline.providers.hubspot import HubSpotOptions
from marketing_pipeline.providers.mailgun import MailgunOptions
from marketing_pipeline.providers.mailgun_notices import MailgunNotices
from marketing_pipeline.providers.notices import Reader
from marketing_pipeline.providers.options import Options
from marketing_pipeline.providers.protocol import Provider
from marketing_pipeline.providers.resend import ResendOptions
from marketing_pipeline.providers.resend_notices import ResendNotices
from marketing_pipeline.providers.webhook import WebhookOptions

ADAPTERS: Mapping[str, type[Options]] = {
    "hubspot": HubSpotOptions,
    "mailgun": MailgunOptions,
    "resend": ResendOptions,
    "webhook": WebhookOptions,
}

KINDS = {name: options.kind for name, options in ADAPTERS.items()}

# The option that holds the secret of an adapter's webhooks, and who reads them with it. Nothing is
# called with these secrets: whoever only delivers need not have them.
READERS: Mapping[str, tuple[str, Callable[[str], Reader]]] = {
    "mailgun": ("webhook_signing_key", MailgunNotices),
    "resend": ("webhook_secret", ResendNotices),
}
FOR_NOTICES = frozenset(option for option, _ in READERS.values())

_NOT_BLIND = (
    "is for a provider that can neither deduplicate nor be asked, such as a webhook with "
    "`deduplicates: false`; leave it out"
)


def build(
    name: str,
    adapter: str,
    options: Mapping[str, Any],
    *,
    settle_delay: timedelta | None = None,
    key_life: timedelta | None = None,
    horizon: timedelta | None = None,
    at_least_once: bool = False,
    base_url: str | None = None,
) -> Provider:
    """The provider that the operator calls `name`.

    `base_url` replaces the provider's own address, for a sandbox.

    Raises:
        KeyError: there is no such adapter.
        ValidationError: an option or a part of the contract cannot be used; `loc` names it. Its
            text repeats no value, but `errors()` does unless told include_input=False.
    """
    kind = ADAPTERS[adapter]
    checked = kind.model_validate(dict(options))
    contract = _contract(checked, settle_delay, key_life, horizon, at_least_once=at_least_once)
    return checked.provider(name, contract, base_url.rstrip("/") if base_url else None)


def _contract(
    options: Options,
    settle_delay: timedelta | None,
    key_life: timedelta | None,
    horizon: timedelta | None,
    *,
    at_least_once: bool,
) -> Contract:
    usual = options.promised
    contract = Contract(
        delivery_class=usual.delivery_class,
        settle_delay=usual.settle_delay if settle_delay is None else settle_delay,
        key_life=usual.key_life if key_life is None else key_life,
        horizon=usual.horizon if horizon is None else horizon,
        at_least_once=at_least_once,
    )
    if contract.settle_delay < timedelta(0):
        raise _unusable(options, "settle_delay", "is negative; write a duration such as 30s")
    if key_life is not None:
        _check_key_life(options, key_life)
    if horizon is not None and usual.delivery_class is not DeliveryClass.SEARCHABLE:
        raise _unusable(options, "horizon", "is for providers that can be searched; leave it out")
    if at_least_once and usual.delivery_class is not DeliveryClass.BLIND:
        raise _unusable(options, "at_least_once", _NOT_BLIND)
    _check_order(options, contract)
    return contract


def _check_key_life(options: Options, key_life: timedelta) -> None:
    promised = options.promised.key_life
    if promised is None:
        raise _unusable(options, "key_life", "is for providers that keep a key; leave it out")
    if options.key_life_is_theirs and key_life > promised:
        raise _unusable(
            options,
            "key_life",
            f"is longer than the provider keeps a key: a repeat after {promised} would be a "
            "duplicate; shorten it or leave it out",
        )


def _check_order(options: Options, contract: Contract) -> None:
    """What opens after it has closed would leave every lost answer to a person."""
    if contract.horizon is not None and contract.horizon <= contract.settle_delay:
        raise _unusable(options, "horizon", "is not longer than settle_delay; lengthen it")
    life = contract.key_life
    if life is not None and life * (1 - KEY_MARGIN) <= contract.settle_delay:
        raise _unusable(options, "key_life", "is hardly longer than settle_delay; lengthen it")


def _unusable(options: Options, field: str, problem: str) -> ValidationError:
    details = InitErrorDetails(
        type=PydanticCustomError("unusable", "{problem}", {"problem": problem}),
        loc=(field,),
        input=None,
    )
    return ValidationError.from_exception_data(type(options).__name__, [details])
