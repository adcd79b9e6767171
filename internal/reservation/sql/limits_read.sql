-- What the counters of limits have, and the calls under way of ports, by one snapshot: what
-- turns from held into used is seen as one of the two. Of a lease only the feature is known,
-- and what calls says. Older versions listed the holds of a lease, under labels; the first of
-- these stands for all. Of kind 3 are leases that a gate may have to spare, or had until $6 ago.
select 0, c.port_id, c.counter, c.value, c.start, c.used, 0, null::jsonb, null::bytea
from unnest($1::text[], $2::bigint[], $3::text[], $4::timestamptz[]) e(port, counter, value, start)
join ai_limit_counters c on c.port_id = e.port and c.counter = e.counter and c.value = e.value and c.start = e.start
union all
select 1, h.port_id, 0, h.feature, h.created_at, h.tokens, 1, h.call, null
from unnest($5::text[]) e(port) join ai_budget_holds h on h.port_id = e.port and h.expires_at > clock_timestamp()
union all
select case when s.holds is null and s.leased_until > clock_timestamp() - $6::interval then 3 else 2 end, s.port_id, 0,
    coalesce(s.feature, s.holds->>'feature', s.holds#>>'{labels,0,1}', ''), s.created_at, s.tokens - s.closed_tokens,
    coalesce((s.holds->>'count')::int, jsonb_array_length(s.holds->'holds'), octet_length(s.closed) * 8) - bit_count(s.closed)::int, s.calls, s.closed_calls
from unnest($5::text[]) e(port) join ai_budget_slices s on s.port_id = e.port and s.expires_at > clock_timestamp() and s.tokens > s.closed_tokens
