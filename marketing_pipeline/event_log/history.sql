-- days --
-- Days of a span that have plans of these types, with how many, and how many effects they promise.
select p.day, count(*) as plans, sum(p.count)::bigint as effects
from plans p join marketing_events m on m.id = p.event_id
where p.day between %(first)s and %(last)s and m.type = any(%(types)s)
group by p.day order by p.day

-- slices --
-- Where slices of a day's events begin: the number of each so many-th.
select seq from (
    select m.seq, row_number() over (order by m.seq) - 1 as place
    from marketing_events m where m.day = %(day)s and m.type = any(%(types)s)) numbered
where place %% %(size)s = 0 order by seq

-- campaigns --
-- The plans of a day's campaigns to more than one person: which, and how many effects each promises.
select p.event_id, p.epoch, p.count
from marketing_events m join plans p on p.event_id = m.id
where m.day = %(day)s and m.type = 'CAMPAIGN_TRIGGER'
  and jsonb_typeof(m.payload -> 'recipient') is distinct from 'string'
order by p.count desc, m.seq, p.epoch

-- plans of day --
-- Plans of a day with their events, in the log's order; a slice of it, where a span of numbers is given.
select p.event_id, p.epoch, p.cut_seq, p.cut_at, p.config_digest, p.plan_version, p.count, p.digest,
       p.inserted, p.starts_at, p.excluded, m.id, m.seq, m.type, m.payload, m.source, m.origin, m.scheduled_at, m.recipient_id
from marketing_events m join plans p on p.event_id = m.id
where m.day = %(day)s and m.type = any(%(types)s) and m.seq >= %(since)s and m.seq < %(before)s
order by m.seq, p.epoch

-- cancelled --
-- Campaigns of a day that somebody cancelled.
select h.event_id from holds h join marketing_events m on m.id = h.event_id
where m.day = %(day)s and h.state = 'cancelled'

-- effects of plans --
-- What the ledger holds of some plans, with the digest of the last bytes that were sent for each.
select e.event_id, e.epoch, e.id, e.kind, e.provider, e.step, e.recipient_id, e.template, e.variables, e.state,
       p.config_digest, r.address, r.erased_at is not null as erased, sent.request_sha256 as sent_sha256
from unnest(%(event_ids)s::uuid[], %(epochs)s::int[]) as wanted (event_id, epoch)
join plans p using (event_id, epoch)
join effects e on e.event_id = p.event_id and e.epoch = p.epoch
left join recipients r on r.id = e.recipient_id
left join lateral (
    select a.request_sha256 from attempts a
    where a.effect_id = e.id and a.purpose = 'send' order by a.number desc limit 1) sent on true

-- effects of campaign --
-- The same of one plan: those whose ids lie in a span.
select e.event_id, e.epoch, e.id, e.kind, e.provider, e.step, e.recipient_id, e.template, e.variables, e.state,
       p.config_digest, r.address, r.erased_at is not null as erased, sent.request_sha256 as sent_sha256
from plans p
join effects e on e.event_id = p.event_id and e.epoch = p.epoch
left join recipients r on r.id = e.recipient_id
left join lateral (
    select a.request_sha256 from attempts a
    where a.effect_id = e.id and a.purpose = 'send' order by a.number desc limit 1) sent on true
where p.event_id = %(event_id)s and p.epoch = %(epoch)s and e.id between %(first)s and %(last)s

-- entries of campaign --
-- What the ledger holds of one plan, in its order: step by step, person by person; what no step planned comes last.
select e.id::text, e.step || ' by ' || e.provider from effects e
where e.event_id = %(event_id)s and e.epoch = %(epoch)s
order by array_position(%(steps)s::text[], e.step), e.recipient_id, e.id
