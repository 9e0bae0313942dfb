"""What the control API is asked for, checked field by field."""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

from marketing_pipeline.sandbox import notices
from marketing_pipeline.sandbox.exchange import Provider, Settings
from marketing_pipeline.sandbox.faults import Kind, Rule
from marketing_pipeline.sandbox.hooks import Hook
from marketing_pipeline.sandbox.limits import DEFAULTS, Limit

_DAY = 86_400.0
_HANGS = (Kind.HANG_BEFORE, Kind.HANG_AFTER)
_RULE = ("provider", "operation", "kind", "share", "times", "seconds", "seed")
_HOOK = ("provider", "url", "secret", "kinds", "times")
_SETTINGS = ("mailgun_index_delay", "latency", "keys")


class BadWish(ValueError):
    """A control request that cannot be granted: the field, what is wrong with it, what to send."""

    def __init__(self, field: str, problem: str, remedy: str) -> None:
        super().__init__(f"{field} {problem}: {remedy}")
        self.field = field
        self.problem = problem
        self.remedy = remedy


def faults(wish: object, providers: Mapping[str, Provider]) -> list[Rule]:
    """The rules of a JSON list, in its order."""
    if not isinstance(wish, list):
        raise BadWish("body", "is not a list", "send a JSON list of faults")
    return [_rule(item, f"[{index}]", providers) for index, item in enumerate(wish)]


def limits(wish: object) -> dict[str, Limit]:
    """The limits that are to change, by provider."""
    granted: dict[str, Limit] = {}
    for name, value in _by_provider(wish, "body").items():
        entry = _object(value, name, ("limit", "seconds"))
        calls = _whole(entry.get("limit"), f"{name}.limit", least=1)
        window = _seconds(entry.get("seconds"), f"{name}.seconds", least=0.001)
        granted[name] = Limit(calls=calls, window=window)
    return granted


def settings(wish: object, present: Settings) -> Settings:
    """The present settings with what the wish names changed; a null key takes any again."""
    entry = _object(wish, "body", _SETTINGS)
    if "mailgun_index_delay" in entry:
        delay = _seconds(entry["mailgun_index_delay"], "mailgun_index_delay")
        present = replace(present, mailgun_index_delay=delay)
    latency = {
        name: _seconds(value, f"latency.{name}")
        for name, value in _by_provider(entry.get("latency", {}), "latency").items()
    }
    keys = dict(present.keys)
    for name, value in _by_provider(entry.get("keys", {}), "keys").items():
        if value is None:
            keys.pop(name, None)
        elif isinstance(value, str) and value:
            keys[name] = value
        else:
            raise BadWish(f"keys.{name}", "is not a key", "send a string, or null to take any key")
    return replace(present, latency={**present.latency, **latency}, keys=keys)


def hooks(wish: object) -> tuple[Hook, ...]:
    """Who is to be told what of which provider's mails."""
    if not isinstance(wish, list):
        raise BadWish("body", "is not a list", "send a JSON list of hooks")
    return tuple(_hook(item, f"[{index}]") for index, item in enumerate(wish))


def since(text: str) -> int:
    """The last row that a reader has seen."""
    if not text.isdecimal():
        raise BadWish("since", f"is {text!r}", "send the n of the last row seen, or 0")
    return int(text)


def _rule(wish: object, field: str, providers: Mapping[str, Provider]) -> Rule:
    entry = _object(wish, field, _RULE)
    provider = _choice(entry.get("provider"), f"{field}.provider", sorted(providers))
    kind = Kind(_choice(entry.get("kind"), f"{field}.kind", [kind.value for kind in Kind]))
    if kind is Kind.QUOTA and providers[provider].exhausted is None:
        able = sorted(name for name in providers if providers[name].exhausted)
        raise BadWish(
            f"{field}.kind", f"is quota, which {provider} lacks", f"use {' or '.join(able)}"
        )
    share, times = _extent(entry, field)
    usual = 30.0 if kind in _HANGS else 1.0
    return Rule(
        provider=provider,
        operation=_operation(entry.get("operation"), f"{field}.operation", providers[provider]),
        kind=kind,
        share=share,
        times=times,
        seconds=_seconds(entry.get("seconds", usual), f"{field}.seconds"),
        seed=_whole(entry.get("seed", 0), f"{field}.seed", least=0),
    )


def _hook(wish: object, field: str) -> Hook:
    entry = _object(wish, field, _HOOK)
    provider = _choice(entry.get("provider"), f"{field}.provider", notices.PROVIDERS)
    url, kinds = entry.get("url"), entry.get("kinds")
    if not isinstance(url, str) or not url.startswith(("http://", "https://")):
        raise BadWish(f"{field}.url", "is no address", "send http://host/webhooks/name")
    if not isinstance(kinds, list) or not kinds:
        choices = ", ".join(notices.KINDS)
        raise BadWish(f"{field}.kinds", "is not a list of kinds", f"send some of {choices}")
    return Hook(
        provider=provider,
        url=url,
        secret=_secret(entry.get("secret"), f"{field}.secret", provider),
        kinds=tuple(_choice(kind, f"{field}.kinds", notices.KINDS) for kind in kinds),
        times=_whole(entry.get("times", 1), f"{field}.times", least=1),
    )


def _secret(wish: object, field: str, provider: str) -> str:
    if not isinstance(wish, str) or not wish:
        raise BadWish(field, "is no secret", "send the one that the receiver has")
    try:
        if provider == "resend":
            base64.b64decode(wish.removeprefix("whsec_"), validate=True)
    except binascii.Error:
        raise BadWish(field, "is not base64", "send whsec_ and base64, as Resend does") from None
    return wish


def _extent(entry: Mapping[str, object], field: str) -> tuple[float | None, int | None]:
    if ("share" in entry) == ("times" in entry):
        problem = "has both share and times" if "share" in entry else "has neither share nor times"
        raise BadWish(field, problem, "send exactly one: share (0 to 1) or times (a number)")
    if "times" in entry:
        return None, _whole(entry["times"], f"{field}.times", least=1)
    return _number(entry["share"], f"{field}.share", 0.0, 1.0), None


def _operation(wish: object, field: str, provider: Provider) -> str | None:
    operations = [route.operation for route in provider.ROUTES]
    if wish is None:
        return None
    if None in operations and isinstance(wish, str):
        return wish
    return _choice(wish, field, sorted({name for name in operations if name}))


def _object(wish: object, field: str, known: Sequence[str]) -> Mapping[str, object]:
    if not isinstance(wish, dict):
        raise BadWish(field, "is not an object", f"send an object with {', '.join(known)}")
    for name in wish:
        if name not in known:
            inner = name if field == "body" else f"{field}.{name}"
            raise BadWish(inner, "is unknown here", f"use {', '.join(known)}")
    return wish


def _by_provider(wish: object, field: str) -> Mapping[str, object]:
    return _object(wish, field, sorted(DEFAULTS))


def _choice(wish: object, field: str, choices: Sequence[str]) -> str:
    if not isinstance(wish, str) or wish not in choices:
        problem = "is missing" if wish is None else f"is {wish!r}"
        raise BadWish(field, problem, f"use one of {', '.join(choices)}")
    return wish


def _number(wish: object, field: str, least: float, most: float) -> float:
    if isinstance(wish, bool) or not isinstance(wish, int | float) or not least <= wish <= most:
        problem = "is missing" if wish is None else f"is {wish!r}"
        raise BadWish(field, problem, f"send a number from {least:g} to {most:g}")
    return float(wish)


def _whole(wish: object, field: str, *, least: int) -> int:
    if isinstance(wish, bool) or not isinstance(wish, int) or wish < least:
        problem = "is missing" if wish is None else f"is {wish!r}"
        raise BadWish(field, problem, f"send a whole number, at least {least}")
    return wish


def _seconds(wish: object, field: str, *, least: float = 0.0) -> timedelta:
    return timedelta(seconds=_number(wish, field, least, _DAY))
