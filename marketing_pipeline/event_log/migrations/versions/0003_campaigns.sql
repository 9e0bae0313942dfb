-- What providers tell of what they did, numbered like every fact that an audience may read.
create table feedback (
    id uuid primary key,                  -- UUIDv5 of the provider and its own name for the notice
    seq bigint not null unique default nextval('fact_seq'),
    provider text not null,
    kind text not null check (kind in ('delivered', 'delayed', 'bounced', 'complained', 'opened', 'clicked',
                                       'unsubscribed', 'failed')),
    effect_id uuid references effects,    -- null: nobody can say which
    recipient_id uuid references recipients,
    occurred_at timestamptz not null,     -- by the provider's clock
    detail text,                          -- its own words, without addresses
    created_at timestamptz not null
);
create index feedback_effect on feedback (effect_id) where effect_id is not null;
create index feedback_recipient on feedback (recipient_id, kind) where recipient_id is not null;
create trigger feedback_kept before update or delete or truncate on feedback
    for each statement execute function refuse_change();

alter table effects
    -- Numbers the fact that it was sent; what was sent before facts of this kind were numbered has 0.
    add column sent_seq bigint default 0,
    add column held_due_at timestamptz;   -- when it was due before its campaign was held; due_at is far
alter table effects alter column sent_seq drop default;  -- new ones have none until they are sent
create index effects_once_sent on effects (once_key) where once_key is not null and sent_seq is not null;
create index effects_held on effects (event_id, id) where held_due_at is not null;

alter table plans
    add column campaign text,             -- whose it is, to find its last one
    add column starts_at timestamptz,     -- when its effects come due; null: with the event
    add column excluded jsonb not null default '{}' check (jsonb_typeof(excluded) = 'object');  -- counts, by reason
create index plans_campaign on plans (campaign, created_at) where campaign is not null;
alter table templates add column preheader text;

-- Which version of the operator's file was in use from when on: what time travel plans by.
create table config_uses (
    since timestamptz primary key,
    digest text not null references configs
);
insert into config_uses (since, digest)
select distinct on (created_at) created_at, digest from configs order by created_at, digest;

-- Plans that were shown before they were sent: all that is needed to make them again.
create table proposals (
    id bigint generated always as identity primary key,
    digest text not null check (digest ~ '^[0-9a-f]{64}$'),  -- of the plan: what a person approves
    kind text not null check (kind in ('campaign', 'resend')),
    campaign text,
    event_id uuid,                        -- not in the log yet, where it follows from an occurrence
    occurrence timestamptz,
    from_day date,                        -- of a resend
    to_day date,
    types text[],                         -- of a resend
    days jsonb,                           -- of a resend: each day's own digest, of which `digest` is taken
    epoch integer not null check (epoch >= 0),
    cut_seq bigint not null,
    cut_at timestamptz not null,
    config_digest text not null references configs,
    plan_version integer not null,
    count bigint not null check (count >= 0),
    excluded jsonb not null check (jsonb_typeof(excluded) = 'object'),
    created_at timestamptz not null,
    check ((kind = 'campaign') = (campaign is not null and event_id is not null)),
    check ((kind = 'resend') = (from_day is not null and to_day is not null and types is not null
                                and days is not null))
);
create index proposals_digest on proposals (digest, created_at);
create index proposals_event on proposals (event_id, created_at) where event_id is not null;
create index proposals_campaign on proposals (campaign, created_at) where campaign is not null;

-- What people agreed to: append only. It is used by the plan that comes of it, which there is once.
create table approvals (
    proposal bigint not null references proposals,
    number integer not null check (number > 0),
    who text not null,
    why text not null,
    expires_at timestamptz not null,
    created_at timestamptz not null,
    primary key (proposal, number)
);
create trigger approvals_kept before update or delete or truncate on approvals
    for each statement execute function refuse_change();

-- Campaigns that must not go on at present; nothing of them is planned or claimed meanwhile.
create table holds (
    event_id uuid primary key references marketing_events,
    state text not null check (state in ('unapproved', 'paused', 'cancelled')),
    reason text not null,
    since timestamptz not null,
    -- When its end began, which fixes how long the pause was; what was due is put back by and by.
    resumed_at timestamptz check (resumed_at is null or (state = 'paused' and resumed_at >= since)),
    parked boolean not null default false  -- all that waited when it was paused is out of the way
);

-- What people did to campaigns: append only.
create table interventions (
    event_id uuid not null references marketing_events,
    number integer not null check (number > 0),
    action text not null check (action in ('pause', 'resume', 'cancel')),
    why text not null check (btrim(why) <> ''),
    who text not null,
    created_at timestamptz not null,
    primary key (event_id, number)
);
create trigger interventions_kept before update or delete or truncate on interventions
    for each statement execute function refuse_change();

-- Steps of sequences wait here by the thousand: only those that are due are read.
create index marketing_events_triggers on marketing_events (scheduled_at)
    where status = 'PENDING' and type = 'CAMPAIGN_TRIGGER';

-- Why an effect of a later epoch must not be sent beside what another epoch has open, and why data of
-- an old event must not replace newer data; null: it may.
create function not_again(of_event uuid, in_epoch integer, of_step text, person uuid, contact text, seq bigint)
returns text language sql stable as $$
    select coalesce(
        (select 'open in epoch ' || o.epoch || ': it is not sent again before that has ended'
         from effects o
         where o.recipient_id = person and o.event_id = of_event and o.step = of_step and o.epoch <> in_epoch
           and o.state in ('PLANNED', 'SENDING', 'DOUBT', 'UNKNOWN')
         order by o.epoch limit 1),
        (select 'open in epoch ' || o.epoch || ': it is not sent again before that has ended'
         from effects o
         where person is null and o.event_id = of_event and o.step = of_step and o.epoch <> in_epoch
           and o.state in ('PLANNED', 'SENDING', 'DOUBT', 'UNKNOWN')
         order by o.epoch limit 1),
        (select 'superseded: newer data has gone to this contact, and older would replace it'
         from effects o
         where contact is not null and o.recipient_id = person and o.ordering_key = contact and o.event_seq > seq
           and o.state in ('PLANNED', 'SENDING', 'DOUBT', 'SENT', 'UNKNOWN')
         limit 1))
$$;
