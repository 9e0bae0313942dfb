"""A way to a PostgreSQL server that can be cut, frozen, or lose the answer to a commit."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import quote

from psycopg.conninfo import conninfo_to_dict

_PIECE = 65536


class Proxy:
    """Passes bytes both ways between its port and the server."""

    def __init__(self, database_url: str) -> None:
        self._server = conninfo_to_dict(database_url)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._port: int = self._listener.getsockname()[1]
        self._flows = threading.Event()
        self._flows.set()
        self._lose_commit = threading.Event()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.commits_lost = 0
        self._start(self._accept, self._listener)

    @property
    def url(self) -> str:
        user, name = (quote(str(self._server[part])) for part in ("user", "dbname"))
        return f"postgresql://{user}@127.0.0.1:{self._port}/{name}"

    def away(self) -> None:
        """As after a stop: connections end, and new ones are refused."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def back(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self._port))
        self._start(self._accept, self._listener)

    def cut(self) -> None:
        """As after a crash: connections end in the midst of whatever they are at."""
        for one in self._sockets:
            _close(one)
        self._sockets.clear()

    def freeze(self) -> None:
        """As with a cable that was pulled: nothing moves, nothing ends."""
        self._flows.clear()

    def thaw(self) -> None:
        self._flows.set()

    def lose_next_commit(self) -> None:
        """The server commits, but its answer does not arrive and the connection ends."""
        self._lose_commit.set()

    def close(self) -> None:
        self.thaw()
        self.away()
        for thread in self._threads:
            thread.join(timeout=5)

    def _start(self, run: object, *arguments: object) -> None:
        assert callable(run)
        thread = threading.Thread(target=run, args=arguments, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:  # it was closed
                return
            server = self._connect()
            losing = threading.Event()
            self._sockets += [client, server]
            self._start(self._pass_on, client, server, losing)
            self._start(self._pass_back, server, client, losing)

    def _connect(self) -> socket.socket:
        host, port = str(self._server["host"]), self._server.get("port", 5432)
        if host.startswith("/"):
            server = socket.socket(socket.AF_UNIX)
            server.connect(f"{host}/.s.PGSQL.{port}")
            return server
        return socket.create_connection((host, int(port or 5432)))

    def _pass_on(self, client: socket.socket, server: socket.socket, lose: threading.Event) -> None:
        for data in _pieces(client):
            self._flows.wait()
            if b"COMMIT" in data and self._lose_commit.is_set():
                self._lose_commit.clear()
                self.commits_lost += 1
                lose.set()
            with suppress(OSError):
                server.sendall(data)
        _close(server)

    def _pass_back(
        self, server: socket.socket, client: socket.socket, lose: threading.Event
    ) -> None:
        for data in _pieces(server):
            self._flows.wait()
            if lose.is_set() and b"COMMIT\0" in data:  # its tag, so it has committed
                break
            with suppress(OSError):
                client.sendall(data)
        _close(client)


@contextmanager
def proxied(database_url: str) -> Iterator[Proxy]:
    proxy = Proxy(database_url)
    try:
        yield proxy
    finally:
        proxy.close()


def _pieces(source: socket.socket) -> Iterator[bytes]:
    with suppress(OSError):
        while data := source.recv(_PIECE):
            yield data


def _close(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
