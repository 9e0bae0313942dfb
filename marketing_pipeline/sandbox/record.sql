-- The sandbox's record. Instants are unix seconds, UTC.
-- Every change is committed before the answer is sent. Without an fsync a commit survives the death
-- of the process, though not of the machine, and the process is what a test kills.

pragma journal_mode = wal;
pragma synchronous = normal;
pragma wal_autocheckpoint = 4000;

create table if not exists calls (      -- one row a request, refused ones included
  n integer primary key,
  at real not null,                     -- when it had been read
  provider text not null,
  operation text not null,
  key text,                             -- the effect as the provider sees it; a batch: joined by ","
  status integer,                       -- what was answered; null: nothing was
  fault text                            -- the kind of fault that hit it
);
create table if not exists acts (       -- one row for each thing really done
  n integer primary key autoincrement,
  at real not null,
  provider text not null,
  operation text not null,
  key text,                             -- null: nobody can say which effect this was
  recipient text,
  ref text,                             -- the provider's own id for it
  body_sha256 text not null,            -- of the request's bytes; HubSpot: of the input's canonical JSON
  repeat integer not null check (repeat in (0, 1))   -- 1: an upsert done again, unchanged
);
create table if not exists keys (       -- what a provider remembers of them; HubSpot: the latest write
  provider text not null,
  operation text not null,
  key text not null,
  body_sha256 text not null,
  ref text not null,
  at real not null,
  primary key (provider, operation, key)
) without rowid;
create table if not exists contacts (   -- HubSpot's
  id integer primary key autoincrement,
  email text not null unique,
  properties text not null,             -- JSON
  created_at real not null,
  updated_at real not null
);
create table if not exists messages (   -- Mailgun's, a row a recipient
  n integer primary key autoincrement,
  at real not null,
  domain text not null,
  message_id text not null,             -- without angle brackets
  recipient text not null,
  sender text not null,
  subject text not null,
  size integer not null                 -- bytes of the request that carried it
);
create index if not exists messages_by_id on messages (message_id);
create index if not exists messages_by_recipient on messages (recipient);
create table if not exists pressure (   -- how hard each provider was pushed
  provider text primary key,
  peak integer not null,                -- the most requests seen within its limit's window
  over_limit integer not null           -- how many were refused for it
);
