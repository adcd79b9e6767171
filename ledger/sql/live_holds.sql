-- A page of a port's live holds: from the beginning if $2, else after service $3 and
-- feature $4. Those that gates make from a lease are known once it is sealed, about a
-- second later; until then only its tokens are. Older versions listed the holds of a lease,
-- under labels; the first of these stands for all.
select service, feature, sum(holds)::bigint, least(sum(tokens), 9223372036854775807)::bigint, min(expires_at) from (
    select service, feature, 1 as holds, tokens, expires_at from ai_budget_holds
    where port_id = $1 and expires_at > clock_timestamp()
    union all
    select coalesce(holds->>'service', holds#>>'{labels,0,0}'), coalesce(holds->>'feature', holds#>>'{labels,0,1}'),
        coalesce((holds->>'count')::int, jsonb_array_length(holds->'holds')) - bit_count(closed), tokens - closed_tokens, expires_at
    from ai_budget_slices
    where port_id = $1 and expires_at > clock_timestamp() and holds is not null and tokens > closed_tokens
    union all
    select '(leased to a gate)', '', 0, tokens - closed_tokens, expires_at from ai_budget_slices
    where port_id = $1 and expires_at > clock_timestamp() and holds is null and tokens > closed_tokens
) all_of_them
where $2 or (service, feature) > ($3, $4)
group by 1, 2 order by 1, 2 limit $5
