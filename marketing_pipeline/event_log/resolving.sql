-- undecided --
-- What waits for a person, longest first, with how its provider was set up when it was planned.
select e.id as effect_id, e.event_id, e.provider, c.body -> 'providers' -> e.provider as setup,
       e.kind, e.recipient_id, r.address, e.settled_at as since, e.last_error as why, e.attempts,
       e.first_attempt_at, e.last_attempt_at
from effects e
join plans p on p.event_id = e.event_id and p.epoch = e.epoch
join configs c on c.digest = p.config_digest
left join recipients r on r.id = e.recipient_id
where e.state = 'UNKNOWN' and (%(id)s::uuid is null or e.id = %(id)s)
order by e.settled_at, e.id limit %(limit)s

-- waiting --
-- How many effects wait for a person.
select count(*)::int from effects where state = 'UNKNOWN'

-- lock --
-- Locks the effect in the order in which everybody locks, with newer open work for the same contact,
-- so that none of it is claimed meanwhile.
select from effects
where id in (
    select %(id)s::uuid
    union
    select o.id from effects f join effects o on o.ordering_key = f.ordering_key
    where f.id = %(id)s and o.state in ('PLANNED', 'SENDING', 'DOUBT'))
order by id for update

-- standing --
-- Where the effect stands once it is locked, and what has been written for the same contact since.
select e.event_id, e.state, e.calls,
       (select h.reason from holds h where h.event_id = e.event_id and h.state = 'cancelled') as cancelled,
       (select o.id from effects o
        where o.recipient_id = e.recipient_id and o.ordering_key = e.ordering_key
          and (o.event_seq, o.id) > (e.event_seq, e.id)
          and o.state in ('SENDING', 'DOUBT', 'SENT', 'UNKNOWN')
        order by o.event_seq desc, o.id desc limit 1) as newer
from effects e where e.id = %(id)s

-- keep --
-- Keeps what a person decided, and who it was.
insert into resolutions (effect_id, number, action, why, who, calls, created_at)
select %(id)s, (select count(*) + 1 from resolutions where effect_id = %(id)s), %(action)s, %(why)s,
       %(who)s, %(calls)s, clock_timestamp()

-- sent --
-- UNKNOWN -> SENT. What was sent in an earlier life of a restored log has no call on record here.
update effects set state = 'SENT', provider_ref = %(reference)s, calls = greatest(calls, 1),
       doubt_since = null, claim_id = null, last_error = null, sent_seq = nextval('fact_seq'),
       settled_at = clock_timestamp(), updated_at = clock_timestamp()
where id = %(id)s and state = 'UNKNOWN'

-- resend --
-- UNKNOWN -> PLANNED, due now. Its attempts and its age count from here, for a person has decided
-- after them; its id and its calls stay, so that a late Accepted still settles it.
update effects set state = 'PLANNED', due_at = clock_timestamp(), attempts = 0, expires_at = null,
       first_attempt_at = null, last_attempt_at = null, doubt_since = null, claim_id = null,
       settled_at = null, updated_at = clock_timestamp()
where id = %(id)s and state = 'UNKNOWN'

-- reopen --
-- An event with an open effect is under way, whatever it was.
update marketing_events set status = 'PROCESSING', updated_at = clock_timestamp()
where id = %(event_id)s and status in ('COMPLETED', 'FAILED')

-- notify --
-- Wakes a delivery run that lives, when this transaction commits.
select pg_notify('marketing_events', '')

-- status --
-- Where its event stands now.
select status from marketing_events where id = %(event_id)s
