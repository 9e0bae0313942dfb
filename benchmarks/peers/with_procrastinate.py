"""procrastinate with a hundred jobs at a time; that a job succeeded is the outcome it records."""
# mypy: disable-error-code="import-not-found, untyped-decorator, no-any-unimported"

import logging

import uvloop
from procrastinate import App, PsycopgConnector

from benchmarks.peers import worker

DEFERRED = 1000  # in one statement


async def main() -> None:
    logging.getLogger("procrastinate").setLevel(logging.ERROR)
    told = worker.arguments()
    app = App(connector=PsycopgConnector(conninfo=told.database, min_size=10, max_size=20))
    async with app.open_async(), worker.session() as session:

        @app.task(name="call")
        async def call(number: int, text: str) -> None:
            body = f'{{"text":"{text}"}}'.encode()
            await worker.call(session, told.provider, str(number), body)

        if not await app.check_connection_async():
            await app.schema_manager.apply_schema_async()
        for at in range(0, told.jobs, DEFERRED):
            numbers = range(at, min(at + DEFERRED, told.jobs))
            await call.batch_defer_async(*({"number": n, "text": worker.TEXT} for n in numbers))
        async with worker.clock():
            await app.run_worker_async(
                concurrency=worker.CONNECTIONS, wait=False, install_signal_handlers=False
            )


if __name__ == "__main__":
    uvloop.run(main())
