-- Holds that expired a while ago and that no event has settled, by themselves and in
-- leases. Of a lease that was never sealed nobody knows how much of it were holds, and
-- whose: it is what a gate that was killed left behind. Older versions listed the holds of a
-- lease, under labels; the first of these stands for all. A sum beyond 64 bits is the largest number
-- that they hold, or one port would fail the sweep of all.
with single as (
    delete from ai_budget_holds where (port_id, id) in (
        select port_id, id from ai_budget_holds where expires_at < clock_timestamp() - $1::interval
        order by port_id, id limit $2 for update skip locked)
    returning port_id, service, feature, tokens, expires_at
), leased as (
    delete from ai_budget_slices where (port_id, id) in (
        select port_id, id from ai_budget_slices where expires_at < clock_timestamp() - $1::interval
        order by port_id, id limit $2 for update skip locked)
    returning port_id, tokens - closed_tokens as tokens, closed, expires_at, holds
), expired as (
    select port_id, service, feature, 1 as holds, tokens, expires_at from single
    union all
    select port_id, coalesce(holds->>'service', holds#>>'{labels,0,0}'), coalesce(holds->>'feature', holds#>>'{labels,0,1}'),
        coalesce((holds->>'count')::int, jsonb_array_length(holds->'holds')) - bit_count(closed), tokens, expires_at
    from leased where holds is not null and tokens > 0
    union all
    select port_id, '(killed gate)', '', 0, tokens, expires_at from leased where holds is null and tokens > 0
), counted as (
    insert into ai_unsettled_holds as u (port_id, day, service, feature, holds, tokens)
    select e.port_id, (e.expires_at at time zone 'UTC')::date, e.service, e.feature, sum(e.holds), least(sum(e.tokens), 9223372036854775807)
    from expired e join ports p on p.id = e.port_id
    group by 1, 2, 3, 4 order by 1, 2, 3, 4
    on conflict (port_id, day, service, feature) do update set
        holds = u.holds + excluded.holds, tokens = least(u.tokens::numeric + excluded.tokens, 9223372036854775807)
)
select port_id, sum(holds)::bigint, least(sum(tokens), 9223372036854775807)::bigint from expired where holds > 0 group by 1
