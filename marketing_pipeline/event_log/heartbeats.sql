-- beat --
-- Says that a delivery run lives; its first word takes the place of the request that started it.
with answered as (
    delete from heartbeats where kind = 'requested'
    and not exists (select from heartbeats where worker = %(worker)s)
)
insert into heartbeats (worker, kind, run_id, started_at, expires_at)
values (%(worker)s, 'delivery', %(run_id)s, clock_timestamp(), clock_timestamp() + %(lives)s)
on conflict (worker) do update set expires_at = excluded.expires_at

-- stop beating --
-- A run that ends takes back its own word, and never another's: that would hide a zombie.
delete from heartbeats where worker = %(worker)s

-- lock --
-- Two who would ask for a run decide one after the other, each seeing what the other did.
lock table heartbeats in share row exclusive mode

-- request --
-- Asks for a run, unless one is at work or on its way.
insert into heartbeats (worker, kind, started_at, expires_at)
select gen_random_uuid(), 'requested', clock_timestamp(), clock_timestamp() + %(lives)s
where not exists (select from heartbeats where expires_at > clock_timestamp())

-- forget --
-- Requests that no run answered in time, and dead workers that no Dagster run stands for.
delete from heartbeats where (kind = 'requested' or run_id is null) and expires_at <= clock_timestamp()

-- living --
-- The Dagster runs that say they are at work.
select distinct run_id from heartbeats where run_id is not null and expires_at > clock_timestamp()

-- forget run --
-- What a run said that has been found dead; a word that still counts stays.
delete from heartbeats where run_id = %(run_id)s and expires_at <= clock_timestamp()

-- forget silent --
-- What was said by runs that ended unheard: Dagster saw them die before we did.
delete from heartbeats where expires_at <= clock_timestamp() - %(silent)s
