-- The rows exist and are locked by this transaction: their new states are absolute, and
-- nothing is ever inserted. An upsert looks its rows up by key, whatever Postgres
-- believes of the table's size; an update that joins may not.
insert into ai_budget_slices as s (port_id, id, closed_tokens, closed, closed_calls, tokens, secret, created_at, leased_until, expires_at)
select port, id, closed_tokens, closed, closed_calls, 0, '', now(), now(), now()
from unnest($1::text[], $2::uuid[], $3::bigint[], $4::bytea[], $5::bytea[]) e(port, id, closed_tokens, closed, closed_calls)
on conflict (port_id, id) do update set closed_tokens = excluded.closed_tokens, closed = excluded.closed, closed_calls = excluded.closed_calls
