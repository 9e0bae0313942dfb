-- more leads than --
-- Does the log say more of people than this?
select exists (select from marketing_events where type = 'LEAD_CAPTURE' order by seq offset %(many)s limit 1)

-- people up to --
-- What the log says of people up to a cut, person by person, oldest first: a page of it.
select m.seq, m.recipient_id::text, m.source, m.payload::text from marketing_events m
where m.type = 'LEAD_CAPTURE' and m.seq <= %(cut)s
  and m.recipient_id >= %(person)s::uuid and (m.recipient_id, m.seq) > (%(person)s::uuid, %(seq)s)
order by m.recipient_id, m.seq limit %(limit)s

-- insert rows --
-- `insert effects` for those that differ in person and variables alone; no `once` is among them.
insert into effects (id, event_id, epoch, day, event_seq, route, step, provider, kind, recipient_id,
                     template, variables, state, priority, due_at, created_at, updated_at, expires_at,
                     doubt_since, first_attempt_at, last_attempt_at)
select i.id, %(event_id)s, %(epoch)s, %(day)s, %(event_seq)s, %(route)s, %(step)s, %(provider)s, %(kind)s,
       i.recipient_id, %(template)s, i.variables, a.state, %(priority)s, a.due_at, %(now)s, %(now)s,
       %(expires_at)s, a.doubt_since, a.doubt_since, a.doubt_since
from rows from (unnest(%(ids)s::uuid[]), unnest(%(people)s::uuid[]), jsonb_array_elements(%(variables)s::jsonb))
     as i (id, recipient_id, variables)
cross join (
    select case when %(due_at)s <= adopted_at then 'DOUBT' else 'PLANNED' end as state,
           case when %(due_at)s <= adopted_at then look_at else %(due_at)s end as due_at,
           case when %(due_at)s <= adopted_at then %(due_at)s end as doubt_since
    from installation) as a
on conflict (id) do nothing
