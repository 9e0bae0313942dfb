-- falsely finished --
-- Events that are said to be at their end while something of them is not. Plans are one table and
-- the ledger is another: an effect that was lost is missed here, too.
with finished as (
    select m.id, m.day, m.status,
           (select sum(p.count) from plans p where p.event_id = m.id) as planned
    from marketing_events m
    where m.day between %(from_day)s and %(to_day)s and m.status in ('COMPLETED', 'FAILED')
), held as (
    select f.id, f.day, f.status, f.planned,
           count(e.id) as effects,
           count(e.id) filter (where e.state in ('PLANNED', 'SENDING', 'DOUBT')) as open,
           count(e.id) filter (where e.state = 'UNKNOWN') as unknown,
           count(e.id) filter (where e.state = 'FAILED') as failed
    from finished f left join effects e on e.event_id = f.id
    group by f.id, f.day, f.status, f.planned
)
select id as event_id, day, status, coalesce(planned, 0)::int - effects::int as missing, open::int,
       unknown::int, failed::int, planned is not null as planned
from held
where open > 0 or unknown > 0 or effects <> coalesce(planned, 0)
   or (status = 'COMPLETED' and (planned is null or failed > 0))
order by day, id limit %(limit)s
