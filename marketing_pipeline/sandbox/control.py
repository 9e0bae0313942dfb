"""The control API: what a test sets and what a judge reads; no part of any provider's contract."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict

from aiohttp import web

from marketing_pipeline.sandbox import summary, wishes
from marketing_pipeline.sandbox.desk import PROVIDERS, Desk
from marketing_pipeline.sandbox.faults import Faults

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def routes(desk: Desk) -> list[web.RouteDef]:
    """Writers answer 204, or 400 with the field, its problem and the remedy; readers answer JSON.

    faults: [{"provider", "kind", "share" or "times", "operation"?, "seconds"?, "seed"?}], see
    faults.Kind; a new list replaces the old one. limits: {provider: {"limit", "seconds"}}.
    settings: {"mailgun_index_delay"?: s, "latency"?: {provider: s}, "keys"?: {provider: key}}.
    webhooks: [{"provider", "url", "secret", "kinds", "times"?}], what is told from now on of each
    mail that is taken, see notices.KINDS; read, how each notice so far was answered.
    record and calls: the rows after ?since=n. summary: see summary.summary.
    """
    return [
        web.put("/_sandbox/faults", _put(lambda wish: _set_faults(desk, wish))),
        web.delete("/_sandbox/faults", _delete(lambda: _set_faults(desk, []))),
        web.put("/_sandbox/limits", _put(lambda wish: desk.set_limits(wishes.limits(wish)))),
        web.put("/_sandbox/settings", _put(lambda wish: _set_settings(desk, wish))),
        web.put("/_sandbox/webhooks", _put(lambda wish: _set_hooks(desk, wish))),
        web.get("/_sandbox/webhooks", _get(lambda _: [asdict(one) for one in desk.hooks.tellings])),
        web.get("/_sandbox/record", _get(lambda since: summary.acts(desk.record, since))),
        web.get("/_sandbox/calls", _get(lambda since: summary.calls(desk.record, since))),
        web.get("/_sandbox/summary", _get(lambda _: summary.summary(desk.record, PROVIDERS))),
        web.delete("/_sandbox/record", _delete(desk.empty_record)),
    ]


def _set_faults(desk: Desk, wish: object) -> None:
    desk.faults = Faults(wishes.faults(wish, PROVIDERS))


def _set_settings(desk: Desk, wish: object) -> None:
    desk.settings = wishes.settings(wish, desk.settings)


def _set_hooks(desk: Desk, wish: object) -> None:
    desk.hooks.wanted = wishes.hooks(wish)


def _put(change: Callable[[object], None]) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            change(_document(await request.read()))
        except wishes.BadWish as bad:
            return _refused(bad)
        return web.Response(status=204)

    return handle


def _get(read: Callable[[int], object]) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            since = wishes.since(request.query.get("since", "0"))
        except wishes.BadWish as bad:
            return _refused(bad)
        return web.json_response(read(since))

    return handle


def _delete(forget: Callable[[], None]) -> Handler:
    async def handle(_: web.Request) -> web.StreamResponse:
        forget()
        return web.Response(status=204)

    return handle


def _document(body: bytes) -> object:
    try:
        return json.loads(body)
    except ValueError as bad:
        raise wishes.BadWish("body", f"is not JSON ({bad})", "send a JSON document") from bad


def _refused(bad: wishes.BadWish) -> web.StreamResponse:
    document = {"field": bad.field, "problem": bad.problem, "remedy": bad.remedy}
    return web.json_response({"error": str(bad), **document}, status=400)
