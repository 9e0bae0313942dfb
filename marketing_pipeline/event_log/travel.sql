-- cut at --
-- The highest number among the facts that had come in by an instant, between the cuts taken around it.
with cuts as (
    select cut_seq, cut_at from plans where campaign is not null
    union all
    select cut_seq, cut_at from proposals where kind = 'campaign'
)
select greatest(
           (select coalesce(max(seq), 0) from marketing_events where created_at <= %(at)s),
           (select coalesce(max(seq), 0) from suppressions where created_at <= %(at)s),
           (select coalesce(max(seq), 0) from feedback where created_at <= %(at)s),
           (select coalesce(max(sent_seq), 0) from effects where state = 'SENT' and settled_at <= %(at)s)) as known,
       (select coalesce(max(cut_seq), 0) from cuts where cut_at <= %(at)s) as earlier,
       (select min(cut_seq) from cuts where cut_at >= %(at)s) as later

-- config at --
-- The version of the operator's file that was in use.
select digest from config_uses where since <= %(at)s order by since desc limit 1

-- plan at --
-- The plan whose cut was taken at that instant, in its first epoch first.
select p.event_id, p.epoch, p.cut_seq, p.cut_at, p.config_digest, p.plan_version, p.count, p.digest,
       p.inserted, p.starts_at, p.excluded, m.id, m.seq, m.type, m.payload, m.source, m.origin, m.scheduled_at,
       m.recipient_id
from plans p join marketing_events m on m.id = p.event_id
where p.campaign = %(campaign)s and p.cut_at = %(at)s order by p.epoch, m.seq limit 1

-- last plan --
-- The campaign's plan that was made last, of another event, for a whole audience.
select p.event_id, p.epoch, p.cut_seq, p.cut_at, p.config_digest, p.plan_version, p.count, p.digest,
       p.inserted, p.starts_at, p.excluded, m.id, m.seq, m.type, m.payload, m.source, m.origin, m.scheduled_at,
       m.recipient_id
from plans p join marketing_events m on m.id = p.event_id
where p.campaign = %(campaign)s and p.event_id <> %(but_of)s and p.created_at <= %(before)s
  and not m.payload ? 'recipient'
order by p.created_at desc limit 1

-- waiting --
-- The trigger that waits for its plan, the one due first, whether or not it is held.
select m.id, m.seq, m.type, m.payload, m.source, m.origin, m.scheduled_at, m.recipient_id
from marketing_events m
where m.status = 'PENDING' and m.type = 'CAMPAIGN_TRIGGER' and m.origin = 'live'
  and m.payload ->> 'campaign' = %(campaign)s and not m.payload ? 'recipient'
  and not exists (select from plans p where p.event_id = m.id)
order by m.scheduled_at, m.seq limit 1

-- event --
-- An event by its id.
select m.id, m.seq, m.type, m.payload, m.source, m.origin, m.scheduled_at, m.recipient_id
from marketing_events m where m.id = %(event_id)s
