"""Faults of an engine, put into a control's child process: the judge must catch each."""

import functools
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from marketing_pipeline.delivery import calling, claiming, run, settling, writing_out
from marketing_pipeline.delivery.calling import LastCheck
from marketing_pipeline.delivery.claiming import Call, Claim
from marketing_pipeline.delivery.lane import Lane
from marketing_pipeline.delivery.serving import Leave, Service
from marketing_pipeline.domain.decide import Settle
from marketing_pipeline.domain.outcome import Accepted
from marketing_pipeline.providers.transport import AnswerLost, NotWritten, Transport
from marketing_pipeline_tests.chaos import recipe


def records_the_attempt_after_the_call() -> None:
    """The claim and its attempts are committed only when the calls have been made."""

    async def start(self: Lane, leave: Leave, *, enough: int) -> None:
        async with self.service.pool.connection() as conn, conn.transaction():
            claim = await claiming.claim(
                conn, self.destination, self.contents, leave.grant.calls, claiming.front()
            )
            for one in claim.calls:
                await self.service.serve(one, claim, leave)
        self._slots.kept -= leave.grant.calls
        self._more = len(claim.calls) >= enough

    async def reserve(self: Lane, effects: int) -> None:  # noqa: ARG001 - all goes through `start`
        return None

    _replace(Lane, "_start", start)
    _replace(Lane, "reserve", reserve)


def believes_that_a_lost_answer_was_never_asked_for() -> None:
    """What an engine does that takes httpx-aiohttp's ConnectTimeout at its word."""
    honest = Transport.send

    @functools.wraps(honest)
    async def send(self: Transport, *arguments: Any, **options: Any) -> Any:
        try:
            return await honest(self, *arguments, **options)
        except AnswerLost as error:
            raise NotWritten(f"ConnectTimeout: {error.reason}") from error

    _replace(Transport, "send", send)


def settles_before_the_call() -> None:
    """A checkpoint that is advanced when work is fetched: whoever dies then has lost it."""

    async def serve(self: Service, call: Call, claim: Claim, leave: Leave) -> None:
        assert claim.begun is not None
        self.settler.put(
            settling.settlement(
                call,
                claim.id,
                Accepted("fetched"),
                Settle("fetched"),
                status_code=None,
                latency=timedelta(0),
            )
        )
        await self.settler.drained()
        check = LastCheck(grant_until=leave.asked + 60, claim_until=claim.began + 60)
        now = claim.begun.now
        made = await calling.make(self.transport, self.destination.provider, call, now, check)
        self.gate.note(leave.grant, made.health, made.observed)

    _replace(Service, "serve", serve)


def follows_the_usual_recipe() -> None:
    """No ledger at all; see `recipe`."""
    _replace(run, "deliver", recipe.deliver)


def writes_plans_in_small_chunks() -> None:
    """No fault: a plan of thousands, in miniature, so that a strike can come between its chunks."""
    _replace(writing_out, "CHUNK", 1)


VARIATIONS: Mapping[str, Callable[[], None]] = {
    one.__name__.replace("_", " "): one
    for one in (
        records_the_attempt_after_the_call,
        believes_that_a_lost_answer_was_never_asked_for,
        settles_before_the_call,
        follows_the_usual_recipe,
        writes_plans_in_small_chunks,
    )
}


def _replace(owner: Any, name: str, faulty: Any) -> None:
    """In this process only, which is a control's own child."""
    assert hasattr(owner, name), f"{owner} has no {name} any more: mend this control"
    setattr(owner, name, faulty)
