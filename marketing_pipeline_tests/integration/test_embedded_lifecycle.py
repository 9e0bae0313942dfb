"""The embedded servers under many users, kills and odd folders; every user is a real process."""

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
import redis

from marketing_pipeline import embedded
from marketing_pipeline.embedded import locks, postgres, server, supervisor
from marketing_pipeline.embedded.layout import layout
from marketing_pipeline_tests.patience import until

# Attaches each time it reads a line, says where to, and lives until its input ends.
USER = """
import json, sys
from pathlib import Path
from marketing_pipeline import embedded
for line in sys.stdin:
    asked = json.loads(line)
    try:
        told = embedded.attach(Path(asked.pop("state_dir")), **asked)
        print(json.dumps({"database_url": told.database_url, "redis_url": told.redis_url}))
    except embedded.EmbeddedError as error:
        print(json.dumps({"error": str(error)}))
    sys.stdout.flush()
"""


@dataclass(frozen=True, slots=True)
class User:
    """A process that can attach."""

    process: "subprocess.Popen[str]"
    state: Path

    def ask(self, **options: bool) -> None:
        assert self.process.stdin is not None
        print(json.dumps({"state_dir": str(self.state), **options}), file=self.process.stdin)
        self.process.stdin.flush()

    def told(self) -> dict[str, str]:
        assert self.process.stdout is not None
        told: dict[str, str] = json.loads(self.process.stdout.readline())
        return told

    def attach(self, **options: bool) -> dict[str, str]:
        self.ask(**options)
        return self.told()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def user(state: Path, command: tuple[str, ...] = ()) -> Iterator[User]:
    with subprocess.Popen(
        [*command, sys.executable, "-c", USER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd="/",
    ) as process:
        try:
            yield User(process, state)
        finally:
            process.kill()


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "state"
    yield folder
    embedded.stop(folder, force=True)


def pids(state: Path) -> dict[str, int]:
    return {one.name: one.pid for one in embedded.status(state).servers}


def is_gone(pid: int) -> bool:
    try:
        return "State:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


def all_ended(state: Path) -> bool:
    """Whether no process of either server is left: each holds its server's lock."""
    taken = [locks.try_take(layout(state).run / f"{name}.lock") for name in ("postgres", "valkey")]
    for descriptor in taken:
        if descriptor is not None:
            os.close(descriptor)
    return None not in taken


def test_six_starters_at_once_share_one_supervisor(state: Path) -> None:
    with ExitStack() as stack:
        starters = [stack.enter_context(user(state)) for _ in range(6)]
        for starter in starters:
            starter.ask()
        assert len({starter.told()["database_url"] for starter in starters}) == 1
        status = embedded.status(state)
        assert sorted(status.users) == sorted(starter.process.pid for starter in starters)
    notes = (state / "log" / "supervisor.log").read_text()
    assert notes.count("started postgres") == notes.count("started valkey") == 1


def test_both_databases_and_valkey_answer_in_utc(state: Path) -> None:
    with user(state) as someone:
        told = someone.attach()
        servers = layout(state).servers
        for url in (servers.database_url, servers.dagster_url):
            with psycopg.connect(url) as conn:
                row = conn.execute("select current_setting('timezone'), 'a' < 'B'").fetchone()
                assert row == ("UTC", False)  # by code point, on any machine
        with redis.Redis.from_url(told["redis_url"]) as client:
            settings = client.config_get("append*", "maxmemory-policy")
        assert settings["appendonly"] == "yes"
        assert settings["appendfsync"] == "everysec"
        assert settings["maxmemory-policy"] == "noeviction"


def test_the_first_of_the_wal_is_there_before_it_is_needed(state: Path) -> None:
    with user(state) as someone:
        someone.attach()
        with psycopg.connect(layout(state).servers.database_url, autocommit=True) as conn:
            assert _segments_made_for(conn, mebibytes=100) == 0
            assert _segments_made_for(conn, mebibytes=250) > 0, "what is not there is made"


def _segments_made_for(conn: psycopg.Connection, *, mebibytes: int) -> int:
    """Writes to new segments of the WAL that this session did while it wrote so much."""
    made = (
        "select coalesce(sum(writes), 0)::int from pg_stat_io"
        " where object = 'wal' and context = 'init' and backend_type = 'client backend'"
    )
    found = []
    for many in (0, mebibytes):
        conn.execute(
            "select pg_logical_emit_message(false, 'test', repeat('x', 1048576))"
            " from generate_series(1, %s)",
            (many,),
        )
        conn.execute("select pg_stat_force_next_flush()")
        row = conn.execute(made).fetchone()
        assert row is not None
        found.append(int(row[0]))
    return found[1] - found[0]


def test_an_attached_process_holds_one_descriptor_however_often_it_attaches(state: Path) -> None:
    with user(state) as someone:
        before = len(os.listdir(f"/proc/{someone.process.pid}/fd"))
        for _ in range(3):
            someone.attach()
        assert len(os.listdir(f"/proc/{someone.process.pid}/fd")) == before + 1


def test_servers_outlive_each_user_but_the_last_and_stop_within_eight_seconds_of_its_kill(
    state: Path,
) -> None:
    with user(state) as first:
        first.attach()
        before = pids(state)
        first.kill()
    with user(state) as last:
        last.attach()
        time.sleep(supervisor.GRACE.total_seconds() + 1)
        assert pids(state) == before, "a newcomer within the grace keeps the same servers"
        last.kill()
        # asking is not using: a monitor that looks every second must not keep them up
        until(lambda: embedded.status(state).supervisor is None, seconds=8)
    until(lambda: all_ended(state), seconds=2)
    assert not (state / "postgres" / "data" / "postmaster.pid").exists(), "it did not stop cleanly"


def test_a_forked_child_keeps_its_parents_share(state: Path) -> None:
    code = (
        "import os, time; from pathlib import Path; from marketing_pipeline import embedded;"
        f"embedded.attach(Path({str(state)!r}));"
        "os.fork() and os._exit(0); print(os.getpid(), flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as one:
        assert one.stdout is not None
        child = int(one.stdout.readline())
        one.wait()
        free = locks.try_take(layout(state).users_lock)
        os.kill(child, signal.SIGKILL)
        assert free is None
    until(lambda: locks.try_take(layout(state).users_lock) is not None, seconds=2)


def test_a_killed_postmaster_comes_back_on_the_same_socket_with_the_same_data(state: Path) -> None:
    with user(state) as someone:
        url = someone.attach()["database_url"]
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute("create table kept as select 42 as answer")
        before = pids(state)
        os.kill(before["postgres"], signal.SIGKILL)
        until(lambda: pids(state).get("postgres") not in (None, before["postgres"]), seconds=8)
        with psycopg.connect(url) as conn:
            assert conn.execute("select answer from kept").fetchone() == (42,)
        assert pids(state)["valkey"] == before["valkey"]


def test_a_killed_valkey_comes_back_with_its_last_second_at_most_missing(state: Path) -> None:
    with user(state) as someone, closing(redis.Redis.from_url(someone.attach()["redis_url"])) as r:
        r.set("pause", "until noon")
        time.sleep(1.5)
        before = pids(state)["valkey"]
        os.kill(before, signal.SIGKILL)
        until(lambda: pids(state).get("valkey") not in (None, before), seconds=8)
        assert r.get("pause") == b"until noon"


def test_servers_fall_with_a_killed_supervisor_and_the_next_attach_starts_anew(state: Path) -> None:
    with user(state) as someone:
        url = someone.attach()["database_url"]
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute("create table kept as select 42 as answer")
        old = embedded.status(state)
        assert old.supervisor is not None
        os.kill(old.supervisor, signal.SIGKILL)
        until(lambda: all_ended(state), seconds=8)
        until(lambda: all(is_gone(one.pid) for one in old.servers), seconds=2)
        someone.attach()
        assert embedded.status(state).supervisor not in (None, old.supervisor)
        with psycopg.connect(url) as conn:
            assert conn.execute("select answer from kept").fetchone() == (42,)


def test_an_attach_right_behind_the_supervisors_death_waits_for_the_old_servers(
    state: Path,
) -> None:
    with user(state) as someone:
        someone.attach()
        supervising = embedded.status(state).supervisor
        assert supervising is not None
        os.kill(supervising, signal.SIGKILL)
        with psycopg.connect(someone.attach()["database_url"]) as conn:
            assert conn.execute("select 1").fetchone() == (1,)


def listening_inodes() -> set[str]:
    """Inodes of all TCP sockets that listen (state 0A), by the kernel's table."""
    tables = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
    rows = "".join(table.read_text() for table in tables if table.exists()).splitlines()
    return {row.split()[9] for row in rows if row.split()[3] == "0A"}


def listens_on_tcp(pid: int) -> bool:
    held = set[str]()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            held.add(str(descriptor.readlink()))
    return any(f"socket:[{inode}]" in held for inode in listening_inodes())


def test_nothing_listens_on_tcp(state: Path) -> None:
    with user(state) as someone:
        someone.attach()
        status = embedded.status(state)
        assert status.supervisor is not None
        for pid in (status.supervisor, *(one.pid for one in status.servers)):
            assert not listens_on_tcp(pid)


def test_the_look_for_listeners_finds_one() -> None:
    with socket.create_server(("127.0.0.1", 0)):
        assert listens_on_tcp(os.getpid())


@pytest.mark.parametrize(
    ("given", "started"),
    [
        ({"redis_url"}, {"postgres"}),
        ({"database_url", "dagster_url"}, {"valkey"}),
        ({"database_url", "redis_url"}, {"postgres"}),  # Dagster's is still missing
    ],
)
def test_only_what_is_missing_is_started(state: Path, given: set[str], started: set[str]) -> None:
    urls = {name: "elsewhere" if name in given else None for name in
            ("database_url", "redis_url", "dagster_url")}  # fmt: skip
    found = embedded.resolve(state, **urls)
    assert pids(state).keys() == started
    assert {name for name in urls if getattr(found, name) == "elsewhere"} == given


def test_nothing_is_started_or_made_when_every_url_is_given(state: Path) -> None:
    found = embedded.resolve(state, database_url="a", redis_url="b", dagster_url="c")
    assert found == embedded.Servers(database_url="a", redis_url="b", dagster_url="c")
    assert embedded.status(state).supervisor is None
    assert not state.exists()


def test_what_was_not_started_at_first_is_started_for_a_later_user(state: Path) -> None:
    with user(state) as first, user(state) as second:
        first.attach(postgres=False)
        before = pids(state)
        assert before.keys() == {"valkey"}
        second.attach()
        assert pids(state).keys() == {"postgres", "valkey"}
        assert pids(state)["valkey"] == before["valkey"]


@pytest.mark.parametrize("name", ["d" * 120, 'a folder, with "quotes" & ünïcode %20'])
def test_any_path_will_do(tmp_path: Path, name: str) -> None:
    state = tmp_path / name
    with user(state) as someone:
        told = someone.attach()
        with psycopg.connect(told["database_url"]) as conn:
            assert conn.execute("select 1").fetchone() == (1,)
        with redis.Redis.from_url(told["redis_url"]) as client:
            assert client.ping()
    embedded.stop(state, force=True)
    if name.startswith("d"):
        assert state not in layout(state).sockets.parents
        assert not layout(state).sockets.exists(), "the short folder was left behind"


def test_a_stale_pid_of_a_foreign_living_process_is_not_signalled(state: Path) -> None:
    with user(state) as someone:
        someone.attach()
    embedded.stop(state, force=True)
    with subprocess.Popen(["sleep", "60"]) as foreign:
        owner = (state / "postgres" / "data").stat()
        for file in (
            state / "postgres" / "data" / "postmaster.pid",
            state / "valkey" / "data" / "valkey.pid",
        ):
            file.write_text(f"{foreign.pid}\n")
            os.chown(file, owner.st_uid, owner.st_gid)
        with user(state) as someone:
            assert "error" not in someone.attach()
        embedded.stop(state, force=True)
        assert foreign.poll() is None
        foreign.kill()


@pytest.mark.parametrize("holds_lock", [True, False])
def test_a_server_that_lost_its_supervisor_is_ended_but_one_started_by_hand_is_not(
    state: Path, holds_lock: bool
) -> None:
    with user(state) as someone:
        someone.attach(valkey=False)
    embedded.stop(state, force=True)
    recipe = postgres.recipe(layout(state))
    lock = locks.try_take(recipe.lock)
    assert lock is not None
    with subprocess.Popen(
        [*(part for part in recipe.launcher if "pdeathsig" not in part), *recipe.command],
        pass_fds=[lock] if holds_lock else [],
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
    ) as orphan:
        os.close(lock)
        until(lambda: recipe.is_ready(orphan.pid), seconds=8)
        with user(state) as someone:
            told = someone.attach(valkey=False)
        if holds_lock:
            assert orphan.wait(1) == 0
            assert "error" not in told
        else:
            assert orphan.poll() is None
            assert f"kill -INT {orphan.pid}" in told["error"]
        orphan.send_signal(signal.SIGINT)


def test_only_a_command_line_with_the_marker_is_ours() -> None:
    with subprocess.Popen(["sleep", "60.25"]) as process:
        until(lambda: server.is_ours(process.pid, "60.25"), seconds=2)
        assert not server.is_ours(process.pid, "60.2")
        process.kill()
    assert not server.is_ours(process.pid, "60.25")


def test_a_half_made_data_folder_is_made_anew(state: Path) -> None:
    (state / "postgres" / "data.new" / "base").mkdir(parents=True)
    state.chmod(0o700)
    with user(state) as someone, psycopg.connect(someone.attach()["database_url"]) as conn:
        assert conn.execute("select 1").fetchone() == (1,)
    assert not (state / "postgres" / "data.new").exists()


def test_servers_whose_folder_was_removed_leave(state: Path) -> None:
    with user(state) as someone:
        someone.attach()
        status = embedded.status(state)
        state.rename(state.with_name("elsewhere"))
        until(lambda: all(is_gone(one.pid) for one in status.servers), seconds=8)
        assert "error" not in someone.attach(), "the same process finds new ones"


def test_stopping_is_refused_while_others_use_the_servers_unless_forced(state: Path) -> None:
    assert not embedded.stop(state).was_running
    with user(state) as someone:
        someone.attach()
        refused = embedded.stop(state)
        assert not refused.stopped
        assert refused.users == (someone.process.pid,)
        assert embedded.status(state).supervisor is not None
        assert embedded.stop(state, force=True).stopped
        assert embedded.status(state).supervisor is None
        assert all_ended(state)


def test_who_stops_them_does_not_count_as_a_user(state: Path) -> None:
    embedded.attach(state, postgres=False)
    assert embedded.stop(state).stopped


def test_a_log_keeps_its_bound_and_one_older_piece(tmp_path: Path) -> None:
    log = tmp_path / "postgres.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"x" * (6 * 1024 * 1024))
        supervisor.bound(log)
        writer.write(b"next\n")
    assert log.read_bytes() == b"next\n", "a writer goes on at the new end"
    assert log.with_suffix(".log.1").stat().st_size == 6 * 1024 * 1024
    supervisor.bound(log)
    assert log.read_bytes() == b"next\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_normal_user_gets_servers_of_its_own() -> None:
    nobody = pwd.getpwnam("nobody")
    # pytest's own folders are closed to other users
    state = Path(tempfile.gettempdir()) / f"marketing-nobody-{os.getpid()}"
    state.mkdir(mode=0o700)
    os.chown(state, nobody.pw_uid, nobody.pw_gid)
    become = (
        "setpriv",
        f"--reuid={nobody.pw_uid}",
        f"--regid={nobody.pw_gid}",
        "--clear-groups",
        # the interpreter may lie under root's own folder; what may be read does not matter here
        "--inh-caps=+dac_read_search",
        "--ambient-caps=+dac_read_search",
    )
    try:
        with user(state, become) as someone:
            assert "error" not in someone.attach()
            status = embedded.status(state)
            owners = {Path(f"/proc/{one.pid}").stat().st_uid for one in status.servers}
            assert owners == {nobody.pw_uid}
        assert embedded.stop(state, force=True).stopped
    finally:
        shutil.rmtree(state)
