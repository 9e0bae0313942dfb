-- recorded --
-- Which of these triggers are in the log, and whether a person recorded them: that one is named in it.
select id, payload ? 'who' from marketing_events where id = any(%(ids)s)

-- last look --
-- The last occurrence of a campaign that a look at the clock recorded: by its plan, or waiting for one.
-- That finds the occurrences of an earlier schedule, too, of which no id can be derived any more.
select max(m.scheduled_at) from marketing_events m
where m.source = %(source)s and m.scheduled_at <= %(now)s and not m.payload ? 'who'
  and m.id = any(array(select event_id from plans where campaign = %(campaign)s
                       order by created_at desc limit 50)
              || array(select id from marketing_events
                       where status = 'PENDING' and type = 'CAMPAIGN_TRIGGER' and scheduled_at <= %(now)s
                         and payload ->> 'campaign' = %(campaign)s))

-- last triggers --
-- The newest trigger of each of these campaigns that has come due, and what it waits for: found by its plan,
-- waiting for one, or among `ids`, those of what the schedules say.
with waiting as materialized (
    select id, payload ->> 'campaign' as campaign from marketing_events
    where status = 'PENDING' and type = 'CAMPAIGN_TRIGGER' and scheduled_at <= %(now)s
      and not payload ? 'recipient'
)
select n.campaign, last.id as event_id, last.scheduled_at, last.status, last.last_error,
       h.state as held, h.reason as held_because
from unnest(%(campaigns)s::text[]) as n (campaign)
cross join lateral (
    select m.* from marketing_events m
    where m.scheduled_at <= %(now)s and m.payload ->> 'campaign' = n.campaign
      and m.id = any(array(select event_id from plans where campaign = n.campaign
                           order by created_at desc limit 50)
                  || array(select id from waiting where waiting.campaign = n.campaign)
                  || %(ids)s::uuid[])
    order by m.scheduled_at desc, m.seq desc limit 1
) last
left join holds h on h.event_id = last.id
order by n.campaign

-- effects of --
-- How many effects these events have in their last epoch, by state.
select e.event_id, e.state, count(*)::int
from (select event_id, max(epoch) as epoch from plans where event_id = any(%(ids)s) group by event_id) last
join effects e using (event_id, epoch)
group by e.event_id, e.state

-- steps to come --
-- Steps of sequences whose time has not come yet.
select payload ->> 'sequence' as sequence, payload ->> 'step' as step, count(*)::int as waiting,
       min(scheduled_at) as next_at
from marketing_events
where status = 'PENDING' and type = 'CAMPAIGN_TRIGGER' and scheduled_at > %(now)s and payload ? 'sequence'
group by 1, 2 order by 1, 4, 2
