-- keep --
-- Holds a provider back; the later end of two pauses wins.
insert into pauses (provider, until, reason, created_at)
values (%(provider)s, %(until)s, %(reason)s, %(now)s)
on conflict (provider) do update
set until = greatest(pauses.until, excluded.until), reason = excluded.reason, created_at = excluded.created_at

-- lift --
-- Ends a provider's pause; whoever plans to lift the gate's own comes here first, for a rebuild reads this.
delete from pauses where provider = %(provider)s and until > clock_timestamp()
returning provider, until, reason

-- standing --
-- Providers that are held back now.
select provider, until, reason from pauses where until > clock_timestamp()
