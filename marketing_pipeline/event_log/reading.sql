-- conservation --
-- Does the ledger hold what was planned, day by day?
select day, planned, sent, failed, suppressed, unknown, open, unplanned, missing
from conservation(%(from_day)s, %(to_day)s)

-- events of --
-- How many events a day has, by status.
select status, count(*)::int from marketing_events where day = %(day)s group by status order by status

-- effects of --
-- How many effects a day has, by provider and state, and what they took.
select provider, state, count(*)::int, sum(greatest(attempts - 1, 0))::int, sum(calls)::int
from effects where day = %(day)s group by provider, state order by provider, state

-- unfinished days --
-- Days of which some event is not at its end.
select distinct day from marketing_events where status in ('PENDING', 'PROCESSING') order by day

-- leads --
-- The leads of a day, a row for each effect; one without effects has a row of its own.
select m.id as event_id, m.recipient_id, m.source, m.origin, m.scheduled_at,
       e.step, e.provider, e.state
from marketing_events m left join effects e on e.event_id = m.id
where m.day = %(day)s and m.type = 'LEAD_CAPTURE'
order by m.scheduled_at, m.id, e.id

-- campaigns --
-- The campaigns of a day, a row for each provider and state; counted here, for a campaign is large.
select m.id as event_id, m.payload ->> 'campaign' as campaign, m.scheduled_at, p.epoch,
       coalesce(p.count, 0) as planned, e.provider, e.state,
       coalesce(e.effects, 0) as effects, coalesce(e.retries, 0) as retries
from marketing_events m
left join plans p on p.event_id = m.id
left join lateral (
    select x.provider, x.state, count(*)::int as effects,
           sum(greatest(x.attempts - 1, 0))::int as retries
    from effects x where x.event_id = m.id and x.epoch = p.epoch group by x.provider, x.state
) e on true
where m.day = %(day)s and m.type = 'CAMPAIGN_TRIGGER'
order by m.scheduled_at, m.id, p.epoch, e.provider, e.state

-- keep view --
-- Keeps the present content of a view's day.
insert into views (name, day, digest, rows, content, materialized_at)
values (%(name)s, %(day)s, %(digest)s, %(rows)s, %(content)s, %(now)s)
on conflict (name, day) do update set digest = excluded.digest, rows = excluded.rows,
    content = excluded.content, materialized_at = excluded.materialized_at

-- day versions --
-- A digest of each day's facts and of where its effects stand with what was told of them, the newest fact,
-- and what is open.
select d.day, facts.digest, ledger.digest, facts.newest, facts.unfinished
from unnest(%(days)s::date[]) as d (day)
cross join lateral (
    select encode(sha256(convert_to(coalesce(string_agg(id::text || fingerprint || status, '' order by id), ''),
                                    'UTF8')), 'hex') as digest,
           coalesce(max(seq), 0) as newest,
           count(*) filter (where status in ('PENDING', 'PROCESSING')) > 0 as unfinished
    from marketing_events where day = d.day
) facts
cross join lateral (
    select encode(sha256(convert_to(coalesce(string_agg(e.id::text || e.state || e.attempts || coalesce((
               select string_agg(f.id::text, '' order by f.id) from feedback f where f.effect_id = e.id), ''),
               '' order by e.id), ''), 'UTF8')), 'hex') as digest
    from effects e where e.day = d.day
) ledger
order by d.day

-- suspects --
-- Days that may have changed: never observed, observed while open, open now, or with newer facts.
with recursive days (day, newest) as (
    (select day, seq from marketing_events order by day desc, seq desc limit 1)
    union all
    select older.day, older.seq from days cross join lateral (
        select m.day, m.seq from marketing_events m where m.day < days.day
        order by m.day desc, m.seq desc limit 1) older
), unfinished as (
    select distinct day from marketing_events where status in ('PENDING', 'PROCESSING')
)
select d.day, o.data_version from days d left join observed_days o using (day)
where d.day <= %(today)s
  and (o.day is null
       or split_part(o.data_version, '.', 3) = 'open'
       or split_part(o.data_version, '.', 2) <> d.newest::text
       or d.day in (select day from unfinished))
order by d.day

-- take moved --
-- Days on which something ended since they were observed are suspect from now on. It commits before
-- they are read: nobody who completes an event waits for a reader, and what ends later moves them again.
update observed_days set moved = false, data_version = 'moved' where moved

-- mark observed --
-- Remembers what was reported of these days.
insert into observed_days (day, data_version, observed_at)
select day, data_version, %(now)s from unnest(%(days)s::date[], %(versions)s::text[]) as v (day, data_version)
on conflict (day) do update set data_version = excluded.data_version, observed_at = excluded.observed_at

-- due work --
-- What a delivery run would find to do now, each counted up to the limit; what is paused or held can wait.
-- Each priority by itself, so that neither what is due later nor what is parked is walked over.
with served as (
    select p.provider, n.priority
    from unnest(%(providers)s::text[]) as p (provider), generate_series(0, 2) as n (priority)
    where not exists (select from pauses where provider = p.provider and until > clock_timestamp())
)
select
    (select count(*)::int from (select from marketing_events where status = 'PENDING'
        and scheduled_at <= statement_timestamp() and id <> all (array(select event_id from holds))
        order by scheduled_at limit %(limit)s) x) as events,
    (select count(*)::int from (
        select from plans where inserted < count
        union all
        select from holds h join marketing_events m on m.id = h.event_id
        where h.state = 'cancelled' and m.status in ('PENDING', 'PROCESSING')
          and exists (select from effects e where e.event_id = h.event_id and e.state = 'PLANNED')
        limit %(limit)s) x) as plans,
    (select count(*)::int from (select from served s cross join lateral (
        select from effects e
        where e.provider = s.provider and e.priority = s.priority and e.state = 'PLANNED'
          and e.due_at <= statement_timestamp()
          and not exists (select from holds h where h.event_id = e.event_id)
        order by e.due_at limit %(limit)s) x limit %(limit)s) y) as effects,
    (select count(*)::int from (select from served s cross join lateral (
        select from effects e
        where e.provider = s.provider and e.priority = s.priority and e.state = 'DOUBT'
          and e.due_at <= statement_timestamp()
        order by e.due_at limit %(limit)s) x limit %(limit)s) y) as doubts,
    (select count(*)::int from (select from effects where state = 'SENDING' and provider = any(%(providers)s)
        and lease_until < statement_timestamp() limit %(limit)s) x) as expired,
    least((select min(scheduled_at) from marketing_events where status = 'PENDING'
           and id <> all (array(select event_id from holds))),
          (select min(x.due_at) from served s cross join lateral (
              select e.due_at from effects e
              where e.provider = s.provider and e.priority = s.priority and e.state in ('PLANNED', 'DOUBT')
                and (e.state = 'DOUBT' or not exists (select from holds h where h.event_id = e.event_id))
              order by e.due_at limit 1) x),
          (select min(lease_until) from effects where state = 'SENDING'
           and provider = any(%(providers)s))) as earliest
