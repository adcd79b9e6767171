-- The calls under way of ports that have limits; see limits_read.sql.
select h.port_id, h.feature, h.created_at, h.tokens, 1, h.call, false
from ai_limited_ports p join ai_budget_holds h on h.port_id = p.port_id and h.expires_at > clock_timestamp()
where jsonb_array_length(p.limits) > 0
union all
select s.port_id, coalesce(s.feature, s.holds->>'feature', s.holds#>>'{labels,0,1}', ''), s.created_at, s.tokens - s.closed_tokens,
    coalesce((s.holds->>'count')::int, jsonb_array_length(s.holds->'holds'), octet_length(s.closed) * 8) - bit_count(s.closed)::int, null, true
from ai_limited_ports p join ai_budget_slices s on s.port_id = p.port_id and s.expires_at > clock_timestamp() and s.tokens > s.closed_tokens
where jsonb_array_length(p.limits) > 0
union all
-- And those of ports that have the limits of the default budget, where that has any.
select h.port_id, h.feature, h.created_at, h.tokens, 1, h.call, false
from ai_budget_holds h
where (select jsonb_array_length(limits) > 0 from ai_limited_ports where port_id = '*') and h.expires_at > clock_timestamp()
    and not exists (select from ai_limited_ports p where p.port_id = h.port_id and p.limits is not null)
union all
select s.port_id, coalesce(s.feature, s.holds->>'feature', s.holds#>>'{labels,0,1}', ''), s.created_at, s.tokens - s.closed_tokens,
    coalesce((s.holds->>'count')::int, jsonb_array_length(s.holds->'holds'), octet_length(s.closed) * 8) - bit_count(s.closed)::int, null, true
from ai_budget_slices s
where (select jsonb_array_length(limits) > 0 from ai_limited_ports where port_id = '*') and s.expires_at > clock_timestamp() and s.tokens > s.closed_tokens
    and not exists (select from ai_limited_ports p where p.port_id = s.port_id and p.limits is not null)
