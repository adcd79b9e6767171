-- The rows are locked by this transaction: the new states are absolute.
update ai_budget_slices s set closed_tokens = e.closed_tokens, closed = e.closed
from unnest($1::text[], $2::uuid[], $3::bigint[], $4::bytea[]) e(port, id, closed_tokens, closed)
where s.port_id = e.port and s.id = e.id
