-- subject --
-- Which effect and whose a notice is: by our own name for it, by the provider's, or by the address. Where
-- the provider's name is not known yet, an answer that is still to be settled may tell it: a person's effects
-- are few, and `offset 0` keeps the planner from reading all that are open instead.
select e.id as effect_id, coalesce(e.recipient_id, p.id) as recipient_id, e.day,
       e.id is null and %(effect_id)s::uuid is null and %(reference)s::text is not null and exists (
           select from (select state from effects where recipient_id = p.id and provider = %(provider)s offset 0) o
           where o.state in ('SENDING', 'DOUBT')
       ) as unsettled
from (values (1)) as one
left join lateral (
    select x.id, x.recipient_id, x.day from effects x
    where x.provider = %(provider)s and (x.id = %(effect_id)s or x.provider_ref = %(reference)s)
    order by x.id = %(effect_id)s desc nulls last, x.id limit 1) e on true
left join recipients p on p.address = lower(btrim(%(address)s::text))

-- keep --
-- A notice is kept once; whoever tells it at the same time waits here for the first.
insert into feedback (id, provider, kind, effect_id, recipient_id, occurred_at, detail, created_at)
values (%(id)s, %(provider)s, %(kind)s, %(effect_id)s, %(recipient_id)s, %(occurred_at)s, %(detail)s, %(now)s)
on conflict (id) do nothing

-- mark moved --
-- The day's version is to be taken again. Written whether it is marked or not: a reader who has just taken
-- the mark, and does not see this notice yet, is waited for or waits.
update observed_days set moved = true where day = %(day)s
