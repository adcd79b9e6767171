-- The calls under way of ports that have limits, their own or, where it has any, those of the
-- default budget; see limits_read.sql. What calls says of the leases in $1 is known.
with limited as materialized (
    select port_id from ai_limited_ports where jsonb_array_length(limits) > 0 and port_id <> '*'
), by_default as materialized (
    select port_id from (select port_id from ai_budget_holds union select port_id from ai_budget_slices) u
    where (select jsonb_array_length(limits) > 0 from ai_limited_ports where port_id = '*')
        and not exists (select from ai_limited_ports p where p.port_id = u.port_id and p.limits is not null)
), ports as materialized (
    select port_id from limited union all select port_id from by_default
)
select false, h.port_id, h.feature, h.created_at, h.tokens, 1, h.call, null::bytea, h.id, false, false
from ports join ai_budget_holds h using (port_id)
where h.expires_at > clock_timestamp()
union all
select true, s.port_id, coalesce(s.feature, s.holds->>'feature', s.holds#>>'{labels,0,1}', ''), s.created_at, s.tokens - s.closed_tokens,
    coalesce((s.holds->>'count')::int, jsonb_array_length(s.holds->'holds'), octet_length(s.closed) * 8) - bit_count(s.closed)::int,
    case when k.id is null then s.calls end, s.closed_calls, s.id, s.holds is not null, k.id is not null
from ports join ai_budget_slices s using (port_id)
left join unnest($1::uuid[], $2::bool[]) k(id, sealed) on k.id = s.id and k.sealed = (s.holds is not null)
where s.expires_at > clock_timestamp() and s.tokens > s.closed_tokens
