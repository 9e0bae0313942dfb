-- installation --
-- Which log this is and how many claims it remembers.
select identity, coalesce((select max(claim_number) from attempts where claim_number is not null), 0) as claims
from installation

-- adopt --
-- Makes this log another one: what was due until now may have been sent in its earlier life, and
-- cannot be looked up before the slowest provider shows it.
update installation set identity = gen_random_uuid(), adopted_at = clock_timestamp(), adopted_why = %(why)s,
       look_at = clock_timestamp() + %(settle_delay)s
returning identity, adopted_at, look_at

-- doubt what was due --
-- An effect that was due may have been tried from the moment it was due; so may one that is held here.
update effects set state = 'DOUBT', due_at = %(look_at)s, held_due_at = null,
       doubt_since = coalesce(first_attempt_at, held_due_at, due_at),
       first_attempt_at = coalesce(first_attempt_at, held_due_at, due_at),
       last_attempt_at = coalesce(last_attempt_at, held_due_at, due_at),
       last_error = 'adopted: it may have been sent since the backup', updated_at = %(at)s
where state = 'PLANNED' and coalesce(held_due_at, due_at) <= %(at)s

-- doubt longer --
-- What was in doubt already may have been tried again, and what was under way too.
update effects set due_at = case state when 'DOUBT' then greatest(due_at, %(look_at)s) else due_at end,
       lease_until = case state when 'SENDING' then greatest(lease_until, %(at)s) end,
       updated_at = %(at)s
where state in ('DOUBT', 'SENDING')

-- workers --
-- Delivery runs that live.
select count(*) from heartbeats where kind = 'delivery' and expires_at > clock_timestamp()
