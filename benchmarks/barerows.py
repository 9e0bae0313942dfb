"""The limit of dispatch: the rows of a delivery's ledger, written by SQL alone.

What the design has on record of one event with one effect is three rows and four changes: its
plan, the effect, the attempt; PROCESSING, SENDING, the outcome in effect and attempt, COMPLETED.
Here two sessions write just these, a hundred events a transaction, in the four transactions of a
delivery. No worker, no provider, no gate; nothing is looked for, rendered, hashed or sent over.
Faster than this, the machine cannot keep such books.
"""

import threading
import time
from collections.abc import Sequence

import psycopg

CHUNK = 100  # events a transaction
SESSIONS = 2  # as many as cores
_CLAIM = "6b9f3a52-8d0c-4a53-9f1e-2f4d3f0c7a11"
_PLANNED = (
    """
insert into plans (event_id, epoch, day, cut_seq, cut_at, config_digest, plan_version, count,
                   digest, inserted, created_at)
select id, 0, day, seq, now(), (select digest from configs limit 1), 3, 1, fingerprint, 1, now()
from marketing_events where seq = any(%(seqs)s)
""",
    """
insert into effects (id, event_id, epoch, day, event_seq, route, step, provider, kind, variables,
                     state, priority, due_at, expires_at, created_at, updated_at)
select md5('effect ' || seq)::uuid, id, 0, day, seq, type, 'post', 'site', 'post', payload,
       'PLANNED', 1, scheduled_at, scheduled_at + interval '1 day', now(), now()
from marketing_events where seq = any(%(seqs)s)
""",
    """
update marketing_events set status = 'PROCESSING', updated_at = now() where seq = any(%(seqs)s)
""",
)
_CLAIMED = (
    """
with claimed as (
    update effects set state = 'SENDING', claim_id = %(claim)s, attempts = 1, calls = 1,
           lease_until = now() + interval '1 minute', first_attempt_at = now(),
           last_attempt_at = now(), updated_at = now()
    where id = any(%(ids)s) returning id, provider
)
insert into attempts (effect_id, number, purpose, claim_id, provider, started_at, request_sha256)
select id, 1, 'send', %(claim)s, provider, now(), repeat('0', 64) from claimed
""",
)
_SETTLED = (
    """
update attempts set finished_at = now(), outcome = 'ACCEPTED', status_code = 200,
       latency = interval '1 ms'
where effect_id = any(%(ids)s)
""",
    """
update effects set state = 'SENT', lease_until = null, provider_ref = id::text, settled_at = now(),
       sent_seq = nextval('fact_seq'), updated_at = now()
where id = any(%(ids)s)
""",
)
_COMPLETED = (
    """
update marketing_events set status = 'COMPLETED', updated_at = now() where seq = any(%(seqs)s)
""",
)


def write(url: str, source: str) -> float:
    """Do so to all PENDING events of a source; seconds it took."""
    with psycopg.connect(url) as conn:
        found = conn.execute(
            "select seq, md5('effect ' || seq)::uuid from marketing_events"
            " where status = 'PENDING' and source = %s order by seq",
            (source,),
        ).fetchall()
    chunks = [found[at : at + CHUNK] for at in range(0, len(found), CHUNK)]
    sessions = [
        threading.Thread(target=_session, args=(url, chunks[place::SESSIONS]))
        for place in range(SESSIONS)
    ]
    began = time.monotonic()
    for one in sessions:
        one.start()
    for one in sessions:
        one.join()
    return time.monotonic() - began


def _session(url: str, chunks: Sequence[Sequence[tuple[int, object]]]) -> None:
    with psycopg.connect(url) as conn:
        for chunk in chunks:
            seqs, ids = map(list, zip(*chunk, strict=True))
            for transaction in (_PLANNED, _CLAIMED, _SETTLED, _COMPLETED):
                for statement in transaction:
                    conn.execute(statement, {"seqs": seqs, "ids": ids, "claim": _CLAIM})
                conn.commit()
