"""Where every call passes: weighed against the limit, hit by faults, performed and recorded."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from aiohttp import web

from marketing_pipeline.sandbox import hubspot, mailgun, notices, resend, webhook, wire
from marketing_pipeline.sandbox.exchange import (
    Answer,
    Call,
    Order,
    Provider,
    Settings,
    refusal,
)
from marketing_pipeline.sandbox.faults import BEFORE, UNANSWERED, Faults, Kind, Rule
from marketing_pipeline.sandbox.hooks import Hooks
from marketing_pipeline.sandbox.limits import Allowance, Limit, Window
from marketing_pipeline.sandbox.notices import Mail
from marketing_pipeline.sandbox.record import Record

PROVIDERS: Mapping[str, Provider] = {
    "hubspot": hubspot,
    "resend": resend,
    "mailgun": mailgun,
    "webhook": webhook,
}
NOWHERE = "?"  # the operation of a call to a path that its provider does not have


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What becomes of a call that is already in the record."""

    answer: Answer | None  # None: the client gets none
    rule: Rule | None
    wait: timedelta  # before the answer
    holds: tuple[str, str, str] | None  # the key that is in flight meanwhile


class Desk:
    """The state of one sandbox; the record is durable; limits, faults, settings and hooks are not.

    Nothing awaits between reading a call and committing it, so calls never interleave.
    """

    def __init__(
        self, record: Record, clock: Callable[[], datetime], limits: Mapping[str, Limit]
    ) -> None:
        self.record = record
        self.faults = Faults()
        self.settings = Settings()
        self.hooks = Hooks(clock)
        self._clock = clock
        self._in_flight: set[tuple[str, str, str]] = set()
        self._windows = {name: self._window(name, limit) for name, limit in limits.items()}

    @property
    def limits(self) -> Mapping[str, Limit]:
        return {name: window.limit for name, window in self._windows.items()}

    def set_limits(self, limits: Mapping[str, Limit]) -> None:
        """Calls made before still count towards the new limit; the peak starts anew."""
        for name, limit in limits.items():
            self._windows[name] = self._window(name, limit)
            self.record.forget_peak(name)

    def empty_record(self) -> None:
        self.record.empty()
        self._windows = {name: Window(limit) for name, limit in self.limits.items()}

    async def exchange(
        self, name: str, operation: str | None, request: web.Request
    ) -> web.StreamResponse:
        """operation: None where the path names it."""
        body = await request.read()
        call = Call(
            number=self.record.calls + 1,
            at=self._clock(),
            operation=operation or request.match_info["name"],
            parameters=request.match_info,
            query=request.query,
            headers=request.headers,
            body=body,
            path=request.path,
        )
        verdict = self._settle(name, call)
        if verdict.wait:
            await self._wait(verdict)
        return await wire.deliver(request, verdict.answer, verdict.rule)

    def _settle(self, name: str, call: Call) -> Verdict:
        """Decide, act and record in one transaction, committed before any answer is sent."""
        provider, window = PROVIDERS[name], self._windows[name]
        order = self._order(name, call)
        late = window.enter(call.at)
        rule = None if late else self.faults.choose(call.number, name, call.operation)
        acts_before = self.record.acts
        with self.record.transaction():
            answer = (
                provider.throttled(call, late)
                if late
                else self._performed(provider, call, order, rule)
            )
            self.record.add_call(
                call.number,
                call.at,
                provider=name,
                operation=call.operation,
                key=order.key,
                status=answer.status if answer else None,
                fault=rule.kind.value if rule else None,
            )
            self.record.add_pressure(name, window.pressure(), over_limit=late is not None)
        self.record.calls = call.number
        if self.record.acts > acts_before and self.hooks.want(name):
            self.hooks.follow(name, self._mails(call, acts_before))
        if answer:
            answer = _with_limits(answer, provider, window.allowance(call.at), rule)
        return self._verdict(name, call, order, answer, rule)

    def _mails(self, call: Call, acts_before: int) -> list[Mail]:
        """What a call has just had done."""
        query = "select n, ref, recipient from acts where n > :before order by n"
        variables = notices.variables(call)
        return [
            Mail(number=n, at=call.at, ref=ref, recipient=recipient, variables=variables)
            for n, ref, recipient in self.record.rows(query, {"before": acts_before})
        ]

    def _order(self, name: str, call: Call) -> Order:
        if call.operation == NOWHERE:
            return refusal(PROVIDERS[name].unknown(call))
        order = PROVIDERS[name].read(call, self.settings)
        if order.busy and (name, call.operation, order.key) in self._in_flight:
            return refusal(order.busy, order.key)
        return order

    def _performed(
        self, provider: Provider, call: Call, order: Order, rule: Rule | None
    ) -> Answer | None:
        kind = rule.kind if rule else None
        done = None if kind in BEFORE else order.perform(self.record)
        if rule and kind is Kind.THROTTLE:
            return provider.throttled(call, rule.seconds)
        if kind is Kind.QUOTA and provider.exhausted:
            return provider.exhausted(call)
        if kind in (Kind.ERROR_BEFORE, Kind.ERROR_AFTER):
            return provider.failed(call)
        return None if kind in UNANSWERED else done

    def _verdict(
        self, name: str, call: Call, order: Order, answer: Answer | None, rule: Rule | None
    ) -> Verdict:
        """A key is in flight as long as its first answer is on the way, and only then."""
        wait = self.settings.latency.get(name, timedelta())
        if rule and rule.kind is Kind.SLOW:
            wait += rule.seconds
        done = answer is not None and answer.status < 300 and order.busy is not None
        holds = (name, call.operation, order.key) if done and order.key else None
        return Verdict(answer=answer, rule=rule, wait=wait, holds=holds)

    async def _wait(self, verdict: Verdict) -> None:
        if verdict.holds:
            self._in_flight.add(verdict.holds)
        try:
            await asyncio.sleep(verdict.wait.total_seconds())
        finally:
            if verdict.holds:
                self._in_flight.remove(verdict.holds)

    def _window(self, name: str, limit: Limit) -> Window:
        """A limit looks back over a restart, or the judge would be blind for one window."""
        return Window(limit, self.record.latest_calls(name, self._clock() - limit.window))


def _with_limits(
    answer: Answer, provider: Provider, allowance: Allowance, rule: Rule | None
) -> Answer:
    """A throttled client reads of an empty window, whatever ours holds."""
    if rule and rule.kind is Kind.THROTTLE:
        allowance = replace(allowance, remaining=0, reset=rule.seconds)
    return replace(answer, headers={**provider.limit_headers(allowance), **answer.headers})
