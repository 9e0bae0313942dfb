-- A log knows itself, so that a restored or copied one is told from the one that sent.
create table installation (
    one boolean primary key default true check (one),
    identity uuid not null,
    -- What was due by then may have been sent in another life of this log: it starts in doubt.
    adopted_at timestamptz,
    adopted_why text,
    look_at timestamptz,                  -- and is asked about from then on: providers need a while
    created_at timestamptz not null,
    check ((adopted_at is null) = (adopted_why is null)),
    check ((adopted_at is null) = (look_at is null))
);
insert into installation (identity, created_at) values (gen_random_uuid(), clock_timestamp());
-- Numbers claims; how far it came is kept outside the database too. What the log remembers is read from
-- its rows: recovery sets a sequence up to 32 ahead of what was committed.
create sequence claim_seq as bigint;
alter table attempts
    add column claim_number bigint,       -- of its claim, on one attempt of each
    add column setup text;                -- digest of how the provider was set up: adapter and options
create unique index attempts_claims on attempts (claim_number) where claim_number is not null;

alter table effects
    add column expires_at timestamptz,    -- not sent any more after this; null: whenever it can be
    add column once_key text,             -- effects that share it exclude each other
    add column redrives smallint not null default 0 check (redrives >= 0);  -- by the daily job
alter table effects add check (state <> 'PLANNED' or doubt_since is null);
-- As a key, the state drew the planner of PostgreSQL 18 away from the partial indexes of due work.
drop index effects_day;
create index effects_day on effects (day) include (state);
create index effects_unknown on effects (updated_at) where state = 'UNKNOWN';
create index effects_failed on effects (settled_at) where state = 'FAILED';
create index effects_recipient on effects (recipient_id) where recipient_id is not null;
create index effects_reference on effects (provider_ref) where provider_ref is not null;
create index marketing_events_caused_by on marketing_events (caused_by) where caused_by is not null;
create index marketing_events_failed on marketing_events (updated_at) where status = 'FAILED';

-- A day at its end is not read again unless something moves on it: a redrive, a late Accepted.
alter table observed_days add column moved boolean not null default false;

-- `once: recipient` and `once: recipient/30d`: who has it, and until when nobody else may.
create table once_taken (
    key text primary key,                 -- the last word on "once" beyond one event
    effect_id uuid not null,
    since timestamptz not null,           -- when that effect was due
    until timestamptz not null            -- 'infinity': for ever
);
create index once_taken_effect on once_taken (effect_id);

-- What people decided about UNKNOWN effects: append only.
create table resolutions (
    effect_id uuid not null references effects,
    number integer not null check (number > 0),
    action text not null check (action in ('sent', 'resend')),
    why text not null check (btrim(why) <> ''),
    who text not null,
    calls integer not null,               -- attempts made before
    created_at timestamptz not null,
    primary key (effect_id, number)
);
create function refuse_change() returns trigger language plpgsql as $$
begin
    raise exception '% is a record of what was done and cannot be changed', tg_table_name;
end $$;
create trigger resolutions_kept before update or delete or truncate on resolutions
    for each statement execute function refuse_change();
create trigger attempts_appended before delete on attempts
    for each statement execute function refuse_change();
