"""The W3C Trace Context of a request (https://www.w3.org/TR/trace-context/#traceparent-header)."""

import re
from collections.abc import Sequence

_FORM = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def valid(headers: Sequence[str]) -> str | None:
    """The header, if it came once and is one; else None, for a bad trace must not cost an event.

    A version after 00 may carry more behind another hyphen; what it has in common with 00 is kept.
    """
    if len(headers) != 1:
        return None
    found = _FORM.match(headers[0])
    if found is None:
        return None
    rest = headers[0][found.end() :]
    if rest and (found[1] == "00" or not rest.startswith("-")):
        return None
    return found[0]
