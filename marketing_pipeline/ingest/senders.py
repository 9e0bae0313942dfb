"""Who sends: bearer keys, kept in memory for at most as long as a revoked one may still work."""

import hmac
from collections.abc import Mapping
from datetime import timedelta

from marketing_pipeline.domain import digest
from marketing_pipeline.event_log import intake
from marketing_pipeline.ingest import problem
from marketing_pipeline.ingest.database import Line
from marketing_pipeline.ingest.problem import Rejected
from marketing_pipeline.ingest.remembered import Remembered

REVOKED_WITHIN = timedelta(seconds=10)
_RELOAD = timedelta(seconds=1)  # unknown keys make no more queries than one a second


class Senders:
    """The keys that may be used now."""

    def __init__(self, database_url: str) -> None:
        self._line = Line(database_url)
        self._keys = Remembered(self._load)

    async def source_of(self, authorization: str | None) -> str:
        """Whose key it is.

        Raises:
            Rejected: there is no key, or it is not valid.
            Unavailable: keys are too old to be trusted, and the database does not answer.
        """
        if authorization is None:
            raise Rejected(problem.unauthorized("there is no key", token_given=False))
        key_id, secret = _parts(authorization)
        keys = await self._keys.value(REVOKED_WITHIN)
        if key_id not in keys:
            keys = await self._keys.value(_RELOAD)
        source, secret_sha256 = keys.get(key_id, ("", ""))
        if not hmac.compare_digest(digest.sha256(secret.encode()), secret_sha256):
            raise Rejected(problem.unauthorized("the key is not valid", token_given=True))
        return source

    async def close(self) -> None:
        await self._line.close()

    async def _load(self) -> Mapping[str, tuple[str, str]]:
        async with self._line.reached() as conn:
            return await intake.active_keys(conn)


def _parts(authorization: str) -> tuple[str, str]:
    """Id and secret of a `Bearer mk_<id>_<secret>`; a secret may hold underscores."""
    scheme, _, token = authorization.partition(" ")
    parts = token.strip().split("_", 2)
    if scheme.lower() != "bearer" or len(parts) != 3 or parts[0] != "mk":
        raise Rejected(problem.unauthorized("that is no key of this service", token_given=True))
    return parts[1], parts[2]
