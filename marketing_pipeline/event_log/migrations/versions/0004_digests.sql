-- A counted repetition is matched by a machine that PostgreSQL makes anew for each value: 6 us a digest,
-- at each change of its row. That no character is another one is found at once.
alter table marketing_events
    drop constraint marketing_events_fingerprint_check,
    add constraint marketing_events_fingerprint_check
        check (octet_length(fingerprint) = 64 and fingerprint !~ '[^0-9a-f]');
alter table plans
    drop constraint plans_digest_check,
    add constraint plans_digest_check check (octet_length(digest) = 64 and digest !~ '[^0-9a-f]');
alter table attempts
    drop constraint attempts_request_sha256_check,
    add constraint attempts_request_sha256_check
        check (octet_length(request_sha256) = 64 and request_sha256 !~ '[^0-9a-f]');
