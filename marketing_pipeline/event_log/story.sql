-- events --
-- The events a story is of, with how many of their effects stand where.
select m.id, m.type, m.source, m.origin, m.day, m.status, m.last_error, m.scheduled_at,
       m.recipient_id, m.created_at,
       coalesce((select jsonb_object_agg(s.state, s.count) from (
           select e.state, count(*) from effects e where e.event_id = m.id group by e.state) s),
           '{}') as states,
       h.state as hold, h.reason as hold_reason
from marketing_events m left join holds h on h.event_id = m.id where m.id = any(%(events)s)

-- causes --
-- What led to an event, nearest first.
with recursive up as (
    select caused_by as id, 1 as distance from marketing_events
    where id = %(event)s and caused_by is not null
    union all
    select m.caused_by, up.distance + 1 from up join marketing_events m on m.id = up.id
    where m.caused_by is not null and up.distance < %(limit)s
)
select id from up order by distance

-- caused --
-- What an event led to, and what that led to, the oldest first.
with recursive down as (
    select id, seq, 1 as distance from marketing_events where caused_by = %(event)s
    union all
    select m.id, m.seq, down.distance + 1 from down join marketing_events m on m.caused_by = down.id
    where down.distance < %(limit)s
)
select id from down order by seq limit %(limit)s

-- effects --
-- Effects as they stand, with what holds them back; those that need a person come first.
select e.id, e.event_id, e.step, e.provider, c.body -> 'providers' -> e.provider as setup, e.kind,
       e.recipient_id, r.address, r.erased_at is not null as erased, e.state, e.attempts, e.calls,
       e.redrives, e.due_at, e.lease_until, e.doubt_since, e.expires_at, e.settled_at,
       e.provider_ref as reference, e.last_error,
       (select min(s.reason) from suppressions s
        where s.recipient_id = e.recipient_id and s.scope in ('all', e.kind)) as suppressed,
       h.until as paused_until, h.reason as pause_reason, held.state as hold, held.reason as hold_reason,
       e.held_due_at,
       (select o.id from effects o
        where o.ordering_key = e.ordering_key and o.state in ('PLANNED', 'SENDING', 'DOUBT')
          and (o.event_seq, o.id) < (e.event_seq, e.id)
        order by o.event_seq, o.id limit 1) as waits_for
from (
    select x.* from effects x
    where x.event_id = %(event)s or x.id = any(%(ids)s)
    order by array_position(array['UNKNOWN', 'FAILED', 'DOUBT', 'SENDING', 'PLANNED', 'SUPPRESSED'],
                            x.state), x.created_at, x.id
    limit %(limit)s) e
join plans p on p.event_id = e.event_id and p.epoch = e.epoch
join configs c on c.digest = p.config_digest
left join recipients r on r.id = e.recipient_id
left join pauses h on h.provider = e.provider and h.until > clock_timestamp()
left join holds held on held.event_id = e.event_id
order by array_position(array['UNKNOWN', 'FAILED', 'DOUBT', 'SENDING', 'PLANNED', 'SUPPRESSED'],
                        e.state), e.created_at, e.id

-- recorded --
-- How an event came into the log.
select created_at as at, id as event_id, null::uuid as effect_id, type, source, origin,
       idempotency_key, fingerprint, seq, scheduled_at as due, recipient_id, traceparent, caused_by
from marketing_events where id = any(%(events)s)

-- planned --
-- What was planned for it, and by which configuration.
select created_at as at, event_id, null::uuid as effect_id, epoch, cut_seq, cut_at, config_digest,
       plan_version, count, inserted, digest
from plans where event_id = any(%(events)s)

-- effect planned --
-- Each effect of the plan.
select created_at as at, event_id, id as effect_id, epoch, route, step, provider, kind, priority,
       recipient_id, template, once_key
from effects where id = any(%(effects)s)

-- attempt --
-- Every call that was started, and what it came to.
select a.started_at as at, e.event_id, a.effect_id, a.number, a.purpose, a.provider,
       a.finished_at, a.outcome, a.status_code, extract(epoch from a.latency)::float as seconds,
       a.reason, a.request_sha256, a.claim_id
from attempts a join effects e on e.id = a.effect_id where a.effect_id = any(%(effects)s)

-- settled --
-- How effects came to their end, also those that nobody called for.
select settled_at as at, event_id, id as effect_id, state, provider_ref as reference,
       last_error as reason
from effects where id = any(%(effects)s) and settled_at is not null

-- resolved --
-- What people decided.
select r.created_at as at, e.event_id, r.effect_id, r.number, r.action, r.why, r.who, r.calls
from resolutions r join effects e on e.id = r.effect_id where r.effect_id = any(%(effects)s)

-- feedback --
-- What providers told afterwards, by their clocks: of these effects, or of these people where nobody can
-- say of which effect.
select f.occurred_at as at, e.event_id, f.effect_id, f.provider, f.kind, f.occurred_at, f.detail, f.seq,
       f.created_at as told_at
from feedback f left join effects e on e.id = f.effect_id
where f.effect_id = any(%(effects)s) or (f.effect_id is null and f.recipient_id = any(%(people)s))
order by f.seq

-- suppressed --
-- That these people must not be reached any more.
select created_at as at, null::uuid as event_id, null::uuid as effect_id, recipient_id, scope, reason
from suppressions where recipient_id = any(%(people)s)

-- erased --
-- That these people's addresses were forgotten.
select erased_at as at, null::uuid as event_id, null::uuid as effect_id, id as recipient_id
from recipients where id = any(%(people)s) and erased_at is not null

-- paused --
-- That providers are held back now.
select created_at as at, null::uuid as event_id, null::uuid as effect_id, provider, until, reason
from pauses where provider = any(%(providers)s) and until > clock_timestamp()

-- held --
-- That a campaign waits for somebody's approval now; what people did to it is told as interventions.
select since as at, event_id, null::uuid as effect_id, state, reason
from holds where event_id = any(%(events)s) and state = 'unapproved'

-- intervention --
-- What people did to a campaign.
select created_at as at, event_id, null::uuid as effect_id, action, why, who
from interventions where event_id = any(%(events)s)

-- adopted --
-- That the log was restored or copied, and taken into use again.
select adopted_at as at, null::uuid as event_id, null::uuid as effect_id, adopted_why as why
from installation where adopted_at >= %(since)s

-- referenced --
-- Effects that a provider knows by this name.
select id, event_id, provider, recipient_id from effects where provider_ref = %(reference)s
order by created_at desc, id limit %(limit)s

-- of person --
-- What was recorded of a person and what was planned for them, newest first.
select event_id, array_remove(array_agg(effect_id), null) as effects
from (
    (select id as event_id, null::uuid as effect_id, seq from marketing_events
     where recipient_id = %(person)s order by seq desc limit %(limit)s)
    union all
    (select event_id, id, event_seq from effects
     where recipient_id = %(person)s order by event_seq desc, id limit %(limit)s)) found
group by event_id, seq order by seq desc limit %(limit)s

-- troubles --
-- Effects of a day that failed or wait for a person, these first.
(select id, provider, state, last_error as reason from effects
 where state = 'UNKNOWN' and day = %(day)s order by settled_at, id limit %(limit)s)
union all
(select id, provider, state, last_error from effects
 where state = 'FAILED' and day = %(day)s order by settled_at, id limit %(limit)s)
order by state desc, id limit %(limit)s
