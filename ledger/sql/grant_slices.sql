insert into ai_budget_slices (port_id, id, tokens, closed, secret, created_at, leased_until, expires_at)
select port, id, tokens, decode(repeat('00', bytes), 'hex'), secret, created, until, expires
from unnest($1::text[], $2::uuid[], $3::bigint[], $4::int[], $5::bytea[], $6::timestamptz[], $7::timestamptz[], $8::timestamptz[])
    as e(port, id, tokens, bytes, secret, created, until, expires)
