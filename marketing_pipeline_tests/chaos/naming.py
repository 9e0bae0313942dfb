"""Names messages by what they say, so that a strike finds the same one in another run.

No two runs exchange equally many messages, and the order of those on different connections is
chance. But each run has a first COMMIT of a settlement, and an answer to it.
"""

import re
from dataclasses import dataclass

_SENTENCE = re.compile(rb"-- ([^.;,:?\n]+)")
_COMMAND = re.compile(rb"\*\d+\r\n\$\d+\r\n(\w+)\r\n")
_VERB = re.compile(rb"\r\n(grant|give_back|pause|rebuild|LIB-NAME|LIB-VER)\r\n")
_KEY = re.compile(rb"\r\n(high_water|gate):")
_BRIEF = ("BEGIN", "COMMIT", "ROLLBACK", "DECLARE", "FETCH", "CLOSE", "listen")
# What an idle engine asks again and again; to strike at the first few of each is enough.
POLLS = ("Leases that ran out", "How many effects of a provider", "When the next effect")


@dataclass(slots=True)
class Talk:
    """One connection's last request, from which answers and commits have their names."""

    target: str
    _asked: str = "nothing"
    _statement: str = "nothing"

    def request(self, message: bytes) -> str:
        said = _provider(message) or _valkey(message) or self._postgres(message)
        self._asked = said
        return f"{self.target} > {said}"

    def answer(self, message: bytes) -> str:  # noqa: ARG002 - what it answers names it
        return f"{self.target} < {self._asked}"

    def _postgres(self, message: bytes) -> str:
        found = _SENTENCE.search(message)
        if found:
            self._statement = found[1].decode()
            return self._statement
        for word in _BRIEF:
            if word.encode() in message[:40]:
                return f"{word} after {self._statement}" if word == "COMMIT" else word
        if message[:1] == b"X":
            return "goodbye"
        return "startup" if message[:1] == b"\0" else f"again {self._statement}"


def is_poll(name: str) -> bool:
    return any(poll in name for poll in POLLS)


def _provider(message: bytes) -> str | None:
    line = message.partition(b"\r\n")[0]
    if not line.endswith(b"HTTP/1.1"):
        return None
    method, path = line.decode().split()[:2]
    parts = path.partition("?")[0].split("/")
    return f"{method} {parts[1]} {parts[-1].partition('_')[0]}"


def _valkey(message: bytes) -> str | None:
    command = _COMMAND.match(message)
    if command is None:
        return None
    about = _VERB.search(message) or _KEY.search(message)
    return command[1].decode() + (f" {about[1].decode()}" if about else "")
