-- events --
-- Events by status.
select status, count(*) from marketing_events group by 1 order by 1

-- effects --
-- Effects by state.
select state, count(*) from effects group by 1 order by 1

-- strays --
-- Open effects of other providers than these. The index of due work leads from name to name: what is
-- open for these is not read, however much it is.
with recursive names (provider) as (
    select min(provider) from effects where state in ('PLANNED', 'DOUBT')
    union all
    select (select min(e.provider) from effects e where e.state in ('PLANNED', 'DOUBT') and e.provider > n.provider)
    from names n where n.provider is not null
), strays (provider, open) as (
    select n.provider, (select count(*) from effects e
                        where e.provider = n.provider and e.state in ('PLANNED', 'DOUBT'))
    from names n where n.provider <> all(%(providers)s::text[])
    union all
    select provider, count(*) from effects
    where state = 'SENDING' and provider <> all(%(providers)s::text[]) group by 1
)
select provider, sum(open)::bigint from strays where provider is not null group by 1 order by 1

-- strangers --
-- Unfinished events of other sources than this one.
select count(*) from marketing_events where status in ('PENDING', 'PROCESSING') and source <> %(source)s

-- unfinished --
-- Events of a source that are under way, those apart that only wait for a person.
select count(*) from marketing_events m
where m.source = %(source)s and m.status in ('PENDING', 'PROCESSING')
  and not (m.status = 'PROCESSING'
           and exists (select from effects e where e.event_id = m.id and e.state = 'UNKNOWN')
           and not exists (select from effects e where e.event_id = m.id
                           and e.state in ('PLANNED', 'SENDING', 'DOUBT')))

-- ledger --
-- The effects of a source with their state.
select e.id::text, e.state from effects e join marketing_events m on m.id = e.event_id
where m.source = %(source)s

-- since --
-- What became of a source's events since an instant: states, calls, retries.
select e.state, count(*), sum(e.calls), sum(greatest(e.attempts - 1, 0))
from effects e join marketing_events m on m.id = e.event_id
where m.source = %(source)s and m.created_at >= %(since)s group by 1 order by 1

-- latencies --
-- Milliseconds from accepted to delivered, at the usual percentiles.
select percentile_cont(array[0.5, 0.95, 0.99]) within group (
    order by extract(epoch from e.settled_at - m.created_at) * 1000)
from effects e join marketing_events m on m.id = e.event_id
where m.source = %(source)s and m.created_at >= %(since)s and e.state = 'SENT'
