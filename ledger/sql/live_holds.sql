-- A page of a port's live holds: from the beginning if $2, else after service $3 and
-- feature $4. Those that gates make in memory are known one by one once their
-- slice is sealed, about a second later; until then only its tokens are.
select service, feature, sum(holds), sum(tokens)::bigint, min(expires_at) from (
    select service, feature, 1 as holds, tokens, expires_at from ai_budget_holds
    where port_id = $1 and expires_at > clock_timestamp()
    union all
    select l.label->>0, l.label->>1, 1, (h.hold->>1)::bigint, s.expires_at
    from ai_budget_slices s
    cross join lateral jsonb_array_elements(s.holds->'holds') with ordinality h(hold, n)
    cross join lateral (select s.holds->'labels'->(h.hold->>0)::int as label) l
    where s.port_id = $1 and s.expires_at > clock_timestamp() and s.holds is not null and get_bit(s.closed, (h.n - 1)::int) = 0
    union all
    select '(leased to a gate)', '', 0, tokens - closed_tokens, expires_at from ai_budget_slices
    where port_id = $1 and expires_at > clock_timestamp() and holds is null and tokens > closed_tokens
) all_of_them
where $2 or (service, feature) > ($3, $4)
group by 1, 2 order by 1, 2 limit $5
