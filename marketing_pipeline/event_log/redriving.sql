-- failed page --
-- The next failed effects, oldest first; what fails meanwhile is for the next time.
select id, settled_at as at from effects
where state = 'FAILED' and (settled_at, id) > (%(after)s, %(after_id)s) and settled_at <= %(now)s
order by settled_at, id limit %(limit)s

-- lock once --
-- Whoever would take a key of `once` from a failed effect waits, and then sees it PLANNED again.
select from once_taken where effect_id = any(%(ids)s) order by key for update

-- lock effects --
-- Locks in the order in which everybody does; a late Accepted that came first is seen below. Newer
-- open work for the same contacts is locked too, so that none of it is claimed meanwhile.
select from effects
where id = any(%(ids)s) or id = any(array(
    select o.id from unnest(%(ids)s::uuid[]) as w (id)
    join effects f on f.id = w.id
    join effects o on o.ordering_key = f.ordering_key and o.state in ('PLANNED', 'SENDING', 'DOUBT')))
order by id for update

-- failed --
-- What deciding takes: how the last attempt ended, and what stands against another one.
select e.id, e.event_id, e.provider, last.outcome as last_outcome, e.last_error, e.redrives,
       e.expires_at, coalesce(r.erased_at is not null, false) as erased,
       (select min(s.reason) from suppressions s
        where s.recipient_id = e.recipient_id and s.scope in ('all', e.kind)) as suppressed,
       e.once_key is not null and not exists (
           select from once_taken t where t.key = e.once_key and t.effect_id = e.id) as once_lost,
       exists (select from effects o
               where o.recipient_id = e.recipient_id and o.ordering_key = e.ordering_key
                 and (o.event_seq, o.id) > (e.event_seq, e.id)
                 and o.state in ('SENDING', 'DOUBT', 'SENT', 'UNKNOWN')) as superseded,
       coalesce(e.settled_at <= i.adopted_at, false) as forgotten,
       (select h.reason from holds h where h.event_id = e.event_id and h.state = 'cancelled') as cancelled,
       exists (select from plans p where p.event_id = e.event_id and p.epoch > e.epoch) as resent
from unnest(%(ids)s::uuid[]) as w (id)
join effects e on e.id = w.id and e.state = 'FAILED'
cross join installation i
left join recipients r on r.id = e.recipient_id
left join lateral (
    select a.outcome from attempts a where a.effect_id = e.id order by a.number desc limit 1) last on true
order by e.settled_at, e.id

-- redrive --
-- FAILED -> PLANNED, due now. Its id, its calls and its first attempt stay: the provider knows it by
-- the same key, and the key's life counts from then.
update effects e set state = 'PLANNED', due_at = %(now)s, attempts = 0, redrives = e.redrives + 1,
       claim_id = null, settled_at = null, updated_at = %(now)s
from unnest(%(ids)s::uuid[]) as w (id) where e.id = w.id and e.state = 'FAILED'

-- lock events --
-- Waits for whoever is deriving their status, who then finds work open.
select from marketing_events where id = any(%(ids)s) order by id for update

-- reopen --
-- An event with open effects is under way, whatever it was.
update marketing_events set status = 'PROCESSING', updated_at = %(now)s
where id = any(%(ids)s) and status in ('COMPLETED', 'FAILED')

-- unplanned page --
-- The next events that failed before they had a plan, oldest first; a cancelled one stays so.
select m.id, m.updated_at as at, m.seq, m.type, m.payload, m.source, m.origin, m.scheduled_at,
       m.recipient_id, greatest(m.scheduled_at, m.created_at) as due_since,
       coalesce(m.last_error, 'no reason is on record') as last_error
from marketing_events m
where m.status = 'FAILED' and (m.updated_at, m.id) > (%(after)s, %(after_id)s)
  and m.updated_at <= %(now)s
  and not exists (select from plans p where p.event_id = m.id)
  and not exists (select from holds h where h.event_id = m.id and h.state = 'cancelled')
order by m.updated_at, m.id limit %(limit)s

-- plan again --
-- FAILED -> PENDING, for an event that still has no plan.
with waiting as (
    select m.id from marketing_events m
    where m.id = any(%(ids)s) and m.status = 'FAILED'
      and not exists (select from plans p where p.event_id = m.id)
    order by m.id for update
)
update marketing_events m set status = 'PENDING', last_error = null, updated_at = %(now)s
from waiting where m.id = waiting.id
returning m.id
