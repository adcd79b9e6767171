-- Holds that earlier tries of the same requests made, and that still live.
select h.port_id, h.idempotency_key, h.id, h.tokens, h.expires_at, coalesce(h.asked::text, '')
from unnest($1::text[], $2::text[]) e(port, key)
join ai_budget_holds h on h.port_id = e.port and h.idempotency_key = e.key
where h.expires_at > clock_timestamp()
