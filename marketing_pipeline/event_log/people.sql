-- people up to --
-- What the log says of people up to a cut, person by person, oldest first: a page of it.
select m.seq, m.recipient_id::text, m.source, m.payload::text from marketing_events m
where m.type = 'LEAD_CAPTURE' and m.seq <= %(cut)s
  and m.recipient_id >= %(person)s::uuid and (m.recipient_id, m.seq) > (%(person)s::uuid, %(seq)s)
order by m.recipient_id, m.seq limit %(limit)s

-- people of --
-- The same of a few people.
select m.seq, m.recipient_id::text, m.source, m.payload::text from marketing_events m
where m.type = 'LEAD_CAPTURE' and m.seq <= %(cut)s and m.recipient_id = any(%(people)s::uuid[])
order by m.recipient_id, m.seq

-- suppressed between --
-- Which of the people in a range of ids must not be mailed, as the facts up to the cut have it.
select recipient_id::text, min(reason) from suppressions
where recipient_id between %(first)s::uuid and %(last)s::uuid and scope in ('all', 'email') and seq <= %(cut)s
group by 1

-- mailed between --
-- When a mail was last taken for each of them by a provider.
select recipient_id::text, max(settled_at) from effects
where recipient_id between %(first)s::uuid and %(last)s::uuid and kind = 'email' and state = 'SENT'
  and sent_seq <= %(cut)s
group by 1

-- feedback between --
-- What providers told of them, when it last was so.
select recipient_id::text, kind, max(occurred_at) from feedback
where recipient_id between %(first)s::uuid and %(last)s::uuid and kind = any(%(kinds)s) and seq <= %(cut)s
group by 1, 2

-- sent once --
-- Which of these keys of `once` are taken by something that had been sent by the cut.
select w.key from unnest(%(keys)s::text[]) as w (key)
where exists (
    select from effects e
    where e.once_key = w.key and e.state = 'SENT' and e.sent_seq <= %(cut)s
      and (%(within)s::interval is null or e.due_at + %(within)s::interval > %(starts_at)s))

-- insert rows --
-- `insert effects` for those that differ in person and content alone; no `once` is among them.
insert into effects (id, event_id, epoch, day, event_seq, route, step, provider, kind, recipient_id,
                     template, variables, state, priority, due_at, created_at, updated_at, expires_at,
                     last_error, settled_at, doubt_since, first_attempt_at, last_attempt_at)
select i.id, %(event_id)s, %(epoch)s, %(day)s, %(event_seq)s, %(route)s, %(step)s, %(provider)s, %(kind)s,
       i.recipient_id, i.template, i.variables,
       case when w.why is not null then 'SUPPRESSED' when d.doubtful then 'DOUBT' else 'PLANNED' end,
       %(priority)s, case when d.doubtful then a.look_at else d.due_at end, %(now)s, %(now)s,
       d.due_at + %(max_age)s::interval, w.why, case when w.why is not null then %(now)s end,
       case when d.doubtful and w.why is null then d.due_at end,
       case when d.doubtful and w.why is null then d.due_at end,
       case when d.doubtful and w.why is null then d.due_at end
from rows from (unnest(%(ids)s::uuid[]), unnest(%(people)s::uuid[]), unnest(%(templates)s::text[]),
                jsonb_array_elements(%(variables)s::jsonb))
     with ordinality as i (id, recipient_id, template, variables, place)
cross join installation a
cross join lateral (
    select due_at, coalesce(due_at <= a.adopted_at, false) as doubtful
    from (select %(starts_at)s::timestamptz + (%(place)s + i.place - 1) * %(pace)s::interval as due_at) x) d
cross join lateral (
    select case when %(epoch)s > 0
        then not_again(%(event_id)s, %(epoch)s, %(step)s, i.recipient_id, null, %(event_seq)s) end as why) w
on conflict (id) do nothing
