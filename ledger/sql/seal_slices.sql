-- An upsert for the reason given in close_in_slices.sql.
insert into ai_budget_slices as s (port_id, id, tokens, holds, closed, secret, created_at, leased_until, expires_at)
select port, id, tokens, holds::jsonb, '', '', now(), now(), now()
from unnest($1::text[], $2::uuid[], $3::bigint[], $4::text[]) e(port, id, tokens, holds)
on conflict (port_id, id) do update set tokens = excluded.tokens, holds = excluded.holds
