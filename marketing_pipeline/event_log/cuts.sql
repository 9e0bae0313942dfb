-- highest seq --
-- The highest number given out so far, whether or not its transaction has committed.
select case when is_called then last_value else 0 end from fact_seq

-- writers --
-- Transactions that hold a table of numbered facts for writing at this moment.
select distinct virtualtransaction from pg_locks
where locktype = 'relation' and database = (select oid from pg_database where datname = current_database())
  and relation in ('marketing_events'::regclass, 'suppressions'::regclass, 'fact_seq'::regclass)
  and mode = 'RowExclusiveLock' and granted and pid is distinct from pg_backend_pid()

-- writers left --
-- Which of those transactions are still under way.
select distinct virtualtransaction from pg_locks
where virtualtransaction = any(%(writers)s) and locktype = 'relation'
  and relation in ('marketing_events'::regclass, 'suppressions'::regclass, 'fact_seq'::regclass)
  and mode = 'RowExclusiveLock'
