-- plans of day --
-- Every plan of a day with its event, in the log's order.
select p.event_id, p.epoch, p.cut_seq, p.cut_at, p.config_digest, p.plan_version, p.count, p.digest,
       p.inserted, m.id, m.seq, m.type, m.payload, m.source, m.origin, m.scheduled_at, m.recipient_id
from plans p join marketing_events m on m.id = p.event_id
where p.day = %(day)s
order by m.seq, p.epoch

-- effects of plan --
-- What the ledger holds of a plan, with the digest of the last bytes that were sent for it.
select e.id, e.kind, e.provider, e.recipient_id, e.template, e.variables, e.state, p.config_digest,
       r.address, r.erased_at is not null as erased,
       (select a.request_sha256 from attempts a
        where a.effect_id = e.id and a.purpose = 'send' order by a.number desc limit 1) as sent_sha256
from effects e
join plans p on p.event_id = e.event_id and p.epoch = e.epoch
left join recipients r on r.id = e.recipient_id
where e.event_id = %(event_id)s and e.epoch = %(epoch)s
order by e.id
