"""What providers tell afterwards, over real HTTP into a real log."""

import asyncio
import re
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import psycopg
import pytest
from psycopg import AsyncConnection

from marketing_pipeline import settings
from marketing_pipeline.cli import explanation
from marketing_pipeline.delivery.assembly import assemble
from marketing_pipeline.event_log import feedback, finding, ledger, reading
from marketing_pipeline.event_log.feedback import Recorded, Told, Verdict
from marketing_pipeline_tests import ingest_service, webhooks
from marketing_pipeline_tests.database_proxy import proxied
from marketing_pipeline_tests.ingest_service import Service, log_lines
from marketing_pipeline_tests.patience import until
from marketing_pipeline_tests.pipeline import Sandbox, campaign, campaign_name, lead, record, run
from marketing_pipeline_tests.undecided import ask, rows

ENVIRONMENT = {"RESEND_SECRET": webhooks.SVIX_SECRET, "MAILGUN_HOOKS": webhooks.MAILGUN_KEY}


@pytest.fixture
def signed(used: settings.Settings) -> settings.Settings:
    """The operator's folder with the secrets of webhooks in its file."""
    text = used.campaigns_file.read_text()
    text = text.replace(
        "    adapter: resend\n", "    adapter: resend\n    webhook_secret: {env: RESEND_SECRET}\n"
    ).replace(
        "    adapter: mailgun\n",
        "    adapter: mailgun\n    webhook_signing_key: {env: MAILGUN_HOOKS}\n",
    )
    used.campaigns_file.write_text(text)
    return replace(used, environment=ENVIRONMENT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """The ingest service, and the names that the file gives to its providers."""

    service: Service
    resend: str
    mailgun: str

    def by_resend(
        self, body: bytes, id: str = "msg_1", at: datetime | None = None, **changed: str
    ) -> httpx.Response:
        headers = webhooks.svix(body, id, at or webhooks.now()) | changed
        return self.service.post_raw(body, f"/webhooks/{self.resend}", **headers)

    def by_mailgun(self, body: bytes) -> httpx.Response:
        return self.service.post_raw(body, f"/webhooks/{self.mailgun}")


def named(used: settings.Settings, adapter: str) -> str:
    found = re.search(rf"^  ({adapter}_\w+):", used.campaigns_file.read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


@pytest.fixture
def desk(signed: settings.Settings, database: str) -> Iterator[Desk]:
    with ingest_service.in_thread(database, "no key", signed) as service:
        yield Desk(
            service=service, resend=named(signed, "resend"), mailgun=named(signed, "mailgun")
        )


@dataclass(frozen=True, slots=True)
class Mail:
    id: UUID
    reference: str
    address: str


def welcomed(used: settings.Settings, number: int = 1) -> Mail:
    """A welcome mail that Resend took."""
    assert used.database_url is not None
    record(used.database_url, [lead(number)])
    run(used)
    [[id, reference]] = rows(
        used.database_url,
        "select id, provider_ref from effects where event_id = %s and kind = 'email'",
        lead(number).id,
    )
    return Mail(id, reference, f"p{number}@example.com")


def kept(database: str) -> list[Any]:
    query = "select kind, effect_id, recipient_id, provider, detail from feedback order by seq"
    return rows(database, query)


def suppressions(database: str) -> list[Any]:
    return rows(database, "select recipient_id, scope, reason from suppressions")


def person(database: str, address: str) -> UUID:
    [[id]] = rows(database, "select id from recipients where address = %s", address)
    found: UUID = id
    return found


def test_a_notice_is_a_numbered_fact_of_its_effect(
    signed: settings.Settings, desk: Desk, database: str
) -> None:
    mail = welcomed(signed)
    at = webhooks.now()
    body = webhooks.resend("email.delivered", mail.reference, mail.address, at)
    answer = desk.by_resend(body)
    assert (answer.status_code, answer.json()) == (200, {"status": "recorded"})
    ada = person(database, mail.address)
    assert kept(database) == [("delivered", mail.id, ada, desk.resend, None)]
    [[occurred_at, above]] = rows(
        database, "select occurred_at, seq > (select max(seq) from marketing_events) from feedback"
    )
    assert (occurred_at, above) == (at, True)
    assert suppressions(database) == []


def test_a_repeated_notice_changes_nothing(
    signed: settings.Settings, desk: Desk, database: str
) -> None:
    mail = welcomed(signed)
    at = webhooks.now()
    body = webhooks.resend("email.complained", mail.reference, mail.address, at)
    answers = [desk.by_resend(body).json()["status"]]
    before = kept(database), rows(database, "select * from suppressions")
    answers += [desk.by_resend(body, at=at + timedelta(seconds=n)).json()["status"] for n in (1, 2)]
    assert answers == ["recorded", "repeated", "repeated"]
    assert (kept(database), rows(database, "select * from suppressions")) == before
    assert desk.by_resend(body, "msg_2").json() == {"status": "recorded"}
    assert len(kept(database)) == 2


def test_mailgun_s_notice_finds_its_effect_by_our_name(
    signed: settings.Settings, desk: Desk, database: str
) -> None:
    record(database, [lead(1), campaign(campaign_name(signed.home), "c1")])
    run(signed)
    [[id, address]] = rows(
        database,
        "select e.id, address from effects e join recipients r on r.id = e.recipient_id"
        " where provider like 'mailgun%%'",
    )
    at = webhooks.now()
    for token, more in (("a", {}), ("b", {"user-variables": {}, "id": "other"})):
        body = webhooks.mailgun("opened", id, address, at, token=token, **more)
        assert desk.by_mailgun(body).json() == {"status": "recorded"}
    assert [row[1] for row in kept(database)] == [id, id]
    again = webhooks.mailgun("opened", id, address, at, token="c", signed_at=at)
    assert desk.by_mailgun(again).json() == {"status": "repeated"}


def test_a_notice_of_an_unknown_effect_is_kept_with_its_person(
    signed: settings.Settings, desk: Desk, database: str
) -> None:
    mail = welcomed(signed)
    for id, address in (("msg_1", mail.address.upper()), ("msg_2", "nobody@example.com")):
        body = webhooks.resend("email.opened", str(uuid.uuid4()), address, webhooks.now())
        assert desk.by_resend(body, id).json() == {"status": "recorded"}
    foreign = webhooks.mailgun("delivered", uuid.uuid4(), "nobody@example.com", webhooks.now())
    assert desk.by_mailgun(foreign).json() == {"status": "recorded"}
    ada = person(database, mail.address)
    assert [row[:3] for row in kept(database)] == [
        ("opened", None, ada),
        ("opened", None, None),
        ("delivered", None, None),
    ]
    assert rows(database, "select count(*) from recipients") == [(1,)]


def test_another_provider_s_reference_is_not_ours(
    signed: settings.Settings, desk: Desk, database: str
) -> None:
    """Only Resend may speak of Resend's mails, whoever else knows the name."""
    mail = welcomed(signed)
    body = webhooks.mailgun("delivered", mail.id, "nobody@example.com", webhooks.now())
    assert desk.by_mailgun(body).json() == {"status": "recorded"}
    assert kept(database)[0][1] is None


@pytest.mark.parametrize(
    ("type", "more", "kind"),
    [
        ("email.bounced", {"bounce": {"type": "Permanent", "message": "gone"}}, "bounced"),
        ("email.complained", {}, "complained"),
    ],
)
def test_a_bounce_or_a_complaint_keeps_the_next_mail_from_being_claimed(
    signed: settings.Settings, desk: Desk, database: str, type: str, more: dict[str, Any], kind: str
) -> None:
    mail = welcomed(signed)
    body = webhooks.resend(type, mail.reference, mail.address, webhooks.now(), **more)
    assert desk.by_resend(body).json() == {"status": "recorded"}
    ada = person(database, mail.address)
    assert suppressions(database) == [(ada, "email", f"{desk.resend}: {kind}")]
    again = replace(lead(2), address=mail.address)
    record(database, [again, campaign(campaign_name(signed.home), "c1")])
    run(signed)
    mails = rows(
        database,
        "select state, last_error from effects where kind = 'email' and id <> %s",
        mail.id,
    )
    assert mails
    assert {row[0] for row in mails} == {"SUPPRESSED"}
    [[contact]] = rows(
        database,
        "select state from effects where kind = 'contact' and event_id = %s",
        again.id,
    )
    assert contact == "SENT"


@pytest.mark.parametrize(
    ("type", "more"),
    [
        ("email.bounced", {"bounce": {"type": "Transient", "message": "full"}}),
        ("email.delivery_delayed", {}),
        ("email.failed", {"failed": {"reason": "quota"}}),
    ],
)
def test_a_soft_bounce_or_a_delay_keeps_nobody_from_being_mailed(
    signed: settings.Settings, desk: Desk, database: str, type: str, more: dict[str, Any]
) -> None:
    mail = welcomed(signed)
    body = webhooks.resend(type, mail.reference, mail.address, webhooks.now(), **more)
    assert desk.by_resend(body).json() == {"status": "recorded"}
    assert suppressions(database) == []


def told(provider: str, **changed: Any) -> Told:
    usual = Told(
        provider=provider,
        notice="n1",
        kind="bounced",
        occurred_at=webhooks.now(),
        effect_id=None,
        reference="re_1",
        address="p1@example.com",
        excludes=True,
        detail=None,
    )
    return replace(usual, **changed)


def test_a_suppression_waits_for_the_claim_that_is_being_made(
    signed: settings.Settings, database: str
) -> None:
    """The claim sees no suppression, and the notice none of the claim: one of them must wait."""
    mail = welcomed(signed)
    ada = person(database, mail.address)
    provider = named(signed, "resend")

    async def race() -> tuple[bool, Recorded]:
        async with (
            await AsyncConnection.connect(database) as claiming,
            await AsyncConnection.connect(database) as telling,
        ):
            assert (await ledger.reach(claiming, [ada], (), wait=True)).suppressed == {}
            one = told(provider, effect_id=mail.id)
            task = asyncio.create_task(feedback.record(telling, one, webhooks.now()))
            await asyncio.sleep(0.5)
            waited = not task.done()
            await claiming.commit()
            return waited, await task

    waited, recorded = asyncio.run(race())
    assert waited
    assert recorded.verdict is Verdict.RECORDED


def test_a_notice_that_overtakes_its_answer_is_asked_for_again(
    signed: settings.Settings, desk: Desk, database: str
) -> None:
    mail = welcomed(signed)
    with psycopg.connect(database) as conn:
        conn.execute("set session_replication_role = replica")
        conn.execute(
            "update effects set state = 'DOUBT', doubt_since = first_attempt_at, settled_at = null,"
            " provider_ref = null where id = %s",
            [mail.id],
        )
    at = webhooks.now()
    body = webhooks.resend("email.bounced", mail.reference, mail.address, at)
    answer = desk.by_resend(body)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert kept(database) == []
    assert len(suppressions(database)) == 1  # nobody is mailed meanwhile
    with psycopg.connect(database) as conn:
        conn.execute("set session_replication_role = replica")
        conn.execute(
            "update effects set state = 'SENT', doubt_since = null, settled_at = now(),"
            " provider_ref = %s where id = %s",
            [mail.reference, mail.id],
        )
    assert desk.by_resend(body).json() == {"status": "recorded"}
    assert kept(database)[0][1] == mail.id


def test_nothing_but_the_provider_s_own_signature_gets_in(
    signed: settings.Settings, desk: Desk, database: str
) -> None:
    mail = welcomed(signed)
    at = webhooks.now()
    body = webhooks.resend("email.complained", mail.reference, mail.address, at)
    good = webhooks.svix(body, "msg_1", at)
    old = webhooks.svix(body, "msg_1", at - timedelta(minutes=6))
    path = f"/webhooks/{desk.resend}"
    for content, headers in (
        (body + b" ", good),
        (body, good | {"svix-id": "msg_2"}),
        (body, good | {"svix-signature": "v1," + "A" * 44}),
        (body, old),
        (body, {}),
    ):
        answer = desk.service.post_raw(content, path, **headers)
        assert answer.status_code == 401
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert mail.address not in answer.text
    forged = webhooks.mailgun("complained", mail.id, mail.address, at, key="another")
    assert desk.by_mailgun(forged).status_code == 401
    assert (kept(database), suppressions(database)) == ([], [])


def test_a_signature_of_mailgun_s_vouches_for_one_notice(
    signed: settings.Settings, desk: Desk, database: str
) -> None:
    """It covers no body: who saw it could put another under it, for as long as it is fresh."""
    mail = welcomed(signed)
    at = webhooks.now()
    seen = webhooks.mailgun("delivered", uuid.uuid4(), "b@example.com", at)
    assert desk.by_mailgun(seen).json() == {"status": "recorded"}
    assert desk.by_mailgun(seen).json() == {"status": "repeated"}
    forged = webhooks.mailgun("complained", mail.id, mail.address, at, id="made-up")
    assert desk.by_mailgun(forged).status_code == 401
    assert suppressions(database) == []


def test_of_many_notices_at_once_under_one_signature_one_is_taken(
    signed: settings.Settings, desk: Desk, database: str
) -> None:
    mail = welcomed(signed)
    at = webhooks.now()
    bodies = [
        webhooks.mailgun("complained", mail.id, mail.address, at, id=f"id-{n}") for n in range(8)
    ]
    with psycopg.connect(database) as blocker, ThreadPoolExecutor(8) as pool:
        blocker.execute("lock table feedback in access exclusive mode")
        answers = [pool.submit(desk.by_mailgun, body) for body in bodies]
        time.sleep(1)  # all have been read, and none is recorded
        blocker.rollback()
        statuses = sorted(one.result().status_code for one in answers)
    assert statuses == [200] + [401] * 7
    assert len(kept(database)) == 1


def test_who_has_no_secret_here_is_told_nothing_and_the_log_what_to_do(
    used: settings.Settings, database: str, tmp_path: Path
) -> None:
    log = tmp_path / "ingest.log"
    environment = {
        "MARKETING_HOME": str(used.home),
        "MARKETING_CAMPAIGNS": "campaigns/demo.yaml",
    }
    text = used.campaigns_file.read_text()
    used.campaigns_file.write_text(
        text.replace(
            "    adapter: mailgun\n",
            "    adapter: mailgun\n    webhook_signing_key: {env: MAILGUN_HOOKS}\n",
        )
    )
    names = [named(used, adapter) for adapter in ("resend", "mailgun", "site")]
    with ingest_service.in_process(database, "no key", log, environment) as service:
        answers = [service.post({}, f"/webhooks/{name}") for name in (*names, "ada@example.com")]
        assert service.client.get("/webhooks/site").status_code == 405
        assert service.post({}, "/webhooks/").status_code == 404
    assert {answer.status_code for answer in answers} == {404}
    assert len({answer.content for answer in answers}) == 1
    refused = [line for line in log_lines(log) if line["event"] == "feedback_refused"]
    assert [line["provider"] for line in refused] == [*names, None]
    assert "write `webhook_secret: {env: NAME}`" in refused[0]["reason"]
    assert refused[1]["reason"] == (
        "MAILGUN_HOOKS is empty; copy the HTTP webhook signing key, then start ingest again"
    )
    assert "ada@" not in log.read_text()


def test_a_file_that_cannot_be_read_stops_no_event(used: settings.Settings, database: str) -> None:
    used.campaigns_file.write_text("providers: [")
    key = ingest_service.new_key(database)
    with ingest_service.in_thread(database, key, used) as service:
        assert service.post({}, "/webhooks/resend").status_code == 404
        assert service.post(ingest_service.lead()).status_code == 201


def test_what_says_nothing_is_answered_so_that_its_sender_understands(
    desk: Desk, database: str
) -> None:
    assert desk.by_resend(b"{").status_code == 400
    at = webhooks.now()
    nothing = webhooks.mailgun("delivered", "x", "a@example.com", at, id="")
    assert desk.by_mailgun(nothing).status_code == 406
    sent = webhooks.resend("email.sent", "re_1", "a@example.com", at)
    assert desk.by_resend(sent).json() == {"status": "ignored"}
    large = desk.service.post_raw(b"x" * (256 * 1024 + 1), f"/webhooks/{desk.resend}")
    assert large.status_code == 413
    assert kept(database) == []


def test_characters_that_the_log_does_not_know_do_no_harm(desk: Desk, database: str) -> None:
    odd = "a\0b\ud800@example.com"
    body = webhooks.resend(
        "email.bounced", odd, odd, webhooks.now(), bounce={"type": "Permanent", "message": odd}
    )
    assert desk.by_resend(body).json() == {"status": "recorded"}
    assert kept(database)[0][4] == "Permanent [address]"


def test_while_the_database_is_away_the_provider_is_asked_to_repeat(
    signed: settings.Settings, database: str
) -> None:
    mail = welcomed(signed)
    body = webhooks.resend("email.delivered", mail.reference, mail.address, webhooks.now())
    path = f"/webhooks/{named(signed, 'resend')}"
    with (
        proxied(database) as proxy,
        ingest_service.in_thread(proxy.url, "no key", signed) as service,
    ):
        proxy.away()
        headers = webhooks.svix(body, "msg_1", webhooks.now())
        answer = service.post_raw(body, path, **headers)
        assert (answer.status_code, answer.json()["remedy"]) == (503, "send it again")
        assert kept(database) == []
        proxy.back()
        assert service.post_raw(body, path, **headers).json() == {"status": "recorded"}
    assert len(kept(database)) == 1


def test_a_commit_whose_answer_was_lost_is_a_repeat_afterwards(
    signed: settings.Settings, database: str
) -> None:
    mail = welcomed(signed)
    body = webhooks.resend("email.complained", mail.reference, mail.address, webhooks.now())
    path = f"/webhooks/{named(signed, 'resend')}"
    with (
        proxied(database) as proxy,
        ingest_service.in_thread(proxy.url, "no key", signed) as service,
    ):
        headers = webhooks.svix(body, "msg_1", webhooks.now())
        proxy.lose_next_commit()
        assert service.post_raw(body, path, **headers).status_code == 503
        assert service.post_raw(body, path, **headers).json() == {"status": "repeated"}
    assert (len(kept(database)), len(suppressions(database))) == (1, 1)


def test_many_notices_at_once_are_each_kept_once(
    signed: settings.Settings, desk: Desk, database: str
) -> None:
    mail = welcomed(signed)
    bodies = [
        (f"msg_{n % 20}", webhooks.resend("email.opened", mail.reference, mail.address, at))
        for at in [webhooks.now()]
        for n in range(60)
    ]

    async def tell() -> list[str]:
        url = str(desk.service.client.base_url)
        async with httpx.AsyncClient(base_url=url, timeout=30) as client:
            answers = await asyncio.gather(
                *(
                    client.post(
                        f"/webhooks/{desk.resend}",
                        content=body,
                        headers=webhooks.svix(body, id, webhooks.now()),
                    )
                    for id, body in bodies
                )
            )
        return [answer.json()["status"] for answer in answers]

    answers = asyncio.run(tell())
    assert (answers.count("recorded"), answers.count("repeated")) == (20, 40)
    assert len(kept(database)) == 20


def test_a_notice_moves_the_version_of_its_effect_s_day(
    signed: settings.Settings, desk: Desk, database: str
) -> None:
    mail = welcomed(signed)
    assert list(ask(database, reading.observe_changed)) == [webhooks.now().date()]
    assert ask(database, reading.observe_changed) == {}
    today = webhooks.now().date()
    before = ask(database, lambda conn: reading.day_versions(conn, [today]))
    body = webhooks.resend("email.opened", mail.reference, mail.address, webhooks.now())
    desk.by_resend(body)
    moved = ask(database, reading.observe_changed)
    assert list(moved) == [today]
    assert moved != before
    desk.by_resend(body)
    assert ask(database, reading.observe_changed) == {}


def test_a_reader_who_has_taken_the_mark_misses_no_notice(
    signed: settings.Settings, database: str
) -> None:
    """Known bad: a mark that is written only where none is seen would be lost here."""
    mail = welcomed(signed)
    provider = named(signed, "resend")
    ask(database, reading.observe_changed)

    async def interleaved() -> dict[Any, str]:
        async with (
            await AsyncConnection.connect(database, autocommit=True) as reader,
            await AsyncConnection.connect(database) as telling,
            await AsyncConnection.connect(database) as other,
        ):
            one = told(provider, effect_id=mail.id, excludes=False)
            await feedback.record(other, replace(one, notice="n0"), webhooks.now())
            await other.commit()  # the day is marked
            await telling.execute("select count(*) from feedback")
            await feedback.record(telling, one, webhooks.now())
            observing = asyncio.create_task(reading.observe_changed(reader))
            await asyncio.sleep(0.3)
            await telling.commit()
            seen = await observing
            return seen | await reading.observe_changed(reader)

    final = asyncio.run(interleaved())
    today = webhooks.now().date()
    assert final[today] == ask(database, lambda conn: reading.day_versions(conn, [today]))[today]


def test_a_story_tells_what_was_told_afterwards(
    signed: settings.Settings, desk: Desk, database: str
) -> None:
    mail = welcomed(signed)
    at = webhooks.now()
    for id, type, later, more in (
        ("msg_2", "email.opened", 2, {}),
        ("msg_1", "email.delivered", 1, {}),
        ("msg_3", "email.clicked", 3, {"click": {"link": "https://example.com/a?b=c"}}),
    ):
        body = webhooks.resend(
            type, mail.reference, mail.address, at + timedelta(seconds=later), **more
        )
        assert desk.by_resend(body, id).json() == {"status": "recorded"}
    unknown = webhooks.resend("email.opened", "re_?", mail.address, at + timedelta(seconds=4))
    desk.by_resend(unknown, "msg_4")
    for what in (str(mail.id), str(lead(1).id), mail.reference, mail.address):
        story = ask(database, lambda conn, what=what: finding.find(conn, what, None, 50))
        document = explanation.document(story, what, webhooks.now())
        [event] = document["events"]
        heard = [one for one in event["entries"] if one["what"] == "feedback"]
        assert [(one["facts"]["kind"], one["facts"]["detail"]) for one in heard] == [
            ("delivered", None),
            ("opened", None),
            ("clicked", "https://example.com/a"),
            ("opened", None),
        ], what
        assert [one["effect_id"] for one in heard] == [str(mail.id)] * 3 + [None]
        assert heard[0]["facts"]["provider"] == desk.resend
        assert heard[0]["facts"]["occurred_at"] == (at + timedelta(seconds=1)).isoformat()
        console = explanation.console()
        with console.capture() as shown:
            explanation.show(console, document)
        assert f"{desk.resend} tells: clicked: https://example.com/a" in shown.get()


def test_what_the_sandbox_tells_of_its_mails_comes_back_to_their_effects(
    signed: settings.Settings, desk: Desk, database: str, sandbox: Sandbox
) -> None:
    """From the lead to the click, in the providers' own forms, each notice told twice."""
    told = {
        "resend": (desk.resend, webhooks.SVIX_SECRET, ["delivered", "opened", "clicked"]),
        "mailgun": (desk.mailgun, webhooks.MAILGUN_KEY, ["delivered", "bounced"]),
    }
    hooks = [
        {
            "provider": provider,
            "url": f"{desk.service.client.base_url}/webhooks/{name}",
            "secret": secret,
            "kinds": kinds,
            "times": 2,
        }
        for provider, (name, secret, kinds) in told.items()
    ]
    httpx.put(f"{sandbox.url}/_sandbox/webhooks", json=hooks).raise_for_status()
    record(database, [lead(n) for n in range(5)])
    record(database, [campaign(campaign_name(signed.home), "c1")])
    run(signed)
    until(
        lambda: len(kept(database)) >= 5 * 5 and len(suppressions(database)) >= 5,
        lambda: kept(database),
        seconds=30,
    )
    counted = rows(
        database,
        "select e.kind, f.provider, f.kind, count(*), count(distinct f.effect_id)"
        " from feedback f join effects e on e.id = f.effect_id group by 1, 2, 3 order by 2, 3",
    )
    assert counted == [
        ("email", name, kind, 5, 5)
        for name, _, kinds in sorted(told.values())
        for kind in sorted(kinds)
    ]
    assert {reason for _, _, reason in suppressions(database)} == {f"{desk.mailgun}: bounced"}


def test_secrets_of_webhooks_change_no_configuration_and_keep_nothing_from_being_sent(
    used: settings.Settings,
) -> None:
    used = replace(used, sandbox_url=None, environment={"RESEND_API_KEY": "re_1"})
    plain = assemble(used)
    text = used.campaigns_file.read_text()
    used.campaigns_file.write_text(
        text.replace(
            "    adapter: resend\n", "    adapter: resend\n    webhook_secret: {env: NOT_THERE}\n"
        )
    )
    signed = assemble(used)
    assert signed.configuration.meaning.rules.digest == plain.configuration.meaning.rules.digest
    name = named(used, "resend")
    assert signed.destinations[name].setup == plain.destinations[name].setup
    assert signed.destinations[name].missing == ()
