"""Finds out what somebody means by a name: an id, a key, an address, a provider's reference."""

from uuid import UUID

from psycopg import AsyncConnection

from marketing_pipeline.domain import event
from marketing_pipeline.domain.payload import UNSTORABLE
from marketing_pipeline.event_log import queries, story
from marketing_pipeline.event_log.story import NoStory, Story

_SQL = queries.load("finding.sql")


async def find(
    conn: AsyncConnection, what: str, source: str | None = None, limit: int = 50
) -> Story:
    """The story of whatever has this name; with `source`, `what` is that sender's raw key.

    Raises:
        NoStory: nothing has it, or several things have.
        InvalidEvent: with `source`, which or whose key cannot be one.
    """
    if source is not None:
        key = event.idempotency_key(event.checked_source(source), what)
        rows = await queries.rows(conn, _SQL["keyed"], {"key": key})
        if not rows:
            raise NoStory(f"{source!r} has sent no event with the key {what!r}")
        return await story.of_event(conn, rows[0]["id"], limit)
    found = [] if UNSTORABLE.search(what) else await _named(conn, what.strip())
    match found:
        case [("event", UUID() as event_id)]:
            return await story.of_event(conn, event_id, limit)
        case [("effect", UUID() as effect_id)]:
            return await story.of_effect(conn, effect_id)
        case [("recipient", UUID() as person)]:
            return await story.of_recipient(conn, person, limit)
        case [("reference", str(reference))]:
            return await story.of_reference(conn, reference, limit)
        case []:
            raise NoStory(
                f"nothing is known by the name {what!r}; give the id of an event or an effect, an "
                "e-mail address, a provider's reference, or a sender's key together with --source"
            )
        case _:
            told = ", ".join(f"{kind} {name}" for kind, name in found)
            raise NoStory(f"{what!r} names several things; ask for one by its id: {told}")


async def _named(conn: AsyncConnection, what: str) -> list[tuple[str, UUID | str]]:
    """Everything that has this name: a provider's reference may look like anything."""
    found: list[tuple[str, UUID | str]] = []
    if (id := _uuid(what)) is not None:
        found += [
            ("event", row["id"])
            for row in await queries.rows(conn, _SQL["event named"], {"id": id})
        ]
        found += [
            ("effect", row["id"])
            for row in await queries.rows(conn, _SQL["effect named"], {"id": id})
        ]
    people = await queries.rows(conn, _SQL["person"], {"address": what.lower()})
    found += [("recipient", row["id"]) for row in people]
    for name in dict.fromkeys((what, what.strip("<>"))):  # a Message-Id, as mail programs show it
        if await queries.rows(conn, _SQL["reference"], {"reference": name}):
            found.append(("reference", name))
    return found


def _uuid(what: str) -> UUID | None:
    try:
        return UUID(what)
    except ValueError:
        return None
