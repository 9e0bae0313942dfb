-- due --
-- How many effects of a provider could be claimed now, counted no further than is asked for; of a paused one
-- none can. Here and below `since` says for each priority from which `due_at` on; and times are compared with the
-- statement's: by `clock_timestamp()`, which changes from row to row, no index is searched.
select case when p.paused then 0 else (
    select count(*) from (
        select from unnest(%(since)s::timestamptz[]) with ordinality as p (since, number)
        cross join lateral (
            select from effects e
            where e.provider = %(provider)s and e.priority = p.number - 1 and e.state in ('PLANNED', 'DOUBT')
              and e.due_at between p.since and statement_timestamp()
              and (e.state = 'DOUBT' or not exists (select from holds h where h.event_id = e.event_id))
              and (e.ordering_key is null or not exists (
                  select from effects o
                  where o.ordering_key = e.ordering_key and o.state in ('PLANNED', 'SENDING', 'DOUBT')
                    and ((o.event_seq, o.id) < (e.event_seq, e.id) or (o.state = 'SENDING' and o.id <> e.id))))
            order by e.due_at limit %(limit)s) as one
        limit %(limit)s) as found) end, p.paused
from (select exists (
    select from pauses where provider = %(provider)s and until > clock_timestamp()) as paused) as p

-- next due --
-- When the next effect of a provider comes due; not before a pause ends.
select greatest(min(at), (select until from pauses where provider = %(provider)s and until > clock_timestamp()))
from unnest(%(since)s::timestamptz[]) with ordinality as p (since, number)
cross join lateral (
    select e.due_at as at from effects e
    where e.provider = %(provider)s and e.priority = p.number - 1 and e.state in ('PLANNED', 'DOUBT')
      and e.due_at >= p.since
      and (e.state = 'DOUBT' or not exists (select from holds h where h.event_id = e.event_id))
    order by e.due_at limit 1) as next

-- sweep --
-- Leases that ran out while SENDING: the call may have been made, so the effect is in doubt.
with expired as (
    select id, calls, lease_until from effects
    where state = 'SENDING' and lease_until < statement_timestamp()
      and lease_until > statement_timestamp() - %(within)s and provider = %(provider)s
    order by lease_until limit 100
    for update skip locked
), ended as (
    update attempts a set finished_at = clock_timestamp(), outcome = 'AMBIGUOUS',
           reason = 'the lease ran out: whoever called is gone'
    from expired x where a.effect_id = x.id and a.number = x.calls and a.finished_at is null
)
update effects e set state = 'DOUBT', due_at = x.lease_until + %(settle_delay)s, lease_until = null,
       doubt_since = coalesce(e.doubt_since, e.last_attempt_at), updated_at = clock_timestamp(),
       last_error = 'the lease ran out: whoever called is gone'
from expired x where e.id = x.id
returning e.id

-- share holds --
-- Before `lock due`, for a statement sees what had committed when it began: whoever holds a campaign
-- waits for this claim, or this claim sees it.
select pg_advisory_xact_lock_shared(hashtextextended('holds', 0))

-- lock due --
-- Locks what may be claimed, most urgent first; what another process holds is passed over. Where a
-- campaign is held, only what was begun before goes on. (`<> all (array(...))` would be taken to leave no
-- row where one campaign is most of the ledger, and the rest be planned for none.)
select e.id, e.event_id, e.kind, e.recipient_id, e.ordering_key, e.template, e.variables, e.state, e.attempts, e.calls,
       e.first_attempt_at, e.last_attempt_at, e.doubt_since, e.expires_at, e.setup, e.config_digest, e.address,
       e.cancelled, e.priority, e.due_at, clock_timestamp() as now
from unnest(%(since)s::timestamptz[]) with ordinality as p (since, number)
cross join lateral (
    select x.id, x.event_id, x.kind, x.recipient_id, x.ordering_key, x.template, x.variables, x.state, x.attempts,
           x.calls, x.priority, x.due_at, x.first_attempt_at, x.last_attempt_at, x.doubt_since, x.expires_at,
           case when x.doubt_since is not null then (
               select a.setup from attempts a where a.effect_id = x.id and a.purpose = 'send'
               order by a.number desc limit 1) end as setup,
           plans.config_digest, recipients.address,
           case when x.state = 'DOUBT' then (
               select h.reason from holds h where h.event_id = x.event_id and h.state = 'cancelled') end as cancelled
    from effects x
    join plans on plans.event_id = x.event_id and plans.epoch = x.epoch
    left join recipients on recipients.id = x.recipient_id
    where x.provider = %(provider)s and x.priority = p.number - 1
      and x.state in ('PLANNED', 'DOUBT') and x.due_at between p.since and statement_timestamp()
      and x.id <> all(%(passed)s)
      and (x.state = 'DOUBT' or not exists (select from holds h where h.event_id = x.event_id))
      and (x.ordering_key is null or not exists (
          select from effects o
          where o.ordering_key = x.ordering_key and o.state in ('PLANNED', 'SENDING', 'DOUBT')
            and ((o.event_seq, o.id) < (x.event_seq, x.id) or (o.state = 'SENDING' and o.id <> x.id))))
    order by x.due_at
    limit %(limit)s
    for update of x skip locked) as e
limit %(limit)s

-- lock people --
-- Whoever writes a suppression waits for this claim, or this claim sees it; one that cannot `wait` leaves out
-- whom somebody is writing about. Of an ordering key only one claim at a time may begin something, and nobody
-- waits for one: its holder may be frozen. What of these is had.
select id::text as what, case when %(wait)s then pg_advisory_xact_lock_shared(hash) is not null
                              else pg_try_advisory_xact_lock_shared(hash) end as had
from (select id, hashtextextended(id::text, 0) as hash from unnest(%(people)s::uuid[]) as id order by id) as sorted
union all
select key, pg_try_advisory_xact_lock(hashtextextended(key, 0)) from unnest(%(keys)s::text[]) as key

-- people --
-- What stands in the way of reaching these people, read after the locks are held.
select 'suppressed' as what, recipient_id::text as of, scope, reason as text from suppressions
where recipient_id = any(%(people)s)
union all
select 'under way', ordering_key, state, null from effects
where ordering_key = any(%(keys)s) and state in ('PLANNED', 'SENDING', 'DOUBT')
union all
select 'address', id::text, null, address from recipients where id = any(%(people)s)

-- bodies --
-- The bytes of earlier attempts, where a repeat must send the same.
select distinct on (effect_id) effect_id, request_body from attempts
where effect_id = any(%(ids)s) and request_body is not null order by effect_id, number

-- claim --
-- Leases effects and writes their attempts, before any call is made.
with c as (
    select * from json_to_recordset(%(attempts)s::json)
        as c (effect_id uuid, purpose text, request_sha256 text, request_body bytea, setup text, lease interval)
), claimed as (
    update effects e set
        state = case c.purpose when 'send' then 'SENDING' else 'DOUBT' end,
        claim_id = %(claim_id)s,
        lease_until = case c.purpose when 'send' then %(now)s + c.lease end,
        due_at = case c.purpose when 'send' then e.due_at else %(now)s + c.lease end,
        attempts = e.attempts + (c.purpose = 'send')::int,
        calls = e.calls + 1,
        first_attempt_at = case c.purpose when 'send' then coalesce(e.first_attempt_at, %(now)s)
                                          else e.first_attempt_at end,
        last_attempt_at = case c.purpose when 'send' then %(now)s else e.last_attempt_at end,
        updated_at = %(now)s
    from c where e.id = c.effect_id
    returning e.id, e.calls
), begun as (
    insert into attempts (effect_id, number, purpose, claim_id, provider, started_at, request_sha256, request_body,
                          setup, claim_number)
    select claimed.id, claimed.calls, c.purpose, %(claim_id)s, %(provider)s, %(now)s, c.request_sha256,
           c.request_body, c.setup, case row_number() over () when 1 then nextval('claim_seq') end
    from c join claimed on claimed.id = c.effect_id
    returning effect_id, claim_number
)
select array_agg(effect_id) as effects, %(now)s::timestamptz as now, max(claim_number) as number,
       (select coalesce(max(a.claim_number), 0) from attempts a where a.claim_number is not null) as remembered
from begun having count(*) > 0

-- close unsent --
-- Ends effects without a call: suppressed, past knowing, or impossible to render. The bytes of their attempts are
-- forgotten: of what is in doubt no repeat can come any more.
with c as (
    select * from json_to_recordset(%(closed)s::json) as c (effect_id uuid, state text, reason text)
), forgotten as (
    update attempts a set request_body = null from c where a.effect_id = c.effect_id and a.request_body is not null
)
update effects e set state = c.state, last_error = c.reason, settled_at = %(now)s, updated_at = %(now)s
from c where e.id = c.effect_id

-- settle --
-- Writes what calls came to. A claim that is no longer held settles nothing, except that a late
-- Accepted always does: the provider has it, whatever was thought meanwhile.
with s as (
    select * from json_to_recordset(%(settlements)s::json)
        as s (effect_id uuid, claim_id uuid, number int, outcome text, status_code smallint, latency interval,
              reason text, state text, due_at timestamptz, given_back bool, in_doubt bool, reference text)
), held as (
    select e.id, s.number, s.state from effects e join s on s.effect_id = e.id
    where (e.claim_id = s.claim_id and e.calls = s.number and e.state in ('SENDING', 'DOUBT'))
       or (s.state = 'SENT' and e.state <> 'SENT')
    order by e.id for update of e
), chosen as (  -- of two answers for one effect: that it was sent outweighs all else
    select distinct on (id) * from held order by id, (state = 'SENT') desc, number desc
), ended as (
    update attempts a set finished_at = %(now)s, outcome = s.outcome, status_code = s.status_code,
           latency = s.latency, reason = s.reason,
           request_body = case when s.state = 'DOUBT' then a.request_body end
    from s where a.effect_id = s.effect_id and a.number = s.number
      and (a.finished_at is null or s.outcome in ('ACCEPTED', 'FOUND'))
)
update effects e set
    state = s.state,
    lease_until = null,
    claim_id = case when s.state in ('PLANNED', 'DOUBT') then null else e.claim_id end,
    due_at = coalesce(s.due_at, e.held_due_at, e.due_at),
    held_due_at = null,
    attempts = e.attempts - s.given_back::int,
    doubt_since = case when s.in_doubt then coalesce(e.doubt_since, e.last_attempt_at) end,
    provider_ref = coalesce(s.reference, e.provider_ref),
    last_error = case when s.state = 'SENT' then null else s.reason end,
    settled_at = case when s.state in ('SENT', 'FAILED', 'UNKNOWN') then %(now)s end,
    sent_seq = case when s.state = 'SENT' then nextval('fact_seq') end,
    updated_at = %(now)s
from s join chosen on chosen.id = s.effect_id and chosen.number = s.number where e.id = s.effect_id
returning e.id, e.event_id, e.day, e.state

-- forget bodies --
-- Bytes are kept only while a repeat might need them. A statement of its own after `settle`, which may have waited
-- for a claim or a sweep: what these wrote is seen. (Most went with their attempt's outcome.) What is PLANNED
-- begins anew.
update attempts a set request_body = null
where a.effect_id = any(%(ids)s) and a.request_body is not null
  and (select e.state from effects e where e.id = a.effect_id) not in ('SENDING', 'DOUBT')

-- lock events --
-- Locks events of which nothing is open, in one order, so that two who settle an event's last effects
-- decide one after the other, and leaves which these are to `complete`, that no answer has to be waited for. A
-- campaign is left alone until its end: whoever ends it sees the others' work.
-- (Scalar subqueries, here and below: `exists` would be answered by hashing all that is open.)
with ended as (
    select m.id from marketing_events m
    where m.id = any(%(ids)s)
      and (select true from effects o where o.event_id = m.id
           and o.state in ('PLANNED', 'SENDING', 'DOUBT') limit 1) is null
    order by m.id for update
)
select set_config('marketing.ended', coalesce(array_agg(id), '{}')::text, true) from ended

-- complete --
-- Derives the status of events whose every planned effect is in the ledger and closed. Only of those that
-- `lock events` locked before this statement began: of others a resend could be missed.
with ready as (
    select m.id, (select sum(p.count) from plans p where p.event_id = m.id) as planned
    from marketing_events m
    where m.id = any(current_setting('marketing.ended')::uuid[])
      and m.status in ('PROCESSING', 'FAILED')
      and (select bool_and(p.inserted = p.count) from plans p where p.event_id = m.id)
      and (select true from effects o where o.event_id = m.id
           and o.state in ('PLANNED', 'SENDING', 'DOUBT') limit 1) is null
), ended as (
    select r.id, held.failed, held.retries, held.reason
    from ready r
    cross join lateral (
        select count(*) as effects,
               count(*) filter (where e.state = 'FAILED') as failed,
               count(*) filter (where e.state = 'UNKNOWN') as unknown,
               coalesce(sum(greatest(e.attempts - 1, 0)), 0) as retries,
               min(e.last_error) filter (where e.state = 'FAILED') as reason
        from effects e where e.event_id = r.id) as held
    where held.unknown = 0 and held.effects = r.planned
)
update marketing_events m set
    status = case when ended.failed > 0 then 'FAILED' else 'COMPLETED' end,
    retry_count = ended.retries, last_error = ended.reason, updated_at = %(now)s
from ended where m.id = ended.id
returning m.id

-- mark moved --
-- Days whose versions are to be taken again, though they may have been observed at their end.
with concerned as (
    select day from observed_days
    where not moved and day in (select day from marketing_events where id = any(%(ids)s))
    order by day for update
)
update observed_days o set moved = true from concerned c where o.day = c.day

-- stranded --
-- Events under way that nothing is open for: their settler died before it could tell.
select m.id from marketing_events m
where m.status = 'PROCESSING' and m.updated_at < %(now)s - interval '5 seconds'
  and m.id <> all (array(select event_id from effects where state = 'UNKNOWN'))
  and (select true from effects o where o.event_id = m.id
       and o.state in ('PLANNED', 'SENDING', 'DOUBT') limit 1) is null
order by m.updated_at limit 500

-- suppress --
-- Records that a person must not be reached; what has a claim may still go, nothing starts after.
insert into suppressions (recipient_id, scope, reason, created_at)
values (%(recipient_id)s, %(scope)s, %(reason)s, %(now)s)
on conflict (recipient_id, scope) do nothing

-- recipient --
-- Who has this address.
select id from recipients where address = lower(btrim(%(address)s))

-- lock one recipient --
-- The writer's side of `lock people`.
select pg_advisory_xact_lock(hashtextextended(%(id)s::uuid::text, 0))

-- recent calls --
-- Calls of the last span by slot of the gate's clock, to rebuild a limit whose state was lost.
select floor(extract(epoch from started_at) * 1000 / %(slot)s)::bigint as slot, count(*)::int
from attempts where provider = %(provider)s and started_at > statement_timestamp() - %(span)s
group by 1
