-- The calls under way of ports. Of a lease only the feature is known, and what calls says. Older
-- versions listed the holds of a lease, under labels; the first of these stands for all. Of kind
-- 2 are leases that are sealed, of kind 3 those that a gate may have to spare, or had until $3
-- ago, of kind 4 those whose gate was killed. What calls says of the leases in $1 is known: a
-- subquery in the list of columns is hashed, where a join may compare each with each.
select 1, h.port_id, 0::bigint, h.feature, h.created_at, h.tokens, 1, h.call, null::bytea, h.id, false
from ports join ai_budget_holds h using (port_id)
where h.expires_at > clock_timestamp()
union all
select case when s.holds is not null then 2 when s.leased_until > clock_timestamp() - $3::interval then 3 else 4 end,
    s.port_id, 0, coalesce(s.feature, s.holds->>'feature', s.holds#>>'{labels,0,1}', ''), s.created_at, s.tokens - s.closed_tokens,
    coalesce((s.holds->>'count')::int, jsonb_array_length(s.holds->'holds'), octet_length(s.closed) * 8) - bit_count(s.closed)::int,
    case when not s.known then s.calls end, s.closed_calls, s.id, s.known
from (
    select s.*, (s.id, s.holds is not null) in (select * from unnest($1::uuid[], $2::bool[])) as known
    from ports join ai_budget_slices s using (port_id)
    where s.expires_at > clock_timestamp() and s.tokens > s.closed_tokens
    offset 0
) s
