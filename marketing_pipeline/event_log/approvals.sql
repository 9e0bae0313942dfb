-- propose --
-- Keeps a plan that is shown to somebody, with all that it follows from.
insert into proposals (digest, kind, campaign, event_id, occurrence, from_day, to_day, types, days, epoch, cut_seq, cut_at,
                       config_digest, plan_version, count, excluded, created_at)
values (%(digest)s, %(kind)s, %(campaign)s, %(event_id)s, %(occurrence)s, %(from_day)s, %(to_day)s, %(types)s,
        %(days)s, %(epoch)s, %(cut_seq)s, %(cut_at)s, %(config_digest)s, %(plan_version)s, %(count)s, %(excluded)s, %(now)s)

-- proposals --
-- Plans that were shown and whose digest begins so, the newest first.
select * from proposals
where digest like %(digest)s and kind = %(kind)s and (%(campaign)s::text is null or campaign = %(campaign)s)
order by created_at desc, id desc limit 20

-- lock event --
-- Whoever plans the event waits for the approval, or this waits for the plan.
select from marketing_events where id = %(event_id)s for update

-- used --
-- Was it planned already, or given up?
select exists (select from plans where event_id = %(event_id)s and epoch = %(epoch)s) as planned,
       exists (select from holds where event_id = %(event_id)s and state = 'cancelled') as cancelled

-- agree --
-- Keeps who let the events of past days be sent again, and when.
insert into approvals (proposal, number, who, why, expires_at, created_at)
select %(proposal)s, (select count(*) + 1 from approvals where proposal = %(proposal)s), %(who)s, %(why)s,
       clock_timestamp(), clock_timestamp()

-- approve --
-- Keeps that somebody agreed to a plan.
insert into approvals (proposal, number, who, why, expires_at, created_at)
select %(proposal)s, (select count(*) + 1 from approvals where proposal = %(proposal)s), %(who)s, %(why)s,
       clock_timestamp() + %(life)s, clock_timestamp()
returning expires_at, created_at

-- release --
-- Lets the event be planned, and wakes a delivery run that lives when this commits.
with released as (
    delete from holds where event_id = %(event_id)s and state = 'unapproved'
)
select pg_notify('marketing_events', '')

-- newest approval --
-- What was agreed to last for an event.
select p.*, a.who, a.why, a.expires_at, a.created_at as approved_at
from approvals a join proposals p on p.id = a.proposal
where p.event_id = %(event_id)s and p.epoch = %(epoch)s
order by a.created_at desc limit 1

-- hold --
-- A due campaign waits for somebody to approve its plan.
insert into holds (event_id, state, reason, since) values (%(event_id)s, 'unapproved', %(reason)s, %(now)s)
on conflict (event_id) do nothing

-- ready --
-- What was agreed to for a trigger by hand that nobody has given yet, the newest first; an occurrence that
-- is still to come is its schedule's.
select p.* from approvals a join proposals p on p.id = a.proposal
where p.campaign = %(campaign)s and p.kind = 'campaign' and p.occurrence <= %(now)s and a.expires_at > %(now)s
  and not exists (select from marketing_events m where m.id = p.event_id)
order by a.created_at desc limit 1

-- shown --
-- The plan that was shown last of a trigger by hand that nobody has given yet, lately.
select p.* from proposals p
where p.campaign = %(campaign)s and p.kind = 'campaign' and p.occurrence <= %(now)s
  and p.created_at > %(now)s - interval '24 hours'
  and not exists (select from marketing_events m where m.id = p.event_id)
order by p.created_at desc, p.id desc limit 1
