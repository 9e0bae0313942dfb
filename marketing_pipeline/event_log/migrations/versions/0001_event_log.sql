-- One sequence numbers every fact that an audience may read, so that a cut is one number.
create sequence fact_seq as bigint;

create table recipients (
    id uuid primary key,                  -- random: ids and digests outlive an erasure
    address text unique,                  -- the only place an address stands; null once erased
    created_at timestamptz not null,
    erased_at timestamptz,
    check ((erased_at is null) = (address is not null)),
    check (address = lower(btrim(address)))
);

create table marketing_events (
    -- facts, immutable by trigger
    id uuid primary key,                  -- UUIDv5 of the idempotency key
    seq bigint not null unique default nextval('fact_seq'),
    idempotency_key varchar(64) not null unique,
    type text not null check (type in ('LEAD_CAPTURE', 'CONTENT_PUBLISH', 'CAMPAIGN_TRIGGER')),
    payload jsonb not null check (jsonb_typeof(payload) = 'object'),
    source text not null check (source <> ''),
    origin text not null default 'live' check (origin in ('live', 'history')),
    fingerprint text not null check (fingerprint ~ '^[0-9a-f]{64}$'),
    recipient_id uuid references recipients,  -- whose LEAD_CAPTURE it is
    scheduled_at timestamptz not null     -- when it is due
        check (scheduled_at >= '2020-01-01T00:00:00Z' and scheduled_at < created_at + interval '402 days'),
    day date not null generated always as ((scheduled_at at time zone 'UTC')::date) stored,  -- its partition
    created_at timestamptz not null,
    traceparent text,
    caused_by uuid references marketing_events,
    -- state
    status text not null default 'PENDING'
        check (status in ('PENDING', 'PROCESSING', 'COMPLETED', 'FAILED')),
    retry_count integer not null default 0 check (retry_count >= 0),  -- calls repeated for its effects
    last_error text,
    updated_at timestamptz not null,
    check ((type = 'LEAD_CAPTURE') = (recipient_id is not null))
);
comment on table marketing_events is 'The log: facts are immutable, status is derived from the ledger.';

-- Finding due work reads only what is unfinished, however long history grows.
create index marketing_events_pending on marketing_events (scheduled_at, seq) where status = 'PENDING';
create index marketing_events_processing on marketing_events (updated_at) where status = 'PROCESSING';
create index marketing_events_unfinished on marketing_events (day) where status in ('PENDING', 'PROCESSING');
create index marketing_events_day on marketing_events (day, seq);
create index marketing_events_leads on marketing_events (seq) where type = 'LEAD_CAPTURE';
create index marketing_events_recipient on marketing_events (recipient_id) where recipient_id is not null;

create function refuse_changed_facts() returns trigger language plpgsql as $$
begin
    if tg_op = 'DELETE' then
        raise exception 'marketing_events is a log: event % cannot be deleted', old.id
            using hint = 'Facts stay. To forget a person, erase the recipient.';
    end if;
    if (new.id, new.seq, new.idempotency_key, new.type, new.payload, new.source, new.origin,
        new.fingerprint, new.recipient_id, new.scheduled_at, new.created_at, new.traceparent,
        new.caused_by)
       is distinct from
       (old.id, old.seq, old.idempotency_key, old.type, old.payload, old.source, old.origin,
        old.fingerprint, old.recipient_id, old.scheduled_at, old.created_at, old.traceparent,
        old.caused_by) then
        raise exception 'marketing_events is a log: the facts of event % cannot be changed', old.id
            using hint = 'Record a new event instead.';
    end if;
    return new;
end $$;
create trigger marketing_events_immutable before update or delete on marketing_events
    for each row execute function refuse_changed_facts();

create function refuse_truncate() returns trigger language plpgsql as $$
begin
    raise exception '% holds the record of what was done and cannot be truncated', tg_table_name;
end $$;
create trigger marketing_events_kept before truncate on marketing_events
    for each statement execute function refuse_truncate();

create table configs (
    digest text primary key check (digest ~ '^[0-9a-f]{64}$'),  -- of the body
    body jsonb not null,                  -- the operator's file as it was used, without secrets
    created_at timestamptz not null
);

create table templates (
    hash text primary key check (hash ~ '^[0-9a-f]{64}$'),      -- of name, subject and html
    name text not null,
    subject text not null,
    html text not null,
    created_at timestamptz not null
);

create table plans (
    event_id uuid not null references marketing_events,
    epoch integer not null default 0 check (epoch >= 0),
    day date not null,                    -- the event's partition
    cut_seq bigint not null,              -- the plan reads facts up to here, and never beyond
    cut_at timestamptz not null,
    config_digest text not null references configs,
    plan_version integer not null,        -- of the planning code
    count integer not null check (count >= 0),
    digest text not null check (digest ~ '^[0-9a-f]{64}$'),     -- over its effects, in order
    inserted integer not null check (inserted >= 0 and inserted <= count),  -- so far
    created_at timestamptz not null,
    primary key (event_id, epoch)
);
create index plans_unfinished on plans (created_at) where inserted < count;
create index plans_day on plans (day);

create table effects (
    id uuid primary key,                  -- UUIDv5 of what it is: the last word on "once"
    event_id uuid not null,
    epoch integer not null,
    day date not null,                    -- the event's partition
    event_seq bigint not null,
    route text not null,                  -- the event type whose route planned it
    step text not null,
    provider text not null,
    kind text not null check (kind in ('email', 'contact', 'post')),
    recipient_id uuid references recipients,
    ordering_key text,                    -- effects that share it go oldest first, one in flight
    template text references templates,
    variables jsonb not null default '{}',
    -- state
    state text not null check (state in ('PLANNED', 'SENDING', 'DOUBT', 'SENT', 'FAILED', 'SUPPRESSED', 'UNKNOWN')),
    priority smallint not null,           -- lower goes first
    attempts integer not null default 0 check (attempts >= 0),  -- sends that count
    calls integer not null default 0,     -- everything ever started for it, look-ups included
    due_at timestamptz not null,
    claim_id uuid,
    lease_until timestamptz,
    first_attempt_at timestamptz,
    last_attempt_at timestamptz,
    doubt_since timestamptz,              -- while an earlier attempt may have been done
    provider_ref text,
    last_error text,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    settled_at timestamptz,
    foreign key (event_id, epoch) references plans,
    check (calls >= attempts),
    check ((state = 'SENDING') = (lease_until is not null)),
    check (state <> 'SENDING' or (claim_id is not null and calls > 0)),
    check ((state in ('SENT', 'FAILED', 'SUPPRESSED', 'UNKNOWN')) = (settled_at is not null)),
    check (state <> 'SENT' or (provider_ref is not null and calls > 0)),
    check (state not in ('FAILED', 'SUPPRESSED', 'UNKNOWN') or last_error is not null),
    check (state not in ('DOUBT', 'UNKNOWN') or doubt_since is not null),
    check (state not in ('SUPPRESSED', 'SENT', 'FAILED') or doubt_since is null),
    check (doubt_since is null or first_attempt_at is not null),
    check ((first_attempt_at is null) = (last_attempt_at is null)),
    check ((kind = 'post') = (recipient_id is null)),
    check ((kind = 'email') = (template is not null))
);
create index effects_due on effects (provider, priority, due_at) where state in ('PLANNED', 'DOUBT');
create index effects_leased on effects (lease_until) where state = 'SENDING';
create index effects_waiting on effects (ordering_key, event_seq)
    where ordering_key is not null and state in ('PLANNED', 'SENDING', 'DOUBT');
create index effects_event on effects (event_id, epoch);
create index effects_day on effects (day, state);
create index effects_open on effects (event_id) where state in ('PLANNED', 'SENDING', 'DOUBT');

create table attempts (
    effect_id uuid not null references effects,
    number integer not null check (number > 0),
    purpose text not null check (purpose in ('send', 'look_up')),
    claim_id uuid not null,
    provider text not null,
    started_at timestamptz not null,
    request_sha256 text check (request_sha256 ~ '^[0-9a-f]{64}$'),
    request_body bytea,                   -- kept until settled, where the provider compares payloads
    finished_at timestamptz,
    outcome text check (outcome in ('ACCEPTED', 'THROTTLED', 'BLOCKED', 'REFUSED', 'UNREACHED',
                                    'AMBIGUOUS', 'FOUND', 'ABSENT', 'INCONCLUSIVE')),
    status_code smallint,
    latency interval,
    reason text,
    primary key (effect_id, number),
    check ((finished_at is null) = (outcome is null)),
    check (purpose = 'look_up' or request_sha256 is not null),
    check (outcome is null or
           (purpose = 'look_up') = (outcome in ('FOUND', 'ABSENT', 'INCONCLUSIVE')))
);
create index attempts_recent on attempts (provider, started_at);
create trigger attempts_kept before truncate on attempts
    for each statement execute function refuse_truncate();

create table suppressions (
    recipient_id uuid not null references recipients,
    scope text not null default 'all' check (scope in ('all', 'email', 'contact')),  -- or one kind
    reason text not null,
    seq bigint not null unique default nextval('fact_seq'),
    created_at timestamptz not null,
    primary key (recipient_id, scope)
);

create table pauses (
    provider text primary key,
    until timestamptz not null,
    reason text not null,
    created_at timestamptz not null
);

create table ingest_keys (
    id text primary key,                  -- the public half of a key
    source text not null check (source <> ''),
    secret_sha256 text not null,          -- the secret half is 256 random bits: a plain hash suffices
    created_at timestamptz not null,
    revoked_at timestamptz
);

create table heartbeats (
    worker uuid primary key,
    kind text not null check (kind in ('delivery', 'requested')),
    run_id text,                          -- the Dagster run, where there is one
    started_at timestamptz not null,
    expires_at timestamptz not null       -- a process that lives moves it on
);

create table views (
    name text not null,
    day date not null,
    digest text not null,                 -- of the content
    rows integer not null,
    content text not null,                -- CSV; people by recipient_id, never by address
    materialized_at timestamptz not null,
    primary key (name, day)
);

create table observed_days (
    day date primary key,
    data_version text not null,
    observed_at timestamptz not null
);

-- Does the ledger hold what was planned? Two tables, neither derived from the other.
create function conservation(from_day date, to_day date)
returns table (day date, planned bigint, sent bigint, failed bigint, suppressed bigint,
               unknown bigint, open bigint, unplanned bigint, missing bigint)
language sql stable as $$
    with promised as (
        select p.day, sum(p.count) as planned,
               sum(p.count - p.inserted) as to_insert
        from plans p where p.day between from_day and to_day group by p.day
    ), held as (
        select e.day,
               count(*) filter (where e.state = 'SENT') as sent,
               count(*) filter (where e.state = 'FAILED') as failed,
               count(*) filter (where e.state = 'SUPPRESSED') as suppressed,
               count(*) filter (where e.state = 'UNKNOWN') as unknown,
               count(*) filter (where e.state in ('PLANNED', 'SENDING', 'DOUBT')) as open
        from effects e where e.day between from_day and to_day group by e.day
    ), unplanned as (
        select m.day, count(*) as unplanned from marketing_events m
        where m.day between from_day and to_day and m.status = 'PENDING' group by m.day
    ), days as (
        select d.day from promised d union select h.day from held h union select u.day from unplanned u
    )
    select days.day, coalesce(planned, 0)::bigint, coalesce(sent, 0), coalesce(failed, 0),
           coalesce(suppressed, 0), coalesce(unknown, 0), coalesce(open, 0) + coalesce(to_insert, 0)::bigint,
           coalesce(unplanned.unplanned, 0),
           coalesce(planned, 0)::bigint - coalesce(to_insert, 0)::bigint - coalesce(sent, 0)
             - coalesce(failed, 0) - coalesce(suppressed, 0) - coalesce(unknown, 0) - coalesce(open, 0)
    from days left join promised using (day) left join held using (day) left join unplanned using (day)
    order by days.day
$$;
