-- guard --
-- Durable before it is answered, never stuck behind a lock, and by index also where a plan was cached while the tables were still empty; all for this transaction only, so that a pooler may hand the connection on.
select set_config('synchronous_commit', 'on', true),
       set_config('enable_seqscan', 'off', true),
       set_config('statement_timeout', %(patience)s, true)

-- recipients --
-- A random id for each address that has none yet, in the order of addresses: writers that lock in one order never wait for each other in a circle.
insert into recipients (id, address, created_at)
select gen_random_uuid(), address, %(now)s
from unnest(%(addresses)b::text[]) as a (address)
order by address collate "C"
on conflict do nothing

-- recipient --
-- The id of whoever has this address.
select id from recipients where address = %(address)s

-- events --
-- Numbers the events as they came and inserts them in the order of their keys; a key that is taken is left alone. No conflict target: with one, a racing insert of the same event can still fail on the primary key. Whoever waits for events is woken when this commits, and only if there is one: all notices of a transaction are delivered as one.
with arriving as materialized (
    select nextval('fact_seq') as seq, e.*
    from rows from (json_to_recordset(%(events)s::json)
         as (id uuid, idempotency_key text, type text, payload jsonb, source text, origin text,
             fingerprint text, address text, scheduled_at timestamptz, traceparent text,
             caused_by uuid))
         with ordinality as e (id, idempotency_key, type, payload, source, origin, fingerprint,
                               address, scheduled_at, traceparent, caused_by, place)
    order by place
), recorded as (
    insert into marketing_events (id, seq, idempotency_key, type, payload, source, origin, fingerprint,
                                  recipient_id, scheduled_at, created_at, traceparent, caused_by, updated_at)
    select a.id, a.seq, a.idempotency_key, a.type, a.payload, a.source, a.origin, a.fingerprint,
           (select r.id from recipients r where r.address = a.address),
           a.scheduled_at, %(now)s, a.traceparent, a.caused_by, %(now)s
    from arriving a
    order by a.idempotency_key collate "C", a.seq
    on conflict do nothing
    returning idempotency_key
)
select idempotency_key, pg_notify('marketing_events', '') from recorded

-- taken --
-- What stands in the log under these keys.
select idempotency_key, id, fingerprint, type, source, scheduled_at
from marketing_events
where idempotency_key = any(%(keys)b)

-- revision --
-- What the migrations left; the table is missing where there were none.
select version_num from alembic_version

-- create key --
-- A sender's key, of which only the hash of the secret half is kept.
insert into ingest_keys (id, source, secret_sha256, created_at)
values (%(id)s, %(source)s, %(secret_sha256)s, %(now)s)

-- revoke key --
-- Ends a key; one that was revoked before keeps its first end.
update ingest_keys set revoked_at = %(now)s
where id = %(id)s and revoked_at is null
returning id

-- list keys --
-- Every key there ever was, the oldest first.
select id, source, created_at, revoked_at from ingest_keys order by created_at, id

-- active keys --
-- The keys that may be used.
select id, source, secret_sha256 from ingest_keys where revoked_at is null
