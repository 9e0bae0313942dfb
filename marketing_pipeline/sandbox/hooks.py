"""Webhooks of the sandbox: what it tells of mails that it took, to whom, and how that answers."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

import aiohttp

from marketing_pipeline.sandbox import notices
from marketing_pipeline.sandbox.notices import Mail, Notice

_WAITS = (0.2, 0.5, 1.0, 2.0, 4.0)  # seconds before each repeat; in earnest these are hours
_AT_ONCE = 20  # connections
_PATIENCE = aiohttp.ClientTimeout(total=10)
_NEVER_AGAIN = 406  # what Mailgun hears this in


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """What is told of every mail of a provider's."""

    provider: str
    url: str
    secret: str = field(repr=False)
    kinds: tuple[str, ...]  # of notices.KINDS, one after the other
    times: int  # how often each is told, though the first was heard


@dataclass(slots=True)
class Telling:
    """A notice and what its attempts were answered; None: nothing was."""

    provider: str
    kind: str
    ref: str
    statuses: list[int | None] = field(default_factory=list)


class Hooks:
    """Hooks and tellings live as long as the process, like faults."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self.wanted: tuple[Hook, ...] = ()
        self.tellings: list[Telling] = []
        self._clock = clock
        self._under_way: set[asyncio.Task[None]] = set()
        self._client: aiohttp.ClientSession | None = None

    def want(self, provider: str) -> bool:
        """Does anybody want to be told of this provider's mails?"""
        return any(hook.provider == provider for hook in self.wanted)

    def follow(self, provider: str, mails: Sequence[Mail]) -> None:
        """Tell of these mails from now on; mail by mail each kind waits for the one before."""
        for hook in self.wanted:
            if hook.provider != provider:
                continue
            for mail in mails:
                task = asyncio.create_task(self._tell(hook, mail))
                self._under_way.add(task)
                task.add_done_callback(self._under_way.discard)

    async def close(self) -> None:
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        if self._client is not None:
            await self._client.close()

    async def _tell(self, hook: Hook, mail: Mail) -> None:
        for kind in hook.kinds:
            notice = Notice(mail=mail, kind=kind, at=self._clock())
            for _ in range(hook.times):
                telling = Telling(hook.provider, kind, mail.ref)
                self.tellings.append(telling)
                await self._until_heard(hook, notice, telling)

    async def _until_heard(self, hook: Hook, notice: Notice, telling: Telling) -> None:
        """Mailgun is content with 200 alone, gives up at 406, and tells a delivery but once."""
        mailgun = hook.provider == "mailgun"
        waits = () if mailgun and notice.kind == "delivered" else _WAITS
        for wait in (*waits, None):
            status = await self._post(hook, notice)
            telling.statuses.append(status)
            heard = status == 200 if mailgun else status is not None and 200 <= status < 300
            if heard or wait is None or (mailgun and status == _NEVER_AGAIN):
                return
            await asyncio.sleep(wait)

    async def _post(self, hook: Hook, notice: Notice) -> int | None:
        if self._client is None:
            connector = aiohttp.TCPConnector(limit=_AT_ONCE)
            self._client = aiohttp.ClientSession(connector=connector, timeout=_PATIENCE)
        post = notices.post(hook.provider, hook.secret, notice, self._clock())
        with suppress(aiohttp.ClientError, TimeoutError):  # nobody there is an answer, too
            async with self._client.post(hook.url, data=post.body, headers=post.headers) as answer:
                return answer.status
        return None
