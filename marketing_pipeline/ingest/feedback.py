"""`POST /webhooks/{provider}`: what providers tell of mails that they took.

Each is answered 200, known or new: Mailgun's page names no other status after which it is content.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import assert_never

from marketing_pipeline import telemetry
from marketing_pipeline.campaigns import configuration
from marketing_pipeline.campaigns.document import ConfigError
from marketing_pipeline.campaigns.schema import ProviderEntry
from marketing_pipeline.event_log import feedback, intake
from marketing_pipeline.event_log.feedback import Recorded, Told, Verdict
from marketing_pipeline.ingest import body, problem
from marketing_pipeline.ingest.database import PATIENCE, STATEMENT_PATIENCE, Line, Unavailable
from marketing_pipeline.ingest.exchange import Answer, Request, as_json
from marketing_pipeline.ingest.problem import Rejected
from marketing_pipeline.providers import registry
from marketing_pipeline.providers.notices import (
    BadSecret,
    Ignored,
    Notice,
    Reader,
    Unreadable,
    Unverified,
)
from marketing_pipeline.settings import Settings

MAX_NOTICE = 256 * 1024  # bytes of a body
_TOKENS = 100_000  # of the latest notices; at some hundred bytes each


@dataclass(frozen=True, slots=True, kw_only=True)
class Openings:
    """Whose webhooks are read, by the names of the operator's file."""

    readers: Mapping[str, Reader]
    closed: Mapping[str, str]  # why nobody reads these, and what would change that
    otherwise: str  # the same of any other name


def openings(settings: Settings) -> Openings:
    """As the file and the environment are now: ingest reads them once, when it starts.

    A file that cannot be read closes all of them, and is told when one knocks: events are taken
    without it.
    """
    try:
        loaded = configuration.load(settings.campaigns_file, registry.KINDS)
    except ConfigError as error:
        return Openings(readers={}, closed={}, otherwise=str(error))
    found = {
        name: _reader(entry, settings.environment) for name, entry in loaded.file.providers.items()
    }
    return Openings(
        readers={name: one for name, one in found.items() if not isinstance(one, str)},
        closed={name: one for name, one in found.items() if isinstance(one, str)},
        otherwise=f"{settings.campaigns_file} has no provider of that name; correct the address",
    )


def _reader(entry: ProviderEntry, environment: Mapping[str, str]) -> Reader | str:
    """Who reads its webhooks, or why nobody does."""
    if entry.adapter not in registry.READERS:
        return f"webhooks of the adapter {entry.adapter} are not read"
    option, reader = registry.READERS[entry.adapter]
    match entry.options.get(option):
        case {"env": str(variable)}:
            pass
        case _:
            wanted = f"`{option}: {{env: NAME}}`"
            return f"the file has no {option}; write {wanted} and start ingest again"
    try:
        return reader(environment.get(variable, ""))
    except BadSecret as error:
        return f"{variable} {error}, then start ingest again"


class Feedback:
    """Takes notices in, one after the other: they are few, and each is a commit of its own."""

    def __init__(self, database_url: str, openings: Openings) -> None:
        self._line = Line(database_url)
        self._turn = asyncio.Lock()
        self._openings = openings
        self._vouched: OrderedDict[tuple[str, str], str] = OrderedDict()

    async def post(self, provider: str, request: Request) -> Answer:
        reader = self._openings.readers.get(provider)
        if reader is None:
            known = provider in self._openings.closed
            reason = self._openings.closed.get(provider, self._openings.otherwise)
            _refused(provider if known else None, reason)
            raise Rejected(problem.not_found())
        content = await body.content(request, MAX_NOTICE)
        now = datetime.now(UTC)
        reading = reader.read(lambda name: request.header(name.encode()), content, now)
        match reading:
            case Notice():
                return await self._take(provider, reading, now)
            case Ignored(type=type):
                telemetry.emit("feedback_ignored", provider=provider, type=type)
                return as_json({"status": "ignored"})
            case Unverified(reason=reason):
                _refused(provider, reason)
                raise Rejected(problem.unsigned())
            case Unreadable(reason=reason, status=status):
                _refused(provider, reason)
                raise Rejected(problem.unreadable(reason, status))
            case _:
                assert_never(reading)

    async def close(self) -> None:
        await self._line.close()

    async def _take(self, provider: str, notice: Notice, now: datetime) -> Answer:
        try:
            async with self._own_turn():
                recorded = await self._record(provider, notice, now)
        except Unavailable as error:
            raise Rejected(problem.unavailable(str(error), "send it again")) from None
        if recorded.verdict is Verdict.EARLY:
            detail = "a call to this recipient is not settled yet"
            raise Rejected(problem.unavailable(detail, "send it again a little later"))
        if recorded.verdict is Verdict.RECORDED:
            telemetry.emit(
                "feedback_recorded",
                level=logging.DEBUG,
                effect_id=recorded.effect_id,
                provider=provider,
                kind=str(notice.kind),
            )
        return as_json({"status": str(recorded.verdict)})

    @asynccontextmanager
    async def _own_turn(self) -> AsyncIterator[None]:
        """Who waits behind a database that does not answer gives up as the first one does."""
        try:
            async with asyncio.timeout(PATIENCE.total_seconds()):
                await self._turn.acquire()
        except TimeoutError:
            raise Unavailable("too many notices are waiting to be recorded") from None
        try:
            yield
        finally:
            self._turn.release()

    async def _record(self, provider: str, notice: Notice, now: datetime) -> Recorded:
        """In a turn of its own: of many under one signature, one at most is recorded."""
        if notice.token is not None and self._vouches_for_another(provider, notice):
            _refused(provider, "its signature came before, with another notice")
            raise Rejected(problem.unsigned())
        async with self._line.reached() as conn, conn.transaction():
            await intake.guard(conn, STATEMENT_PATIENCE)
            recorded = await feedback.record(conn, _told(provider, notice), now)
        if notice.token is not None and recorded.verdict is not Verdict.EARLY:
            self._remember(provider, notice.token, notice.id)
        return recorded

    def _vouches_for_another(self, provider: str, notice: Notice) -> bool:
        """Whether somebody who saw a signature that covers no body has put another under it."""
        before = self._vouched.get((provider, notice.token or ""))
        return before is not None and before != notice.id

    def _remember(self, provider: str, token: str, id: str) -> None:
        self._vouched[provider, token] = id
        if len(self._vouched) > _TOKENS:
            self._vouched.popitem(last=False)


def _told(provider: str, notice: Notice) -> Told:
    return Told(
        provider=provider,
        notice=notice.id,
        kind=str(notice.kind),
        occurred_at=notice.occurred_at,
        effect_id=notice.effect_id,
        reference=notice.reference,
        address=notice.address,
        excludes=notice.excludes,
        detail=notice.detail,
    )


def _refused(provider: str | None, reason: str) -> None:
    """provider: None for a name that anybody may have made up."""
    telemetry.emit("feedback_refused", level=logging.WARNING, provider=provider, reason=reason)
