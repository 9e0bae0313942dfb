-- under way --
-- Events of a campaign that are under way, due or held, longest first.
select m.id from marketing_events m
where m.type = 'CAMPAIGN_TRIGGER' and m.origin = 'live' and m.payload ->> 'campaign' = %(campaign)s
  and m.status in ('PENDING', 'PROCESSING')
  and (m.status = 'PROCESSING' or m.scheduled_at <= clock_timestamp()
       or exists (select from holds h where h.event_id = m.id))
order by m.scheduled_at, m.seq

-- later --
-- How many of its events are not due yet and are not held.
select count(*)::int from marketing_events m
where m.type = 'CAMPAIGN_TRIGGER' and m.origin = 'live' and m.payload ->> 'campaign' = %(campaign)s
  and m.status = 'PENDING' and m.scheduled_at > clock_timestamp()
  and not exists (select from holds h where h.event_id = m.id)

-- lock --
-- Whoever plans the event, completes it or holds it comes before or waits.
select from marketing_events where id = %(event_id)s for update

-- standing --
-- Where an event stands; read once it is locked, by whoever changes that.
select m.type, m.status, m.payload ->> 'campaign' as campaign, h.state, h.reason, h.since, h.resumed_at,
       exists (select from plans p where p.event_id = m.id) as planned
from marketing_events m left join holds h on h.event_id = m.id where m.id = %(event_id)s

-- take holds --
-- The other side of `share holds`: claims that have begun end first, and those that follow see the hold.
select pg_advisory_xact_lock(hashtextextended('holds', 0))

-- pause --
-- Nothing of it is planned or claimed from now on; what waits for approval goes on waiting for it later.
insert into holds (event_id, state, reason, since) values (%(event_id)s, 'paused', %(why)s, clock_timestamp())
on conflict (event_id) do update set state = 'paused', reason = excluded.reason, since = excluded.since

-- cancel --
-- Nothing of it is planned or claimed any more.
insert into holds (event_id, state, reason, since) values (%(event_id)s, 'cancelled', %(why)s, clock_timestamp())
on conflict (event_id) do update
set state = 'cancelled', reason = excluded.reason, since = excluded.since, resumed_at = null

-- begin resuming --
-- Fixes how long the pause was, once.
update holds set resumed_at = clock_timestamp()
where event_id = %(event_id)s and state = 'paused' and resumed_at is null

-- keep --
-- Keeps what a person did, and why.
insert into interventions (event_id, number, action, why, who, created_at)
select %(event_id)s, (select count(*) + 1 from interventions where event_id = %(event_id)s), %(action)s, %(why)s,
       %(who)s, clock_timestamp()

-- give up --
-- An event that is cancelled before it has a plan never gets one.
update marketing_events m set status = 'FAILED', last_error = 'cancelled: ' || h.reason, updated_at = clock_timestamp()
from holds h
where m.id = %(event_id)s and h.event_id = m.id and h.state = 'cancelled' and m.status in ('PENDING', 'FAILED')
  and not exists (select from plans p where p.event_id = m.id)

-- release --
-- Ends the pause once nothing is parked, and wakes a delivery run that lives when this commits.
with released as (
    delete from holds h
    where h.event_id = %(event_id)s and h.state = 'paused' and h.resumed_at > clock_timestamp() - %(patience)s
      and not exists (select from effects e where e.event_id = h.event_id and e.held_due_at is not null)
    returning h.event_id
)
select pg_notify('marketing_events', '') from released

-- pause on --
-- Whoever was resuming it died long ago: the time since then is another pause.
update holds set since = resumed_at, resumed_at = null, parked = false
where event_id = %(event_id)s and state = 'paused' and resumed_at <= clock_timestamp() - %(patience)s

-- resumed --
-- When the pauses of these events ended last.
select event_id, max(created_at) from interventions where event_id = any(%(ids)s) and action = 'resume' group by 1

-- tally --
-- How far an event's effects are.
select m.status,
       coalesce((select sum(p.count) from plans p where p.event_id = m.id), 0)::int as planned,
       count(e.id) filter (where e.state = 'SENT')::int as sent,
       count(e.id) filter (where e.state in ('PLANNED', 'SENDING', 'DOUBT'))::int as open,
       count(e.id) filter (where e.held_due_at is not null)::int as parked,
       count(e.id) filter (where e.state = 'SUPPRESSED')::int as suppressed,
       count(e.id) filter (where e.state = 'FAILED')::int as failed,
       count(e.id) filter (where e.state = 'UNKNOWN')::int as unknown
from marketing_events m left join effects e on e.event_id = m.id
where m.id = %(event_id)s group by m.id

-- holds --
-- Campaigns that are held and not at their end, longest first.
select h.event_id, m.payload ->> 'campaign' as campaign, h.state, h.reason, h.since, h.resumed_at
from holds h join marketing_events m on m.id = h.event_id
where m.status in ('PENDING', 'PROCESSING') order by h.since, h.event_id
