"""What the sandbox tells of mails that it took: in their providers' form, until it is heard."""

import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from marketing_pipeline.sandbox import notices as forms
from marketing_pipeline.sandbox.serve import running
from marketing_pipeline_tests import published, webhooks
from marketing_pipeline_tests.patience import until


class Receiver(BaseHTTPRequestHandler):
    """Keeps what comes, and answers with the next status of its list, at last with 200."""

    def do_POST(self) -> None:
        server = cast("Server", self.server)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        server.got.append(({name.lower(): value for name, value in self.headers.items()}, body))
        self.send_response(server.statuses.pop(0) if server.statuses else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing on stderr."""


class Server(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Receiver)
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.statuses: list[int] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook"


@pytest.fixture
def receiver() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[httpx.Client]:
    """By the real clock: signatures are fresh or not by it."""
    with (
        running(tmp_path / "record.db") as url,
        httpx.Client(base_url=url) as client,
    ):
        yield client


def hook(provider: str, url: str, *kinds: str, **more: Any) -> dict[str, Any]:
    secret = webhooks.SVIX_SECRET if provider == "resend" else webhooks.MAILGUN_KEY
    return {"provider": provider, "url": url, "secret": secret, "kinds": list(kinds)} | more


def want(sandbox: httpx.Client, *hooks: object) -> httpx.Response:
    return sandbox.put("/_sandbox/webhooks", json=list(hooks))


def by_resend(sandbox: httpx.Client) -> str:
    mail = {"from": "a@example.org", "to": ["b@example.org"], "subject": "s", "text": "t"}
    answer = sandbox.post("/resend/emails", json=mail, headers={"Authorization": "Bearer key"})
    return str(answer.raise_for_status().json()["id"])


def by_mailgun(sandbox: httpx.Client) -> str:
    fields = {"from": "a@example.org", "to": "b@example.org", "subject": "s", "text": "t"}
    fields |= {"v:delivery_id": "e1"}
    files = {name: (None, value) for name, value in fields.items()}
    answer = sandbox.post("/mailgun/v3/mg.example.org/messages", files=files, auth=("api", "key"))
    return str(answer.raise_for_status().json()["id"])


def test_resend_s_notices_have_its_documented_form_and_a_valid_signature(
    sandbox: httpx.Client, receiver: Server
) -> None:
    kinds = [*forms.KINDS]
    want(sandbox, hook("resend", receiver.url, *kinds)).raise_for_status()
    ref = by_resend(sandbox)
    until(lambda: len(receiver.got) == len(kinds))
    for headers, body in receiver.got:
        at = datetime.fromtimestamp(int(headers["svix-timestamp"]), UTC)
        assert webhooks.svix(body, headers["svix-id"], at).items() <= headers.items()
        document = json.loads(body)
        assert published.notice_violations(document, "resend/resend.yaml") == []
        assert document["data"].get("email_id", ref) == ref
    assert len({headers["svix-id"] for headers, _ in receiver.got}) == len(kinds)
    bad = json.loads(receiver.got[0][1])
    del bad["data"]["email_id"]
    assert published.notice_violations(bad, "resend/resend.yaml")


def test_mailgun_s_notices_carry_the_mail_s_variables_and_message_id(
    sandbox: httpx.Client, receiver: Server
) -> None:
    want(sandbox, hook("mailgun", receiver.url, "delivered", "bounced")).raise_for_status()
    ref = by_mailgun(sandbox)
    by_resend(sandbox)  # of which nobody is told
    until(lambda: len(receiver.got) == 2)
    for _, body in receiver.got:
        document = json.loads(body)
        signed, data = document["signature"], document["event-data"]
        at = datetime.fromtimestamp(int(signed["timestamp"]), UTC)
        assert webhooks.signature(signed["token"], at) == signed
        assert data["user-variables"] == {"delivery_id": "e1"}
        assert data["message"]["headers"]["message-id"] == ref.strip("<>")
        assert data["recipient"] == "b@example.org"
    assert len({json.loads(body)["signature"]["token"] for _, body in receiver.got}) == 2


def test_a_notice_is_told_until_it_is_heard_and_as_often_as_wished(
    sandbox: httpx.Client, receiver: Server
) -> None:
    receiver.statuses[:] = [500, 503]
    want(sandbox, hook("resend", receiver.url, "opened", times=2)).raise_for_status()
    by_resend(sandbox)
    until(lambda: len(receiver.got) == 4)
    assert len({headers["svix-id"] for headers, _ in receiver.got}) == 1
    assert len({body for _, body in receiver.got}) == 1
    told = sandbox.get("/_sandbox/webhooks").json()
    assert [one["statuses"] for one in told] == [[500, 503, 200], [200]]


def test_mailgun_gives_up_at_406_and_tells_a_delivery_but_once(
    sandbox: httpx.Client, receiver: Server
) -> None:
    receiver.statuses[:] = [500, 204, 406]
    want(sandbox, hook("mailgun", receiver.url, "delivered", "opened")).raise_for_status()
    by_mailgun(sandbox)
    until(lambda: len(receiver.got) == 3)
    told = sandbox.get("/_sandbox/webhooks").json()
    assert [one["statuses"] for one in told] == [[500], [204, 406]]


def test_nobody_is_told_of_a_mail_that_was_not_taken(
    sandbox: httpx.Client, receiver: Server
) -> None:
    want(sandbox, hook("resend", receiver.url, "delivered")).raise_for_status()
    sandbox.post("/resend/emails", json={}, headers={"Authorization": "Bearer key"})
    fault = {"provider": "resend", "kind": "error_before", "times": 1}
    sandbox.put("/_sandbox/faults", json=[fault]).raise_for_status()
    mail = {"from": "a@example.org", "to": "b@example.org", "subject": "s", "text": "t"}
    headers = {"Authorization": "Bearer key", "Idempotency-Key": "k"}
    for status in (500, 200, 200):  # the last one is a repeat of the second
        answer = sandbox.post("/resend/emails", json=mail, headers=headers)
        assert answer.status_code == status
    until(lambda: len(receiver.got) == 1)
    want(sandbox)
    by_resend(sandbox)
    time.sleep(0.2)
    assert len(receiver.got) == 1


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"provider": "hubspot"}, "[0].provider"),
        ({"url": "127.0.0.1"}, "[0].url"),
        ({"secret": ""}, "[0].secret"),
        ({"secret": "whsec_%%"}, "[0].secret"),
        ({"kinds": []}, "[0].kinds"),
        ({"kinds": ["sent"]}, "[0].kinds"),
        ({"times": 0}, "[0].times"),
        ({"often": 2}, "[0].often"),
    ],
)
def test_a_hook_that_cannot_be_is_refused_by_its_field(
    sandbox: httpx.Client, changed: dict[str, Any], field: str
) -> None:
    answer = want(sandbox, hook("resend", "http://127.0.0.1/", "opened") | changed)
    assert answer.status_code == 400
    assert answer.json()["field"] == field
    assert want(sandbox).status_code == 204
    assert sandbox.put("/_sandbox/webhooks", json={}).json()["field"] == "body"
