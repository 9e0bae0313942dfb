"""What the options of all adapters have in common."""

import re
from abc import ABC, abstractmethod
from typing import Annotated, ClassVar
from urllib.parse import urlsplit

import httpx
from pydantic import AfterValidator, BaseModel, ConfigDict, SecretStr

from marketing_pipeline.domain.effect import Contract, EffectKind
from marketing_pipeline.providers.protocol import Provider

_VISIBLE = re.compile(r"[!-~]+")


class Options(BaseModel, ABC):
    """What an adapter wants to know; a misspelt name is refused, and no error repeats a value."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    kind: ClassVar[EffectKind]
    contract: ClassVar[Contract]  # what the provider promises, before the operator's overrides
    key_life_is_theirs: ClassVar[bool] = True  # False: who runs the other end may promise more

    @property
    def promised(self) -> Contract:
        """`contract` of the provider as these options describe it: some can promise less."""
        return self.contract

    @abstractmethod
    def provider(self, name: str, contract: Contract, base_url: str | None) -> Provider:
        """The adapter; `base_url` replaces the provider's own address."""


def _sendable(secret: SecretStr) -> SecretStr:
    if not _VISIBLE.fullmatch(secret.get_secret_value()):
        raise ValueError(
            "is empty or holds blanks or characters that no header can carry; "
            "copy the key again, without a line break at its end"
        )
    return secret


def _address(url: str) -> str:
    if not _can_be_called(url):
        raise ValueError("is no http(s) address; write https://host/path, without a user name")
    return url


def _can_be_called(url: str) -> bool:
    try:
        parts, host = urlsplit(url), httpx.URL(url).host
        _ = parts.port, host.encode("idna")  # out of range, or a name that nobody can look up
    except (ValueError, httpx.InvalidURL):
        return False
    return parts.scheme in {"http", "https"} and bool(host) and not parts.username


Secret = Annotated[SecretStr, AfterValidator(_sendable)]
Address = Annotated[str, AfterValidator(_address)]
