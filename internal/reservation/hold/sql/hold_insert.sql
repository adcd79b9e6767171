-- A key whose hold has expired may be used again.
insert into ai_budget_holds as h (port_id, id, tokens, created_at, expires_at, service, feature, idempotency_key, asked, call)
select port, id, tokens, created, expires, service, feature, nullif(key, ''), asked::json, call::jsonb
from unnest($1::text[], $2::uuid[], $3::bigint[], $4::timestamptz[], $5::timestamptz[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[])
    as e(port, id, tokens, created, expires, service, feature, key, asked, call)
on conflict (port_id, idempotency_key) where idempotency_key is not null do update set
    id = excluded.id, tokens = excluded.tokens, created_at = excluded.created_at, expires_at = excluded.expires_at,
    service = excluded.service, feature = excluded.feature, asked = excluded.asked, call = excluded.call
