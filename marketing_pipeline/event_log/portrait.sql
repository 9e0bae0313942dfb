-- said of --
-- What the log says of whoever has an address, oldest first.
select m.seq, m.recipient_id::text, m.source, m.payload from marketing_events m
join recipients r on r.id = m.recipient_id
where r.address = lower(btrim(%(address)s)) and m.type = 'LEAD_CAPTURE'
order by m.seq
