-- installation --
-- Which log this is and how many claims it remembers.
select i.identity, case when s.is_called then s.last_value else 0 end as claims, i.adopted_at
from installation i, claim_seq s

-- adopt --
-- Makes this log another one: what was due until now may have been sent in its earlier life.
update installation set identity = gen_random_uuid(), adopted_at = clock_timestamp(), adopted_why = %(why)s
returning identity, adopted_at

-- doubt what was due --
-- An effect that was due may have been tried from the moment it was due.
update effects set state = 'DOUBT', due_at = %(at)s, doubt_since = coalesce(first_attempt_at, due_at),
       first_attempt_at = coalesce(first_attempt_at, due_at),
       last_attempt_at = coalesce(last_attempt_at, due_at),
       last_error = 'adopted: it may have been sent since the backup', updated_at = %(at)s
where state = 'PLANNED' and due_at <= %(at)s

-- workers --
-- Delivery runs that live.
select count(*) from heartbeats where kind = 'delivery' and expires_at > clock_timestamp()
