-- Slices that expired a while ago, with the holds in them that no event has settled.
-- One that was never sealed is what a gate that was killed left behind: how much of
-- it were holds, and whose, nobody knows.
with expired as (
    delete from ai_budget_slices where (port_id, id) in (
        select port_id, id from ai_budget_slices where expires_at < clock_timestamp() - $1::interval
        order by port_id, id limit $2 for update skip locked)
    returning port_id, tokens, closed_tokens, closed, expires_at, holds
), unsettled as (
    select x.port_id, x.expires_at, l.label->>0 as service, l.label->>1 as feature, 1 as holds, (h.hold->>1)::bigint as tokens
    from expired x
    cross join lateral jsonb_array_elements(x.holds->'holds') with ordinality h(hold, n)
    cross join lateral (select x.holds->'labels'->(h.hold->>0)::int as label) l
    where x.holds is not null and get_bit(x.closed, (h.n - 1)::int) = 0
    union all
    select port_id, expires_at, '(killed gate)', '', 0, tokens - closed_tokens
    from expired where holds is null and tokens > closed_tokens
), counted as (
    insert into ai_unsettled_holds as u (port_id, day, service, feature, holds, tokens)
    select e.port_id, (e.expires_at at time zone 'UTC')::date, e.service, e.feature, sum(e.holds), sum(e.tokens)
    from unsettled e join ports p on p.id = e.port_id
    group by 1, 2, 3, 4 order by 1, 2, 3, 4
    on conflict (port_id, day, service, feature) do update set
        holds = u.holds + excluded.holds, tokens = u.tokens + excluded.tokens
)
select port_id, sum(holds)::bigint, sum(tokens)::bigint from unsettled where holds > 0 group by 1
