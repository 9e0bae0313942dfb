"""What a trial stands on: servers of its own, the sandbox, the operator's file, engines."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psycopg

from marketing_pipeline import embedded
from marketing_pipeline.event_log import schema
from marketing_pipeline_tests import pipeline
from marketing_pipeline_tests.chaos import engine_child
from marketing_pipeline_tests.chaos.engine import Engine

CAMPAIGN = "everybody"
CALL_TIMEOUT, LEASE_MARGIN, SETTLE_DELAY = 3.0, 0.5, 3.0  # seconds
LATENCY = 0.03  # seconds until the provider answers: what is killed has calls under way
LEASE = CALL_TIMEOUT + LEASE_MARGIN
_OPTIONS = {
    "mailgun": "domain: mg.example.com, region: us, horizon: 1h, ",
    "resend": "",
}
# A quick breaker: a patient one would leave nothing to be killed.
_FILE = """version: 1
sender: {{email: hello@example.com, name: Example}}
delivery: {{linger: 60s, lease_margin: {lease_margin:.0f}ms}}
providers:
  bulk:
    adapter: {adapter}
    api_key: {{env: TOKEN}}
    {options}
    limits: [{{calls: {calls}, per: 1s}}]
    connections: 32
    call_timeout: {call_timeout:.0f}s
    settle_delay: {settle_delay:.0f}s
    breaker: {{failures: 20, error_share: 0.9, open_for: 200ms}}
  site: {{adapter: webhook, url: "https://www.example.com/hook", limits: [{{calls: 9, per: 1s}}]}}
routes:
  LEAD_CAPTURE: [{{step: welcome, provider: bulk, template: long}}]
  CONTENT_PUBLISH: [{{step: post, provider: site}}]
  CAMPAIGN_TRIGGER: [{{step: mail, provider: bulk, priority: bulk}}]
templates:
  short: {{subject: "What is new", html: templates/news.html}}
  long: {{subject: "{{{{ first_name }}}}, this is new", html: templates/welcome.html}}
audiences:
  everybody: {{}}
campaigns:
  everybody:
    audience: everybody
    approve: true
    split: {{holdout: 10%, variants: {{a: {{template: short, share: 50%}}, b: {{template: long}}}}}}
"""
# Imported as history, which plans nothing.
_LEADS = """
with people as (
    insert into recipients (id, address, created_at)
    select gen_random_uuid(), 'p' || n || '@example.com', now() from generate_series(1, %s) n
    returning id, address
)
insert into marketing_events (id, idempotency_key, type, payload, source, origin, fingerprint,
    recipient_id, scheduled_at, created_at, status, updated_at)
select gen_random_uuid(), address, 'LEAD_CAPTURE',
       jsonb_build_object('email', address, 'first_name', split_part(address, '@', 1)),
       'import', 'history', repeat('a', 64), id, now(), now(), 'COMPLETED', now()
from people"""

# Every way in which a provider can fail; bursts of throttling come on top.
_FAULTS = (
    ("error_before", 0.004),
    ("error_after", 0.004),
    ("reset_before", 0.004),
    ("reset_after", 0.004),
    ("close_after", 0.004),
    ("half_body_after", 0.004),
    ("hang_before", 0.001),
    ("hang_after", 0.001),
    ("slow", 0.002),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """Where a trial takes place."""

    home: Path
    adapter: str
    calls: int  # a second, that the file and the sandbox allow
    database: str
    sandbox: str  # URL
    environment: Mapping[str, str]

    @property
    def record(self) -> Path:
        return self.home / "sandbox.sqlite"

    def start(self) -> Engine:
        """A delivery engine in a process of its own."""
        log = self.home / "engine.log"
        return Engine.start(engine_child.forked, (dict(self.environment), str(log), None), log)

    def load(self, recipients: int) -> dict[str, str]:
        """So many people, by SQL: their ids by address."""
        with psycopg.connect(self.database, autocommit=True) as conn:
            conn.execute(_LEADS, [recipients])
            conn.execute("vacuum analyze")
            return dict(conn.execute("select address, id::text from recipients").fetchall())

    def weather(self, *, throttled: int = 0, calls: int | None = None) -> None:
        """Faults by share; the next calls are throttled; the limit is lowered to `calls`."""
        burst = [{"provider": self.adapter, "kind": "throttle", "times": throttled}]
        faults = [
            {"provider": self.adapter, "kind": kind, "share": share, "seconds": CALL_TIMEOUT + 1}
            for kind, share in _FAULTS
        ]
        self._put("faults", (burst if throttled else []) + faults)
        self._put("limits", {self.adapter: {"limit": calls or self.calls, "seconds": 1}})
        self._put("settings", {"latency": {self.adapter: LATENCY}})

    def _put(self, what: str, wish: object) -> None:
        httpx.put(f"{self.sandbox}/_sandbox/{what}", json=wish, timeout=30).raise_for_status()


@contextmanager
def ground(adapter: str, calls: int) -> Iterator[Ground]:
    """Everything fresh, and gone afterwards."""
    home = Path(tempfile.mkdtemp(prefix="campaign-"))
    state = home / "state"
    try:
        _operators_folder(home, adapter, calls)
        servers = embedded.attach(state)
        schema.migrate(servers.database_url)
        with _sandbox(home / "sandbox.sqlite") as url:
            yield Ground(
                home=home,
                adapter=adapter,
                calls=calls,
                database=servers.database_url,
                sandbox=url,
                environment={
                    "MARKETING_HOME": str(home),
                    "MARKETING_STATE": str(state),
                    "MARKETING_CAMPAIGNS": "campaigns/pipeline.yaml",
                    "MARKETING_DATABASE_URL": servers.database_url,
                    "MARKETING_REDIS_URL": servers.redis_url,
                    "MARKETING_SANDBOX_URL": url,
                },
            )
    finally:
        embedded.stop(state, force=True)
        shutil.rmtree(home)


def _operators_folder(home: Path, adapter: str, calls: int) -> None:
    shutil.copytree(pipeline.CHECKOUT / "campaigns/templates", home / "campaigns/templates")
    text = _FILE.format(
        adapter=adapter,
        options=_OPTIONS[adapter].replace(", ", "\n    ").rstrip(),
        calls=calls,
        call_timeout=CALL_TIMEOUT,
        lease_margin=LEASE_MARGIN * 1000,
        settle_delay=SETTLE_DELAY,
    )
    (home / "campaigns/pipeline.yaml").write_text(text)


@contextmanager
def _sandbox(record: Path) -> Iterator[str]:
    """What it says of clients that die goes into a log: they are meant to."""
    command = [sys.executable, "-m", "marketing_pipeline.sandbox", "--port", "0"]
    with (
        record.with_suffix(".log").open("w") as log,
        subprocess.Popen(
            [*command, "--record", str(record)], stdout=subprocess.PIPE, stderr=log, text=True
        ) as process,
    ):
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[1]
        finally:
            process.terminate()
