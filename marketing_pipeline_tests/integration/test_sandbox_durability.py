"""What the sandbox did survives kill -9: a judge that forgets would acquit anybody."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

UPSERT = "/hubspot/crm/v3/objects/contacts/batch/upsert"
BEARER = {"Authorization": "Bearer key"}
MAIL = {"from": "a@example.org", "to": "b@example.org", "subject": "s", "text": "t"}


@contextmanager
def process(record: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A sandbox of its own; killed at the end, if it still lives."""
    command = [sys.executable, "-m", "marketing_pipeline.sandbox", "--port", "0"]
    command += ["--record", str(record), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as sandbox:
        try:
            assert sandbox.stdout is not None
            name, _, url = sandbox.stdout.readline().strip().partition(" ")
            assert name == "sandbox"
            yield sandbox, url
        finally:
            sandbox.kill()


def send(url: str, key: str) -> httpx.Response:
    headers = {**BEARER, "Idempotency-Key": key}
    return httpx.post(f"{url}/resend/emails", headers=headers, json=MAIL)


def upsert(url: str, trace: str) -> httpx.Response:
    entry = {"id": "b@example.org", "idProperty": "email", "properties": {"city": "Graz"}}
    inputs = [{**entry, "objectWriteTraceId": trace}]
    return httpx.post(f"{url}{UPSERT}", headers=BEARER, json={"inputs": inputs})


def mail(url: str, key: str) -> httpx.Response:
    fields = {**MAIL, "h:Message-Id": f"<{key}@example.org>"}
    parts = {name: (None, value) for name, value in fields.items()}
    return httpx.post(f"{url}/mailgun/v3/example.org/messages", auth=("api", "k"), files=parts)


def hook(url: str, key: str) -> httpx.Response:
    return httpx.post(f"{url}/webhook/alerts", headers={"Idempotency-Key": key}, json={})


def read(url: str, what: str) -> Any:
    return httpx.get(f"{url}/_sandbox/{what}").json()


def test_a_killed_sandbox_comes_back_with_all_that_it_answered(tmp_path: Path) -> None:
    record = tmp_path / "record.db"
    with process(record) as (sandbox, url):
        first = [send(url, "k"), upsert(url, "t"), mail(url, "m"), hook(url, "w")]
        assert [answer.status_code for answer in first] == [200] * 4
        acts, calls = read(url, "record"), read(url, "calls")
        os.kill(sandbox.pid, signal.SIGKILL)
        sandbox.wait()
    with process(record) as (_, url):
        assert (read(url, "record"), read(url, "calls")) == (acts, calls)
        assert send(url, "k").json() == first[0].json()
        assert upsert(url, "t").json()["results"][0]["new"] is False
        assert hook(url, "w").status_code == 200
        query = {"message-id": "m@example.org"}
        events = f"{url}/mailgun/v3/example.org/events"
        httpx.put(f"{url}/_sandbox/settings", json={"mailgun_index_delay": 0}).raise_for_status()
        found = httpx.get(events, auth=("api", "k"), params=query).json()
        assert len(found["items"]) == 1
        summary = read(url, "summary")
        assert summary["acts"] == {"hubspot": 2, "resend": 1, "mailgun": 1, "webhook": 1}
        assert (summary["repeats"], summary["twice"]) == (1, [])
        assert [call["n"] for call in read(url, "calls")] == list(range(1, 9))


def test_an_answer_that_was_received_is_always_in_the_record(tmp_path: Path) -> None:
    """Killed in the middle of a storm: the record may hold more than was answered, never less."""
    record = tmp_path / "record.db"
    answered: list[str] = []
    with process(record) as (sandbox, url):

        def storm(worker: int) -> None:
            with httpx.Client(base_url=url) as client:
                for n in range(2000):
                    key = f"{worker}-{n}"
                    try:
                        headers = {"Idempotency-Key": key}
                        answer = client.post("/webhook/storm", headers=headers, json={})
                    except httpx.TransportError:
                        return  # the sandbox is dead
                    assert answer.status_code == 200
                    answered.append(key)

        workers = [threading.Thread(target=storm, args=(n,)) for n in range(4)]
        for worker in workers:
            worker.start()
        while len(answered) < 300:
            assert any(worker.is_alive() for worker in workers)
        os.kill(sandbox.pid, signal.SIGKILL)
        for worker in workers:
            worker.join()
    with closing(sqlite3.connect(record)) as connection:
        recorded = {key for (key,) in connection.execute("select key from acts")}
        (torn,) = connection.execute(
            "select count(*) from acts where key not in (select key from calls)"
        ).fetchone()
    assert set(answered) <= recorded
    assert len(recorded) - len(answered) <= len(workers)
    assert torn == 0


def test_an_act_whose_answer_was_lost_with_the_sandbox_is_in_the_record(tmp_path: Path) -> None:
    record = tmp_path / "record.db"
    with process(record) as (sandbox, url):
        rule = {"provider": "resend", "kind": "hang_after", "times": 1}
        httpx.put(f"{url}/_sandbox/faults", json=[rule]).raise_for_status()
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(
                f"{url}/resend/emails",
                headers={**BEARER, "Idempotency-Key": "k"},
                json=MAIL,
                timeout=0.2,
            )
        os.kill(sandbox.pid, signal.SIGKILL)
        sandbox.wait()
    with process(record) as (_, url):
        (act,) = read(url, "record")
        assert send(url, "k").json() == {"id": act["ref"]}
        assert len(read(url, "record")) == 1


def test_a_limit_looks_back_over_a_restart(tmp_path: Path) -> None:
    record, limits = tmp_path / "record.db", tmp_path / "limits.json"
    limits.write_text('{"webhook": {"limit": 3, "seconds": 60}}')
    with process(record, "--limits", str(limits)) as (sandbox, url):
        assert [hook(url, f"{n}").status_code for n in range(4)] == [200, 200, 200, 429]
        os.kill(sandbox.pid, signal.SIGKILL)
        sandbox.wait()
    with process(record, "--limits", str(limits)) as (_, url):
        assert hook(url, "again").status_code == 429
        summary = read(url, "summary")
        assert (summary["over_limit"]["webhook"], summary["peak"]["webhook"]) == (2, 5)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_sandbox_in_peace_though_a_client_hangs(
    tmp_path: Path, number: signal.Signals
) -> None:
    with process(tmp_path / "record.db") as (sandbox, url):
        rule = {"provider": "webhook", "kind": "hang_after", "times": 1}
        httpx.put(f"{url}/_sandbox/faults", json=[rule]).raise_for_status()
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{url}/webhook/x", headers={"Idempotency-Key": "k"}, json={}, timeout=0.1)
        sandbox.send_signal(number)
        assert sandbox.wait(timeout=5) == 0


@pytest.mark.parametrize(
    ("limits", "word"),
    [("{", "is not JSON"), ('{"x": {}}', "x is unknown here"), (None, "No such file")],
)
def test_bad_limits_are_named_before_anything_listens(
    tmp_path: Path, limits: str | None, word: str
) -> None:
    path = tmp_path / "limits.json"
    if limits is not None:
        path.write_text(limits)
    command = [sys.executable, "-m", "marketing_pipeline.sandbox", "--port", "0"]
    command += ["--record", str(tmp_path / "record.db"), "--limits", str(path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert ended.returncode == 2
    assert word in ended.stderr
    assert ended.stdout == ""


def test_only_loopback_is_bound_unless_a_host_is_named(tmp_path: Path) -> None:
    with process(tmp_path / "record.db") as (_, url):
        assert url.startswith("http://127.0.0.1:")
