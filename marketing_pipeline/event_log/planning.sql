-- due events --
-- Locks due events that wait for their plan; those another planner holds are passed over. Campaigns to
-- a whole audience are planned beside. Plans are counted and not asked for with `exists`, which would be
-- answered by hashing every plan there is.
select m.id, m.seq, m.type, m.payload, m.source, m.origin, m.scheduled_at, m.recipient_id,
       (select count(*) from plans p where p.event_id = m.id) > 0 as planned, clock_timestamp() as now
from marketing_events m
where m.status = 'PENDING' and m.scheduled_at <= %(now)s
  and (m.scheduled_at, m.seq) > (%(after_at)s::timestamptz, %(after_seq)s::bigint)
  and (m.type <> 'CAMPAIGN_TRIGGER' or m.origin <> 'live' or (m.payload ? 'recipient' and m.seq <= %(cut)s))
  and m.id <> all (array(select event_id from holds))
order by m.scheduled_at, m.seq
limit %(limit)s
for update of m skip locked

-- triggers due --
-- Is something due for a whole audience, and something for a single person? Each needs a cut.
select coalesce(bool_or(not m.payload ? 'recipient'), false), coalesce(bool_or(m.payload ? 'recipient'), false)
from marketing_events m
where m.status = 'PENDING' and m.type = 'CAMPAIGN_TRIGGER' and m.origin = 'live' and m.scheduled_at <= %(now)s
  and m.id <> all (array(select event_id from holds))

-- promise --
-- Writes plans once; a plan that is there stays as it is. Their events are under way from now on, whatever a
-- pasted UPDATE made of them.
with written as (
    insert into plans (event_id, epoch, day, cut_seq, cut_at, config_digest, plan_version, count,
                       digest, inserted, campaign, starts_at, excluded, created_at)
    select p.event_id, p.epoch, p.day, p.cut_seq, p.cut_at, p.config_digest, p.plan_version, p.count, p.digest,
           p.inserted, p.campaign, p.starts_at, p.excluded, %(now)s
    from json_to_recordset(%(plans)s::json)
         as p (event_id uuid, epoch int, day date, cut_seq bigint, cut_at timestamptz, config_digest text,
               plan_version int, count int, digest text, inserted int, campaign text, starts_at timestamptz,
               excluded jsonb)
    on conflict do nothing
)
update marketing_events set status = 'PROCESSING', updated_at = %(now)s
where id = any(%(under_way)s)

-- standing plans --
-- Which of these plans are there, and what they promise.
select p.event_id, p.digest
from unnest(%(event_ids)s::uuid[], %(epochs)s::int[]) as w (event_id, epoch)
join plans p using (event_id, epoch)

-- lock once --
-- Whoever takes one of these keys waits for whoever has just done so, and then reads what they wrote.
select from once_taken where key = any(%(keys)s) order by key for update

-- take once --
-- Takes what is free: never taken, lapsed, or held by an effect that came to nothing.
insert into once_taken as taken (key, effect_id, since, until)
select distinct on (w.key) w.key, w.effect_id, w.since, w.until
from unnest(%(keys)s::text[], %(effect_ids)s::uuid[], %(since)s::timestamptz[], %(until)s::timestamptz[])
     as w (key, effect_id, since, until)
order by w.key, w.since, w.effect_id
on conflict (key) do update set effect_id = excluded.effect_id, since = excluded.since, until = excluded.until
where taken.until <= excluded.since
   or exists (select from effects e where e.id = taken.effect_id and e.state in ('FAILED', 'SUPPRESSED'))

-- once takers --
-- Which of these effects hold their key.
select effect_id from once_taken where effect_id = any(%(effect_ids)s)

-- insert effects --
-- Writes planned effects; the primary key is the last word on "once". What was due before this log
-- was adopted may have been sent in its earlier life, and starts in doubt. In a later epoch nobody is
-- sent what is still open, or unknown, in another one. Of what is then to be sent, that which `attempts`
-- names is claimed by the same stroke: leased, with its attempt on record.
with claimed as (
    select * from json_to_recordset(%(attempts)s::json)
        as c (effect_id uuid, request_sha256 text, request_body bytea, setup text, lease interval)
), planned as materialized (  -- so that each question is asked once for each
    select i.*, l.look_at, c.lease,
           case
               when i.refused then 'once: another effect has reached this person, or will'
               when i.epoch > 0 then not_again(i.event_id, i.epoch, i.step, i.recipient_id, i.ordering_key, i.event_seq)
           end as why,
           coalesce(i.due_at <= l.adopted_at, false) as doubtful, c.effect_id is not null as claimed
    from json_to_recordset(%(effects)s::json)
         as i (id uuid, event_id uuid, epoch int, day date, event_seq bigint, route text, step text, provider text,
               kind text, recipient_id uuid, ordering_key text, template text, variables jsonb, priority smallint,
               due_at timestamptz, expires_at timestamptz, once_key text, refused bool)
    cross join installation l
    left join claimed c on c.effect_id = i.id
), decided as materialized (
    select p.*, case when why is not null then 'SUPPRESSED' when doubtful then 'DOUBT' when claimed then 'SENDING'
                     else 'PLANNED' end as state
    from planned p
), written as (
    insert into effects (id, event_id, epoch, day, event_seq, route, step, provider, kind, recipient_id,
                         ordering_key, template, variables, state, priority, due_at, created_at, updated_at,
                         expires_at, once_key, last_error, settled_at, doubt_since, attempts, calls,
                         claim_id, lease_until, first_attempt_at, last_attempt_at)
    select id, event_id, epoch, day, event_seq, route, step, provider, kind, recipient_id,
           ordering_key, template, variables, state, priority,
           case when doubtful then look_at else due_at end, %(now)s, %(now)s,
           expires_at, once_key, why, case state when 'SUPPRESSED' then %(now)s end,
           case state when 'DOUBT' then due_at end, (state = 'SENDING')::int, (state = 'SENDING')::int,
           case state when 'SENDING' then %(claim_id)s::uuid end,
           case state when 'SENDING' then statement_timestamp() + lease end,
           case state when 'DOUBT' then due_at when 'SENDING' then statement_timestamp() end,
           case state when 'DOUBT' then due_at when 'SENDING' then statement_timestamp() end
    from decided order by id
    on conflict (id) do nothing
    returning id, provider, state
), begun as (
    insert into attempts (effect_id, number, purpose, claim_id, provider, started_at, request_sha256, request_body,
                          setup, claim_number)
    select w.id, 1, 'send', %(claim_id)s, w.provider, statement_timestamp(), c.request_sha256, c.request_body,
           c.setup, case row_number() over () when 1 then nextval('claim_seq') end
    from written w join claimed c on c.effect_id = w.id where w.state = 'SENDING'
    returning effect_id, claim_number
)
select array_agg(effect_id) as effects, statement_timestamp() as now, max(claim_number) as number,
       (select coalesce(max(c.claim_number), 0) from attempts c where c.claim_number is not null) as remembered
from begun having count(*) > 0

-- mark unplannable --
-- An event that cannot be planned fails alone, with its reason.
update marketing_events m set status = 'FAILED', last_error = f.reason, updated_at = %(now)s
from unnest(%(ids)s::uuid[], %(reasons)s::text[]) as f (id, reason) where m.id = f.id

-- unfinished plans --
-- Plans whose effects are not all written: somebody died between two chunks.
select p.event_id, p.epoch, p.cut_seq, p.cut_at, p.config_digest, p.plan_version, p.count, p.digest,
       p.inserted, p.starts_at, p.excluded, m.id, m.seq, m.type, m.payload, m.source, m.origin, m.scheduled_at, m.recipient_id
from plans p join marketing_events m on m.id = p.event_id
where p.inserted < p.count
order by p.created_at limit 10

-- advance --
-- Counts a chunk as written, if nobody else wrote it meanwhile.
update plans set inserted = %(upto)s
where event_id = %(event_id)s and epoch = %(epoch)s and inserted = %(before)s
returning 1

-- campaign to plan --
-- The campaign that has been due for longest, locked by nobody: counting its audience takes a while.
select m.id, m.seq, m.type, m.payload, m.source, m.origin, m.scheduled_at, m.recipient_id,
       (select count(*) from plans p where p.event_id = m.id) > 0 as planned, clock_timestamp() as now
from marketing_events m
where m.status = 'PENDING' and m.type = 'CAMPAIGN_TRIGGER' and m.origin = 'live' and m.scheduled_at <= %(now)s
  and not m.payload ? 'recipient' and m.seq <= %(cut)s and m.id <> all (array(select event_id from holds))
order by m.scheduled_at, m.seq limit 1

-- lock unplanned --
-- Locks an event that still waits for its plan.
select from marketing_events m
where m.id = %(id)s and m.status = 'PENDING' and not exists (select from plans p where p.event_id = m.id)
  and not exists (select from holds h where h.event_id = m.id)
for update of m skip locked

-- plan --
-- The plan of an event in an epoch.
select p.event_id, p.epoch, p.cut_seq, p.cut_at, p.config_digest, p.plan_version, p.count, p.digest,
       p.inserted, p.starts_at, p.excluded, m.id, m.seq, m.type, m.payload, m.source, m.origin, m.scheduled_at,
       m.recipient_id
from plans p join marketing_events m on m.id = p.event_id
where p.event_id = %(event_id)s and p.epoch = %(epoch)s
