-- event named --
-- An event by its id or by its idempotency key.
select id from marketing_events where id = %(id)s or idempotency_key = %(id)s::text

-- effect named --
-- An effect by its id.
select id from effects where id = %(id)s

-- keyed --
-- An event by its idempotency key.
select id from marketing_events where idempotency_key = %(key)s

-- person --
-- Who has an address.
select id from recipients where address = %(address)s

-- reference --
-- Is anything known to a provider by this name?
select id from effects where provider_ref = %(reference)s limit 1
