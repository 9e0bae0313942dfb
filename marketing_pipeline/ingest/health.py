"""Whether the process lives, and whether it could record an event now."""

import asyncio
from datetime import timedelta

from marketing_pipeline.event_log import intake, schema
from marketing_pipeline.ingest import problem
from marketing_pipeline.ingest.database import Line, Unavailable
from marketing_pipeline.ingest.exchange import Answer, Request, as_json
from marketing_pipeline.ingest.remembered import Remembered

_FRESH = timedelta(seconds=1)  # anybody may ask; the database is asked no more often than this


class Health:
    """Answers the two questions of whoever supervises this process."""

    def __init__(self, database_url: str, reach: str) -> None:
        """`reach` says what to do when the database is away."""
        self._line = Line(database_url)
        self._reach = reach
        self._revisions = Remembered(self._load)

    async def alive(self, _: Request) -> Answer:
        return as_json({"status": "alive"})

    async def ready(self, _: Request) -> Answer:
        try:
            revision, needed = await self._revisions.value(_FRESH)
        except Unavailable as error:
            return problem.unavailable(str(error), self._reach).answer()
        if revision != needed:
            return problem.unavailable(
                f"the schema is {revision or 'not there'}, this version needs {needed}",
                "run `marketing-pipeline migrate`, or the version that goes with the schema",
            ).answer()
        return as_json({"status": "ready", "schema": revision})

    async def close(self) -> None:
        await self._line.close()

    async def _load(self) -> tuple[str | None, str]:
        """The schema that there is, and the one that is needed."""
        async with self._line.reached() as conn:
            revision = await intake.revision(conn)
        return revision, await asyncio.to_thread(schema.newest)
