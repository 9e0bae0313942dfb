"""Says in words what happens next to an effect or an event."""

from datetime import UTC, datetime
from typing import assert_never
from uuid import UUID

from marketing_pipeline.domain.effect import DeliveryClass, EffectState
from marketing_pipeline.event_log.story import EventStory, Standing
from marketing_pipeline.providers import registry


def of_effect(one: Standing, now: datetime) -> str:
    """What waits for what, as delivery itself will decide it."""
    match EffectState(one.state):
        case EffectState.SENT:
            return "nothing: the provider has it"
        case EffectState.SUPPRESSED:
            return "nothing: it must not be sent"
        case EffectState.FAILED if one.hold == "cancelled":
            return "nothing: its campaign was cancelled"
        case EffectState.FAILED:
            return "nothing, unless the daily job finds that it may be sent once more"
        case EffectState.UNKNOWN:
            return (
                "a person must decide: marketing-pipeline resolve "
                f'{one.id} --sent | --resend --why "..."'
            )
        case EffectState.SENDING:
            assert one.lease_until is not None, "a CHECK says so"
            if one.lease_until < now:
                return "whoever called is gone: the next delivery run puts it in doubt"
            return f"waits for the provider's answer until {instant(one.lease_until, now)}"
        case EffectState.PLANNED | EffectState.DOUBT:
            return _held_back(one, now) or _when_due(one, now)
        case unknown:
            assert_never(unknown)


def of_event(one: EventStory, now: datetime) -> str:
    """What an event as a whole waits for."""
    unfinished = sum(one.states.get(state, 0) for state in ("PLANNED", "SENDING", "DOUBT"))
    undecided = one.states.get("UNKNOWN", 0)
    if one.hold is not None and (one.status == "PENDING" or unfinished):
        return _held(one.id, one.hold, one.hold_reason, unfinished)
    if one.status == "PENDING" and one.scheduled_at > now:
        return f"is planned when it is due, at {instant(one.scheduled_at, now)}"
    if one.status == "PENDING":
        return "waits for its plan: the next delivery run makes it"
    if unfinished:
        return f"waits for its open effects: {unfinished:,}"
    if undecided:
        return f"waits for a person to decide about its unknown effects: {undecided:,}"
    if one.hold == "cancelled":
        return "nothing: its campaign was cancelled"
    if one.status == "FAILED" and not one.states:
        return "nothing, unless the daily job finds that it can be planned now"
    return "nothing" if one.status != "PROCESSING" else "the next delivery run completes it"


def instant(at: datetime, now: datetime) -> str:
    """The time alone where it is of today."""
    utc = at.astimezone(UTC)
    form = "%H:%M:%S UTC" if utc.date() == now.astimezone(UTC).date() else "%Y-%m-%d %H:%M:%S UTC"
    return utc.strftime(form)


def _held(event_id: UUID, hold: str, reason: str | None, unfinished: int) -> str:
    match hold:
        case "unapproved":
            return (
                f"waits for approval: {reason}; `marketing-pipeline plan` shows its plan, and "
                "`marketing-pipeline approve` approves it"
            )
        case "paused":
            return (
                f"waits because its campaign was paused ({reason}): marketing-pipeline campaign "
                f'resume {event_id} --why "..."'
            )
        case _:
            return f"its campaign was cancelled ({reason}); still open: {unfinished:,}"


def _held_back(one: Standing, now: datetime) -> str | None:
    if one.hold == "cancelled" and one.state == EffectState.PLANNED:
        return f"will be SUPPRESSED by the next delivery run: cancelled: {one.hold_reason}"
    if one.hold is not None and one.state == EffectState.PLANNED:
        return _held(one.event_id, one.hold, one.hold_reason, 1)
    if one.paused_until is not None:
        until = instant(one.paused_until, now)
        return f"waits for its gate: {one.provider} paused until {until} because {one.pause_reason}"
    if one.waits_for is not None:
        return f"waits for effect {one.waits_for}: work for one contact goes oldest first"
    return None


def _when_due(one: Standing, now: datetime) -> str:
    when = f"at {instant(one.due_at, now)}" if one.due_at > now else "in the next delivery run"
    must_not = _must_not(one, now)
    if one.state == EffectState.DOUBT:
        return _in_doubt(one, when, must_not)
    if must_not is not None:
        return f"will be SUPPRESSED {when}: {must_not}"
    if one.due_at > now:
        return f"waits for its time, {instant(one.due_at, now)}"
    return f"is due: a delivery run calls {one.provider} as soon as its limits allow"


def _in_doubt(one: Standing, when: str, must_not: str | None) -> str:
    adapter = registry.ADAPTERS.get(str(one.setup.get("adapter")))
    options = one.setup.get("options", {})
    match adapter.model_construct(**options).promised.delivery_class if adapter else None:
        case DeliveryClass.SEARCHABLE:
            return f"waits for the look-up {when}"
        case DeliveryClass.KEYED if must_not is None:
            return f"waits to be sent again under the same key {when}"
        case DeliveryClass.BLIND if must_not is None:
            return f"will be UNKNOWN {when}, or sent again where the file says at_least_once"
        case _:
            why = must_not or "the provider can neither deduplicate nor look up"
            return f"will be UNKNOWN {when}: {why}"


def _must_not(one: Standing, now: datetime) -> str | None:
    if one.erased:
        return "the person's address is gone"
    if one.suppressed is not None:
        return one.suppressed
    if one.hold == "cancelled":
        return f"cancelled: {one.hold_reason}"
    if one.expires_at is not None and one.expires_at < max(now, one.due_at):
        return "its time is up before it can go"
    return None
