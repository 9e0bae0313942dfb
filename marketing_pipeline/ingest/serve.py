"""Runs the ingest service in this process."""

import logging
from socket import socket

import uvicorn

from marketing_pipeline import telemetry
from marketing_pipeline.garbage import collected_seldom
from marketing_pipeline.ingest.app import Ingest, create_app
from marketing_pipeline.settings import Settings

_KEEP_ALIVE = 75  # seconds; senders keep connections for a minute, and should be the first to close
_GRACE = 20  # seconds to finish on SIGTERM: more than a body and the database may take together


def serve(
    settings: Settings, database_url: str, *, host: str | None = None, port: int | None = None
) -> None:
    """Serve until SIGTERM or SIGINT, then finish what was accepted.

    Host and port come from the settings where they are not given: 127.0.0.1, since keys travel in
    clear; a proxy in front does TLS. Port 0 takes a free one, which the log names.
    """
    run(
        create_app(settings, database_url),
        host=settings.ingest_host if host is None else host,
        port=settings.ingest_port if port is None else port,
    )


def run(
    app: Ingest, *, host: str = "127.0.0.1", port: int = 0, sockets: list[socket] | None = None
) -> None:
    """Run the application with this service's server and log, at an address or on sockets."""
    telemetry.configure_logging()
    _log_as_we_do()
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        workers=1,  # one process shares its group commit
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,  # nothing here asks who the client is
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=_GRACE,
    )
    with collected_seldom():
        uvicorn.Server(config).run(sockets)


class WithoutValues(logging.Filter):
    """Tells an exception by its class and place: its message may quote what was sent."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and record.exc_info[0] is not None:
            kind, _, trace = record.exc_info
            while trace is not None and trace.tb_next is not None:
                trace = trace.tb_next
            code = trace.tb_frame.f_code if trace else None
            place = f"{code.co_filename}:{trace.tb_lineno}" if code and trace else None
            record.__dict__["fields"] = {"exception": kind.__name__, "at_line": place}
            record.exc_info = None
        return True


def _log_as_we_do() -> None:
    """The server's own lines go where ours go, in the same form."""
    ours = logging.getLogger("marketing_pipeline")
    server = logging.getLogger("uvicorn")
    server.handlers[:] = ours.handlers
    server.setLevel(logging.INFO)
    server.propagate = False
    logging.getLogger("uvicorn.error").addFilter(WithoutValues())
    logging.getLogger("psycopg").setLevel(logging.ERROR)  # its warnings quote the database
