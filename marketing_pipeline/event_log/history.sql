-- plans of day --
-- Every plan of a day with its event, in the log's order.
select p.event_id, p.epoch, p.cut_seq, p.cut_at, p.config_digest, p.plan_version, p.count, p.digest,
       p.inserted, m.id, m.seq, m.type, m.payload, m.source, m.origin, m.scheduled_at, m.recipient_id
from plans p join marketing_events m on m.id = p.event_id
where p.day = %(day)s
order by m.seq, p.epoch

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
order by e.event_id, e.epoch, e.id

-- effects of campaign --
-- The same of one plan, in its order: step by step, person by person; what no step planned comes last.
select e.event_id, e.epoch, e.id, e.kind, e.provider, e.step, e.recipient_id, e.template, e.variables, e.state,
       p.config_digest, r.address, r.erased_at is not null as erased, sent.request_sha256 as sent_sha256
from plans p
join effects e on e.event_id = p.event_id and e.epoch = p.epoch
left join recipients r on r.id = e.recipient_id
left join lateral (
    select a.request_sha256 from attempts a
    where a.effect_id = e.id and a.purpose = 'send' order by a.number desc limit 1) sent on true
where p.event_id = %(event_id)s and p.epoch = %(epoch)s
order by array_position(%(steps)s::text[], e.step), e.recipient_id, e.id
