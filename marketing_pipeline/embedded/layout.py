"""Where everything of the embedded servers lies under one state folder."""

import hashlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from marketing_pipeline.embedded.failure import EmbeddedError, from_os

# sun_path holds 108 bytes with the closing NUL on Linux, 104 on macOS.
_SOCKET_PATH_LIMIT = 103 if sys.platform == "darwin" else 107
_LONGEST_SOCKET = ".s.PGSQL.5432"


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """How to reach the servers; plain URLs, good for psycopg, SQLAlchemy and redis-py."""

    database_url: str  # the log's database ("marketing")
    redis_url: str
    dagster_url: str  # Dagster's own database ("dagster")


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths under one state folder; a pure function of it, so all processes agree."""

    root: Path  # absolute, symbolic links resolved

    @property
    def run(self) -> Path:
        """Locks and, where their path is short enough, sockets."""
        return self.root / "run"

    @property
    def sockets(self) -> Path:
        """The folder of all sockets; `run`, or a short one where `run` is too deep to bind in.

        The short one is always in /tmp and never in TMPDIR: a cron job and a shell may have
        different TMPDIRs and must still find the same server.
        """
        if len(os.fsencode(self.run / _LONGEST_SOCKET)) <= _SOCKET_PATH_LIMIT:
            return self.run
        digest = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:16]
        return Path("/tmp") / f"marketing-{digest}"  # noqa: S108 (0700, and its owner is checked)

    @property
    def users_lock(self) -> Path:
        """Held shared by each process that uses the servers, for its life."""
        return self.run / "users.lock"

    @property
    def start_lock(self) -> Path:
        """Held while a supervisor is being started, so that only one is."""
        return self.run / "start.lock"

    @property
    def supervisor_lock(self) -> Path:
        """Held by the supervisor for its life."""
        return self.run / "supervisor.lock"

    @property
    def control(self) -> Path:
        """The supervisor's socket."""
        return self.sockets / "control.sock"

    @property
    def valkey_socket(self) -> Path:
        return self.sockets / "valkey.sock"

    @property
    def postgres(self) -> Path:
        """Holds PostgreSQL's data folder; closed to others even when `nobody` runs the server."""
        return self.root / "postgres"

    @property
    def valkey(self) -> Path:
        """Valkey's append-only files."""
        return self.root / "valkey"

    @property
    def logs(self) -> Path:
        return self.root / "log"

    @property
    def servers(self) -> Servers:
        # The port is part of the socket's name and stands in the URL, since libpq would
        # otherwise take it from PGPORT.
        query = f"host={quote(str(self.sockets), safe='/')}&port=5432"
        return Servers(
            database_url=f"postgresql://postgres@/marketing?{query}",
            redis_url=f"unix://{quote(str(self.valkey_socket), safe='/')}",
            dagster_url=f"postgresql://postgres@/dagster?{query}",
        )


def layout(state_dir: Path) -> Layout:
    return Layout(state_dir.expanduser().resolve())


def prepare(where: Layout) -> None:
    """Make the folders, private to their owner.

    Raises:
        EmbeddedError: a folder cannot be made or written, or is not ours alone.
    """
    try:
        where.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (where.run, where.postgres, where.valkey, where.logs, where.sockets):
            folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise from_os(f"the state folder {where.root} cannot be used", error) from error
    for folder in (where.root, where.run, where.postgres, where.valkey, where.logs):
        if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            raise EmbeddedError(
                f"the state folder {folder} belongs to user {folder.stat().st_uid} and user "
                f"{os.geteuid()} may not write it: run as its owner, change its owner "
                f"(chown -R), or point MARKETING_STATE at a folder of your own"
            )
    # Whoever can enter the sockets' folder is let in without a password.
    _check_private(where.run, where)
    _check_private(where.sockets, where)


def _check_private(folder: Path, where: Layout) -> None:
    found = folder.lstat()
    trusted = {os.geteuid(), where.root.stat().st_uid}
    if folder.is_symlink() or found.st_uid not in trusted or found.st_mode & 0o077:
        raise EmbeddedError(
            f"{folder} holds sockets that need no password, but it is not a folder that only "
            f"its owner can enter (owner {found.st_uid}, mode {found.st_mode & 0o777:o}): "
            f"remove it, or chmod 700 it if it is yours, or choose another MARKETING_STATE"
        )
