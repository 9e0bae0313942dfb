"""Children of a command: watched, ended in order, and never left behind."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from marketing_pipeline.cli import exclusion
from marketing_pipeline.cli.exclusion import AlreadyRunning
from marketing_pipeline.cli.processes import free_port, is_free, running
from marketing_pipeline_tests.patience import until

# A module that a child runs. It says when it is up, and when it was told to end.
CHILD = """
import os, signal, sys, time
name, folder = sys.argv[1], sys.argv[2]
def end(*_):
    open(f"{folder}/ended", "a").write(f"{name}\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
open(f"{folder}/{name}.pid", "w").write(str(os.getpid()))
if len(sys.argv) > 3:
    print("the last words", flush=True)
    sys.exit(int(sys.argv[3]))
time.sleep(60)
"""
# A command with one child, which does nothing more.
PARENT = """
import os, sys, time
from pathlib import Path
from marketing_pipeline.cli.processes import running
folder = Path(sys.argv[1])
with running(folder / "log", dict(os.environ)) as started:
    started.start("one", "child", "one", str(folder))
    time.sleep(60)
"""
# A command with three children, which prints whom it tells to end.
ORDER = """
import os, signal, sys, time
from pathlib import Path
from marketing_pipeline.cli.processes import running
folder = Path(sys.argv[1])
def hook(event, arguments):
    if event == "os.kill" and arguments[1] == signal.SIGTERM:
        print(arguments[0])
with running(folder / "log", dict(os.environ)) as started:
    for name in ("one", "two", "three"):
        started.start(name, "child", name, str(folder))
        while not (folder / f"{name}.pid").exists():
            time.sleep(0.02)
    sys.addaudithook(hook)
"""
# A command that keeps a state folder to itself.
HOLDER = """
import sys, time
from pathlib import Path
from marketing_pipeline.cli import exclusion
with exclusion.alone(Path(sys.argv[1]), "up"):
    print("mine", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "child.py").write_text(CHILD)
    return dict(os.environ) | {"PYTHONPATH": str(tmp_path)}


def pid(folder: Path, name: str) -> int:
    file = folder / f"{name}.pid"
    until(lambda: file.exists() and file.read_text())
    return int(file.read_text())


def lives(number: int) -> bool:
    try:
        state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_a_child_that_ends_is_told_with_the_last_words_of_its_log(
    tmp_path: Path, env: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with running(tmp_path / "log", env) as started:
        started.start("one", "child", "one", str(tmp_path))
        pid(tmp_path, "one")
        started.check()  # known good: it lives
        started.start("two", "child", "two", str(tmp_path), "3")
        with pytest.raises(SystemExit) as left:
            until(started.check)
    assert left.value.code == 2
    said = capsys.readouterr().err
    assert "two ended with 3: the last words" in said
    assert str(tmp_path / "log" / "two.log") in said


def test_waiting_for_an_address_ends_when_a_child_has_ended(
    tmp_path: Path, env: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with running(tmp_path / "log", env) as started:
        started.start("one", "child", "one", str(tmp_path), "1")
        began = time.monotonic()
        with pytest.raises(SystemExit):
            started.wait_for(f"http://127.0.0.1:{free_port()}/")
        assert time.monotonic() - began < 20
    assert "one ended with 1" in capsys.readouterr().err


def test_all_children_have_ended_after_the_block(tmp_path: Path, env: dict[str, str]) -> None:
    with running(tmp_path / "log", env) as started:
        for name in ("one", "two", "three"):
            started.start(name, "child", name, str(tmp_path))
        numbers = [pid(tmp_path, name) for name in ("one", "two", "three")]
    assert not any(lives(number) for number in numbers)
    assert set((tmp_path / "ended").read_text().split()) == {"one", "two", "three"}


def test_signals_go_to_the_latest_first(tmp_path: Path, env: dict[str, str]) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", ORDER, str(tmp_path)],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    numbers = [pid(tmp_path, name) for name in ("three", "two", "one")]
    assert [int(number) for number in ran.stdout.split()] == numbers


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="no parent-death signal there")
def test_children_end_when_their_parent_is_killed(tmp_path: Path, env: dict[str, str]) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], env=env) as parent:
        child = pid(tmp_path, "one")
        assert lives(child)
        parent.kill()
    until(lambda: not lives(child))
    assert (tmp_path / "ended").read_text() == "one\n"


def test_a_parent_that_is_terminated_ends_its_children(tmp_path: Path, env: dict[str, str]) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], env=env) as parent:
        child = pid(tmp_path, "one")
        parent.terminate()
        parent.wait(20)
    assert not lives(child)


@contextmanager
def holding(state: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(state)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "mine\n"
        yield process
        process.kill()


def test_a_second_command_on_a_state_folder_is_told_who_runs(tmp_path: Path) -> None:
    with holding(tmp_path) as process:
        said = rf"`marketing-pipeline up` \(process {process.pid}\) runs on {tmp_path}"
        with pytest.raises(AlreadyRunning, match=said), exclusion.alone(tmp_path, "demo"):
            pass
        with exclusion.alone(tmp_path / "another", "demo"):
            pass


def test_a_command_that_was_killed_keeps_nobody_out(tmp_path: Path) -> None:
    with holding(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait(20)
        assert exclusion.holder(tmp_path) is None
        with exclusion.alone(tmp_path, "demo"):
            assert (
                exclusion.holder(tmp_path) == f"`marketing-pipeline demo` (process {os.getpid()})"
            )


def test_nobody_runs_on_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert exclusion.holder(tmp_path / "none") is None
    assert not (tmp_path / "none").exists()


def test_the_demo_refuses_to_run_beside_an_up(tmp_path: Path) -> None:
    with holding(tmp_path):
        ran = subprocess.run(
            [sys.executable, "-m", "marketing_pipeline", "demo", "--once"],
            env=dict(os.environ) | {"MARKETING_STATE": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert ran.returncode == 2
    assert "`marketing-pipeline up`" in ran.stderr
    assert len(ran.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists(), "it starts nothing"


def test_a_port_is_free_until_somebody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert not is_free(listener.getsockname()[1])
    assert is_free(free_port())
