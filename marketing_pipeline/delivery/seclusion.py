"""A process that can reach nobody, and says how often it tried.

Every call of a provider is a connection that the interpreter opens, and the interpreter tells its
audit hooks of each (PEP 578) before it is made. A hook cannot be removed, and one that raises stops
what it was told of. libpq opens its own connection to the log and is not told of here; the log's
transactions are read only.
"""

import sys

_OUTWARD = frozenset({"socket.connect", "socket.sendto", "socket.sendmsg"})


class Seclusion:
    """From now until the process ends, nobody is reached."""

    def __init__(self) -> None:
        self.tried = 0  # connections and datagrams refused
        sys.addaudithook(self._heard)

    def _heard(self, event: str, _: tuple[object, ...]) -> None:
        if event in _OUTWARD:
            self.tried += 1
            raise PermissionError("a replay calls nobody")
