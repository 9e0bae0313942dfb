"""What senders hear while the database is away, hangs, or breaks in the midst of a commit."""

import asyncio
import logging
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import psycopg
import pytest

from marketing_pipeline.domain import event
from marketing_pipeline.domain.event import EventType, InvalidEvent, NewEvent
from marketing_pipeline.event_log.intake import Recorded, Verdict
from marketing_pipeline.ingest import senders
from marketing_pipeline.ingest.batcher import Batcher, Outcome
from marketing_pipeline.ingest.database import Unavailable
from marketing_pipeline_tests import ingest_service
from marketing_pipeline_tests.database_proxy import Proxy, proxied
from marketing_pipeline_tests.ingest_service import Service, count, lead
from marketing_pipeline_tests.patience import until


@pytest.fixture
def proxy(database: str) -> Iterator[Proxy]:
    with proxied(database) as proxy:
        yield proxy


@pytest.fixture
def service(database: str, proxy: Proxy) -> Iterator[Service]:
    with ingest_service.in_thread(proxy.url, ingest_service.new_key(database)) as service:
        yield service


def assert_unavailable(answer: httpx.Response) -> None:
    assert answer.status_code == 503, answer.text
    assert answer.headers["Retry-After"] == "1"
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert "X-Event-Status" not in answer.headers
    assert "eventId" not in answer.json()


def accepted_within(service: Service, seconds: float) -> None:
    until(lambda: service.post(lead()).status_code == 201, seconds=seconds, every=0.1)


def test_while_the_database_is_away_nothing_is_accepted(
    service: Service, proxy: Proxy, database: str
) -> None:
    assert service.post(lead()).status_code == 201
    proxy.away()
    for _ in range(5):
        assert_unavailable(service.post(lead()))
        assert_unavailable(service.post([lead(), lead(type="LEAD")], "/events/batch"))
    assert count(database) == 1
    assert service.client.get("/healthz").status_code == 200
    proxy.back()
    accepted_within(service, 2)


def test_a_service_that_was_started_before_its_database_works_when_that_comes(
    database: str, proxy: Proxy
) -> None:
    key = ingest_service.new_key(database)
    proxy.away()
    with ingest_service.in_thread(proxy.url, key) as service:
        assert_unavailable(service.post(lead()))
        proxy.back()
        accepted_within(service, 2)


def test_a_commit_whose_answer_was_lost_is_not_claimed_and_its_repeat_is_a_duplicate(
    service: Service, proxy: Proxy, database: str
) -> None:
    assert service.post(lead()).status_code == 201
    body = lead()
    proxy.lose_next_commit()
    assert_unavailable(service.post(body))
    assert proxy.commits_lost == 1
    assert count(database) == 2, "known bad: the commit was to succeed unseen"
    repeat = service.post(body)
    assert (repeat.status_code, repeat.headers["X-Event-Status"]) == (200, "DUPLICATE")
    assert count(database) == 2


def test_connections_that_the_server_ends_are_made_anew(service: Service, database: str) -> None:
    assert service.post(lead()).status_code == 201
    with psycopg.connect(database, autocommit=True) as admin:
        ended = admin.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where application_name = 'marketing-ingest' and datname = current_database()"
        ).fetchall()
    assert len(ended) >= 2
    accepted_within(service, 2)


def test_events_posted_while_connections_are_cut_are_recorded_as_they_were_answered(
    service: Service, proxy: Proxy, database: str
) -> None:
    """Repeats what was not answered, as a sender should; then nothing is lost and nothing twice."""

    enough = threading.Event()

    def send(_: int) -> Counter[int]:
        statuses: Counter[int] = Counter()
        with httpx.Client(headers=service.client.headers, timeout=30) as client:
            while not enough.is_set():
                body, status = lead(), 0
                while status not in (200, 201):
                    url = f"http://127.0.0.1:{service.port}/events"
                    status = client.post(url, json=body).status_code
                    statuses[status] += 1
        return statuses

    with ThreadPoolExecutor(8) as pool:
        sending = [pool.submit(send, number) for number in range(8)]
        for _ in range(8):
            time.sleep(0.1)
            proxy.cut()
        enough.set()
        statuses = sum((one.result() for one in sending), Counter[int]())
    assert set(statuses) <= {200, 201, 503}
    assert statuses[503] > 0, "known bad: no cut was felt"
    assert count(database) == statuses[200] + statuses[201] > 8


def test_a_database_that_hangs_is_given_up_in_time(
    service: Service, proxy: Proxy, database: str
) -> None:
    assert service.post(lead()).status_code == 201
    proxy.freeze()
    began = time.monotonic()
    with ThreadPoolExecutor(12) as pool:
        for answer in pool.map(lambda _: service.post(lead()), range(12)):
            assert_unavailable(answer)
    assert 3 < time.monotonic() - began < 7
    assert count(database) == 1
    proxy.cut()
    proxy.thaw()
    accepted_within(service, 12)


def test_keys_that_are_too_old_to_be_trusted_are_waited_for_no_longer_than_that(
    service: Service, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert service.post(lead()).status_code == 201
    monkeypatch.setattr(senders, "REVOKED_WITHIN", timedelta(0))
    proxy.freeze()
    began = time.monotonic()
    assert_unavailable(service.post(lead()))
    assert 3 < time.monotonic() - began < 8, "known bad: a query that is cancelled takes 15 s"
    proxy.cut()
    proxy.thaw()
    accepted_within(service, 12)


def test_a_table_that_is_locked_is_waited_for_no_longer_than_the_sender_waits(
    service: Service, database: str
) -> None:
    assert service.post(lead()).status_code == 201
    with psycopg.connect(database) as migration:
        migration.execute("lock table marketing_events in access exclusive mode")
        began = time.monotonic()
        assert_unavailable(service.post(lead()))
        assert 3 < time.monotonic() - began < 6
        migration.rollback()
    accepted_within(service, 2)
    assert count(database) == 2


def test_readiness_says_what_to_do(service: Service, proxy: Proxy, database: str) -> None:
    assert service.client.get("/readyz").json()["status"] == "ready"
    proxy.away()
    time.sleep(1.1)  # an answer holds for a second
    answer = service.client.get("/readyz")
    assert_unavailable(answer)
    assert "marketing-pipeline up" in answer.json()["remedy"]
    proxy.back()
    with psycopg.connect(database) as conn:
        conn.execute("update alembic_version set version_num = '0000'")
    time.sleep(1.1)
    answer = service.client.get("/readyz")
    assert_unavailable(answer)
    assert "marketing-pipeline migrate" in answer.json()["remedy"]


def test_a_database_that_was_never_migrated_takes_nothing(service: Service, database: str) -> None:
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute("drop table alembic_version")
        conn.execute("alter table marketing_events rename to something_else")
    assert "not there" in service.client.get("/readyz").json()["detail"]
    assert_unavailable(service.post(lead()))


def test_what_was_accepted_is_finished_on_sigterm(database: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with ingest_service.in_process(database, ingest_service.new_key(database), log) as service:
        assert service.post(lead()).status_code == 201
        assert service.process is not None
        with psycopg.connect(database) as blocker, ThreadPoolExecutor(4) as pool:
            blocker.execute("lock table marketing_events in access exclusive mode")
            waiting = [pool.submit(service.post, lead()) for _ in range(4)]
            time.sleep(0.5)
            service.process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            blocker.rollback()
            assert [one.result().status_code for one in waiting] == [201] * 4
        service.process.wait(timeout=10)
    assert count(database) == 5
    assert ingest_service.log_lines(log)[-1]["event"].startswith("Finished server process")


def made(text: str = "hello", key: str = "k") -> NewEvent:
    return event.new(
        type=EventType.CONTENT_PUBLISH,
        payload={"text": text},
        source="web",
        key=key,
        now=datetime.now(UTC),
    )


def test_an_event_that_cannot_be_stored_does_not_spoil_its_neighbours(
    database: str, caplog: pytest.LogCaptureFixture
) -> None:
    poison = replace(made(key="poison"), payload={"text": "private \x00"})

    async def run() -> list[list[Outcome]]:
        async with Batcher(database, flushers=1) as batcher:
            groups = [[made(key=str(n))] for n in range(5)] + [[made(key="a"), poison]]
            return await asyncio.gather(*(batcher.record(group) for group in groups))

    with caplog.at_level(logging.INFO):
        *alone, [neighbour, refused] = asyncio.run(run())
    assert [type(one) for [one] in alone] == [Recorded] * 5
    assert isinstance(neighbour, Recorded)
    assert isinstance(refused, InvalidEvent)
    assert count(database) == 6
    [told] = [one for one in caplog.records if one.getMessage() == "event_not_storable"]
    assert told.__dict__["fields"] == {"event_id": str(poison.id), "sqlstate": "22P05"}
    assert "private" not in caplog.text


def test_events_that_arrive_together_share_a_transaction(database: str) -> None:
    async def run() -> list[list[Outcome]]:
        async with Batcher(database, flushers=1) as batcher:
            await batcher.record([made(key="first")])
            return await asyncio.gather(
                *(batcher.record([made(key=str(number))]) for number in range(80))
            )

    assert {o.verdict for [o] in asyncio.run(run()) if isinstance(o, Recorded)} == {
        Verdict.ACCEPTED
    }
    with psycopg.connect(database) as conn:
        row = conn.execute("select count(distinct xmin::text) from marketing_events").fetchone()
    assert row == (2,)


def test_beyond_its_backlog_the_batcher_takes_nothing(database: str, proxy: Proxy) -> None:
    async def run() -> list[object]:
        patience = timedelta(seconds=2)
        async with Batcher(proxy.url, flushers=1, backlog=10, patience=patience) as batcher:
            await batcher.record([made(key="first")])
            proxy.freeze()
            held = asyncio.create_task(batcher.record([made(key="held")]))
            await asyncio.sleep(0.1)  # it is in the flusher's hands
            waiting = [batcher.record([made(key=str(n))]) for n in range(12)]
            answers = await asyncio.gather(*waiting, return_exceptions=True)
            proxy.cut()
            proxy.thaw()
            with pytest.raises(Unavailable):
                await held
            return [str(answer) for answer in answers]

    answers = asyncio.run(run())
    assert sum("too many" in str(answer) for answer in answers) == 2
    assert sum("in time" in str(answer) for answer in answers) == 10
    assert count(database) == 1, "what its sender gave up before the flush is not recorded"


def test_what_every_sender_gave_up_keeps_no_service_from_ending(
    database: str, proxy: Proxy
) -> None:
    async def run() -> list[object]:
        patience = timedelta(seconds=1)
        async with (
            asyncio.timeout(None) as whole,
            Batcher(proxy.url, flushers=1, patience=patience) as batcher,
        ):
            await batcher.record([made(key="first")])
            proxy.freeze()
            waiting = [batcher.record([made(key=str(n))]) for n in range(3_000)]
            answers = await asyncio.gather(*waiting, return_exceptions=True)
            # Known bad: each hundred of them open a connection, and wait a second for it.
            whole.reschedule(asyncio.get_running_loop().time() + 10)
        return list(answers)

    assert all(isinstance(one, Unavailable) for one in asyncio.run(run()))
    assert count(database) == 1
