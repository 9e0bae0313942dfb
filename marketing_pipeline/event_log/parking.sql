-- unfinished plan --
-- A plan of the event of which not all effects are written.
select p.event_id, p.epoch, p.cut_seq, p.cut_at, p.config_digest, p.plan_version, p.count, p.digest,
       p.inserted, p.starts_at, p.excluded, m.id, m.seq, m.type, m.payload, m.source, m.origin, m.scheduled_at, m.recipient_id
from plans p join marketing_events m on m.id = p.event_id
where p.event_id = %(event_id)s and p.inserted < p.count
order by p.epoch limit 1

-- waiting --
-- A page of what waits to be sent, in the order in which everybody locks.
select id from effects
where event_id = %(event_id)s and state = 'PLANNED' and (%(parked)s or held_due_at is null)
order by id limit %(limit)s

-- keep paused --
-- Is it paused, and its end not begun? Whoever would end the pause waits for this transaction.
select from holds where event_id = %(event_id)s and state = 'paused' and resumed_at is null for share

-- park --
-- Takes effects out of the way of those that may go. What was touched during the pause (throttled,
-- redriven) has waited only since then: it is put back by so much less. `updated_at` stays, to tell.
with chosen as (
    select id from effects
    where id = any(%(ids)s) and state = 'PLANNED' and held_due_at is null
    order by id for update
)
update effects e set due_at = '9000-01-01T00:00:00Z',
       held_due_at = e.due_at - case when e.updated_at > h.since and e.updated_at > e.created_at
                                     then e.updated_at - h.since else interval '0' end
from holds h where e.id = any(array(select id from chosen)) and h.event_id = e.event_id

-- parked --
-- All that waited is out of the way, unless more is still to be written.
update holds h set parked = true
where h.event_id = %(event_id)s and h.state = 'paused' and h.resumed_at is null
  and not exists (select from plans p where p.event_id = h.event_id and p.inserted < p.count)

-- keep resuming --
-- Is its pause ending? Whoever would cancel it waits for this transaction.
select from holds where event_id = %(event_id)s and state = 'paused' and resumed_at is not null for share

-- unpark --
-- Puts effects back in their order, later by the length of the pause; so is the end of their time.
with chosen as (
    select id from effects
    where event_id = %(event_id)s and held_due_at is not null and id > %(after)s
    order by id limit %(limit)s for update
)
update effects e set held_due_at = null, due_at = e.held_due_at + (h.resumed_at - h.since),
       expires_at = e.expires_at + (h.resumed_at - h.since)
from holds h where e.id = any(array(select id from chosen)) and h.event_id = e.event_id
returning e.id

-- close --
-- PLANNED -> SUPPRESSED: what was cancelled before it was tried, or certainly was not done.
with chosen as (
    select id from effects where id = any(%(ids)s) and state = 'PLANNED' order by id for update
)
update effects e set state = 'SUPPRESSED', last_error = 'cancelled: ' || h.reason, due_at = coalesce(e.held_due_at, e.due_at),
       held_due_at = null, settled_at = clock_timestamp(), updated_at = clock_timestamp()
from holds h where e.id = any(array(select id from chosen)) and h.event_id = e.event_id and h.state = 'cancelled'

-- to tend --
-- A held campaign of which something is still in the way, or that was cancelled and is not closed.
-- (By a scalar subquery: where nothing is held, a join would be answered by reading all that is under way.)
select h.event_id, h.state
from (select *, (select m.status from marketing_events m where m.id = event_id) as status from holds) as h
where h.status in ('PENDING', 'PROCESSING')
  and case h.state
      when 'paused' then h.resumed_at is null and not h.parked and exists (
          select from effects e where e.event_id = h.event_id and e.state = 'PLANNED' and e.held_due_at is null)
      when 'cancelled' then exists (select from effects e where e.event_id = h.event_id and e.state = 'PLANNED')
          or (h.status = 'PENDING' and not exists (select from plans p where p.event_id = h.event_id))
      else false end
limit 1
