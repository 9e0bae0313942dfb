-- events --
-- How far the events have come.
select status, count(*) as n from marketing_events group by status order by status

-- effects --
-- How far the effects have come.
select state, count(*) as n from effects group by state order by state

-- pauses --
-- Providers that are not called for now, and why.
select provider, until, reason from pauses where until > clock_timestamp() order by provider

-- lag --
-- How long the oldest event that is due has waited for its plan; null where none waits.
select clock_timestamp() - min(scheduled_at) as lag from marketing_events
where status = 'PENDING' and scheduled_at <= clock_timestamp()

-- awake --
-- Delivery runs at work now.
select count(*) as n from heartbeats where kind = 'delivery' and expires_at > clock_timestamp()

-- unfinished elsewhere --
-- Unfinished events of other sources; what only waits for a person is called by nobody.
select count(*) as n from marketing_events m
where m.source <> %(source)s and m.status in ('PENDING', 'PROCESSING')
  and (m.status = 'PENDING'
       or exists (select from plans p where p.event_id = m.id and p.inserted < p.count)
       or exists (select from effects e
                  where e.event_id = m.id and e.state in ('PLANNED', 'SENDING', 'DOUBT')))

-- progress --
-- How far some events have come; an event that waits for a person only is not under way.
select count(*) filter (where m.status <> 'PENDING') as planned,
       count(*) filter (where m.status in ('COMPLETED', 'FAILED')) as finished,
       count(*) filter (where m.status = 'PENDING' or m.status = 'PROCESSING' and (
           not exists (select from effects e where e.event_id = m.id and e.state = 'UNKNOWN')
           or exists (select from plans p where p.event_id = m.id and p.inserted < p.count)
           or exists (select from effects e
                      where e.event_id = m.id and e.state in ('PLANNED', 'SENDING', 'DOUBT')))
       ) as under_way
from marketing_events m where m.id = any(%(events)s)

-- settled --
-- The effects of some events by state.
select e.state, count(*) as n from effects e where e.event_id = any(%(events)s)
group by e.state order by e.state

-- promised --
-- Effects that plans promise, effects that the ledger holds, and events without a plan.
select (select coalesce(sum(count), 0)::bigint from plans where event_id = any(%(events)s)) as planned,
       (select count(*) from effects where event_id = any(%(events)s)) as held,
       (select count(*) from unnest(%(events)s::uuid[]) as asked (id)
        where not exists (select from plans p where p.event_id = asked.id)) as unplanned

-- effort --
-- Calls made for some events, and those of them that were not an effect's first.
select coalesce(sum(calls), 0)::bigint as calls,
       coalesce(sum(greatest(calls - 1, 0)), 0)::bigint as retries
from effects where event_id = any(%(events)s)

-- latencies --
-- From accepted to delivered; null where nothing was delivered.
select percentile_cont(0.5) within group (order by e.settled_at - m.created_at) as p50,
       percentile_cont(0.95) within group (order by e.settled_at - m.created_at) as p95,
       percentile_cont(0.99) within group (order by e.settled_at - m.created_at) as p99
from effects e join marketing_events m on m.id = e.event_id
where e.state = 'SENT' and m.id = any(%(events)s)

-- ledger --
-- Every effect of a source, and whatever else is asked for by id.
select e.id, e.provider, e.state from effects e join marketing_events m on m.id = e.event_id
where m.source = %(source)s or e.id = any(%(also)s)
order by e.id
