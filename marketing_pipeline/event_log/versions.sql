-- keep config --
-- Keeps a version of the operator's file by its digest.
insert into configs (digest, body, created_at) values (%(digest)s, %(body)s, %(now)s)
on conflict do nothing

-- use config --
-- Remembers from when on this version is the one in use.
insert into config_uses (since, digest)
select %(now)s, %(digest)s
where %(digest)s is distinct from (select digest from config_uses order by since desc limit 1)
on conflict do nothing

-- keep template --
-- Keeps a template by its hash.
insert into templates (hash, name, subject, html, preheader, created_at)
values (%(hash)s, %(name)s, %(subject)s, %(html)s, %(preheader)s, %(now)s)
on conflict do nothing

-- config --
-- A version of the operator's file.
select body from configs where digest = %(digest)s

-- templates --
-- Templates by hash.
select hash, name, subject, html, preheader from templates where hash = any(%(hashes)s)
