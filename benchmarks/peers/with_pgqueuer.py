"""pgqueuer, set up as fast as its documentation allows: asyncpg, uvloop, batches of a hundred.

Of an outcome it keeps a line in its own log, that the job ended; `--outcomes` adds a row with the
answer, which the pipeline always writes.
"""
# mypy: disable-error-code="import-not-found, import-untyped, untyped-decorator, no-any-unimported"

import json

import asyncpg
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.models import Job
from pgqueuer.queries import Queries
from pgqueuer.types import QueueExecutionMode

from benchmarks.peers import worker

BATCH = 100
ENQUEUED = 1000  # in one statement
_OUTCOMES = """
create table if not exists outcomes (
    job_id bigint primary key, status_code int not null, at timestamptz not null default now())
"""
_OUTCOME = "insert into outcomes (job_id, status_code) values ($1, $2)"


async def main() -> None:
    told = worker.arguments()
    async with (
        asyncpg.create_pool(told.database, min_size=5, max_size=10) as pool,
        asyncpg.create_pool(told.database, min_size=10, max_size=10) as outcomes,
        worker.session() as session,
    ):
        queuer = PgQueuer.from_asyncpg_pool(pool)
        await _enqueue(Queries(queuer.connection), told.jobs)
        await pool.execute(_OUTCOMES)

        @queuer.entrypoint("call")
        async def call(job: Job) -> None:
            status = await worker.call(session, told.provider, str(job.id), job.payload or b"")
            if told.outcomes:
                await outcomes.execute(_OUTCOME, job.id, status)

        async with worker.clock():
            await queuer.run(batch_size=BATCH, mode=QueueExecutionMode.drain)


async def _enqueue(queries: Queries, jobs: int) -> None:
    if not await queries.schema_is_installed():
        await queries.install()
    body = json.dumps({"text": worker.TEXT}).encode()
    for at in range(0, jobs, ENQUEUED):
        count = min(ENQUEUED, jobs - at)
        await queries.enqueue(["call"] * count, [body] * count, [0] * count)


if __name__ == "__main__":
    uvloop.run(main())
